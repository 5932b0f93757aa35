"""Files that people write by hand: UTF-8 text with the fields of a plan, a policy, a recipe. What is none is refused in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from workbench.core.errors import CorruptFile

_HELD = {
    dict: "fields whose names are not all text", list: "a list", str: "a text without fields", bool: "a truth value", int: "a number",
    float: "a number",
}  # fmt: skip


def text_of(path: Path, what: str) -> str:
    """The text of a file that is there. Raises CorruptFile for a folder and for what is no UTF-8 text; ``what`` it should be."""
    if path.is_dir():
        raise CorruptFile(path, what, "it is a folder")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CorruptFile(path, f"{what} in UTF-8", f"byte {error.start} is none") from None


def fields_in(text: str, where: object, what: str) -> dict[Any, Any]:
    """The fields of a YAML text. Raises CorruptFile for another text; ``what`` it should hold the fields of, such as ``a plan``."""
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        said = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
        raise CorruptFile(where, "a YAML file", f"it is not: {said[:160]}") from None
    if not isinstance(values, dict):
        raise CorruptFile(where, f"a YAML file with the fields of {what}", held(values))
    return values


def held(values: object) -> str:
    """What a YAML file holds in the place of fields, in words."""
    return "it is empty" if values is None else f"it holds {_HELD.get(type(values), 'one value')}"
