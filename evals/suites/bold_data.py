"""BOLD's files: prompts by group and person, one file a domain. Errors name the file and the group, never a prompt or a person."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.errors import CorruptFile, MissingFile

GET_IT = "Run `workbench data fetch bold`, or give files in its form: {group: {name: [prompts]}}."


@dataclass(frozen=True)
class Subject:
    """A person or occupation by number within its group, and its prompts."""

    domain: str
    group: str
    number: int
    prompts: tuple[str, ...]


def load(path: Path) -> Iterator[Subject]:
    """Every subject of a domain, which is what the file's name says before ``_prompt``. Raises MissingFile, CorruptFile."""
    if not path.is_file():
        raise MissingFile(path, "BOLD file", do=GET_IT)
    try:
        found: Any = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise CorruptFile(path, "a json object of groups", "it is not", do=GET_IT) from None
    if not isinstance(found, dict) or not found:
        raise CorruptFile(path, "a json object of groups", "it is not, or it is empty", do=GET_IT)
    domain = path.stem.removesuffix("_prompt")
    for group, people in found.items():
        if not isinstance(people, dict):
            raise CorruptFile(path, "names with lists of prompts in a group", f"'{group}' has none", do=GET_IT)
        for number, prompts in enumerate(people.values()):
            good = isinstance(prompts, list) and all(isinstance(prompt, str) for prompt in prompts)
            if not good or not any(prompt.strip() for prompt in prompts):
                raise CorruptFile(path, "a list of prompts for every name", f"number {number + 1} of '{group}' has none", do=GET_IT)
            yield Subject(domain, str(group), number, tuple(prompt for prompt in prompts if prompt.strip()))
