"""Files of one JSON object a line, read or refused with file and line; never with the text itself, which may be harmful."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from workbench.core.errors import CorruptFile


def objects(name: str, content: bytes, *, do: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number (from 1) and the object of every line that is not empty. ``do`` says what to do about a file that is none.

    Raises CorruptFile for bytes that are not UTF-8, a line that holds no object, and a file without any.
    """
    try:
        lines = content.decode("utf-8-sig").split("\n")  # splitlines would also cut at separators that stand inside a text
    except UnicodeDecodeError as error:
        raise CorruptFile(name, "UTF-8 text", f"byte {error.start} is not", do=do) from None
    found = False
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # no json, a number of thousands of digits, or thousands of brackets
            why = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            raise CorruptFile(name, "a json object a line", f"line {number} is not ({why})", do=do) from None
        if not isinstance(row, dict):
            raise CorruptFile(name, "a json object a line", f"line {number} is not one", do=do)
        found = True
        yield number, row
    if not found:
        raise CorruptFile(name, "a file of json objects", "it has none", do=do)
