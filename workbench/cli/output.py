"""What a command says: one JSON document or lines for people on stdout, errors on stderr, and the exit code.

A command calls ``show`` once. With ``--json`` there is exactly one JSON document on stdout whatever happens: what the
command found, or ``{"error": …}``. Standard library and ``core.errors`` only, so that ``--help`` stays fast.
"""

from __future__ import annotations

import json
import math
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.core.errors import EXIT_ERROR, AssayError


@dataclass
class Session:
    """How this call of the program speaks."""

    json: bool = False
    debug: bool = False
    shown: bool = False


SESSION = Session()
"""This process's session; ``begin`` makes it new."""


def begin() -> Session:
    """A new session with everything off."""
    SESSION.json = SESSION.debug = SESSION.shown = False
    return SESSION


def show(document: Any, lines: str | Iterable[str]) -> None:
    """Print the command's one answer: ``document`` with --json, ``lines`` otherwise."""
    if SESSION.json:
        _print_json(document)
        return
    for line in [lines] if isinstance(lines, str) else lines:
        sys.stdout.write(f"{line}\n")


def note(words: str) -> None:
    """A remark for people, on stderr."""
    sys.stderr.write(f"{words}\n")


def fail(error: BaseException, code: int, words: str = "") -> int:
    """Say what went wrong and return ``code``. The traceback is shown with --debug only."""
    words = words or str(error)
    if SESSION.debug:
        traceback.print_exception(error, file=sys.stderr)
    sys.stderr.write(f"{words}\n")
    if SESSION.json and not SESSION.shown:
        _print_json({"error": {"type": type(error).__name__, "message": words, "exit_code": code}})
    return code


def unexpected(error: BaseException) -> int:
    """The one sentence for what should not have happened."""
    what = " ".join(str(error).split())
    described = f"{type(error).__name__}: {what[:200]}" if what else type(error).__name__
    hint = "" if SESSION.debug else " Run it again with --debug to see where."
    return fail(error, EXIT_ERROR, f"Something unexpected happened ({described}).{hint}")


def known(error: AssayError) -> int:
    """The sentences of an error of ours."""
    return fail(error, error.exit_code)


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> list[str]:
    """Rows as aligned lines under a header; nothing is cut, since a terminal can wrap and a pipe has no width."""
    texts = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts]


def _print_json(document: Any) -> None:
    assert not SESSION.shown, "a command answers once"
    SESSION.shown = True
    sys.stdout.write(json.dumps(plain(document), ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """``value`` as JSON can carry it: numbers that are not finite become their names, as in stored results."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
