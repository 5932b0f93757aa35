"""What a reference or a setting typed into a page may reach: folders below those allowed, and servers on allowed hosts, nothing else.

``WORKBENCH_FOLDERS`` (separated as a path list is) and ``WORKBENCH_HOSTS`` (by commas) add to what is always allowed: the folder the
program was started in, the store's home, the data mirror, and this machine itself. Links are followed before they are judged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from workbench.core.errors import BadValue
from workbench.lab.refs import parse

FOLDERS, HOSTS, MIRROR = "WORKBENCH_FOLDERS", "WORKBENCH_HOSTS", "WORKBENCH_DATA_MIRROR"
LOCAL = ("127.0.0.1", "localhost", "::1")
_OF_A_FOLDER = ("path", "compiled")
_OF_A_NAME = ("hf", "tl")


def roots(home: Path | None) -> list[Path]:
    """The folders below which everything may be opened."""
    named = [part for part in os.environ.get(FOLDERS, "").split(os.pathsep) if part]
    mirror = os.environ.get(MIRROR, "")
    return [Path(part).resolve() for part in (".", *named, *([mirror] if mirror else []), *([str(home)] if home is not None else []))]


def hosts() -> set[str]:
    """The servers a model may be asked at."""
    return {*LOCAL, *(host.strip().lower() for host in os.environ.get(HOSTS, "").split(",") if host.strip())}


def check_reference(ref: str, home: Path | None) -> None:
    """Raises BadValue for a model reference that reaches elsewhere; whether there is a model is for ``refs.load`` to say."""
    if "\0" in ref:
        raise BadValue("the model reference", "text with a NUL", "plain text")
    wanted = parse(ref)
    if wanted.scheme in _OF_A_FOLDER or (wanted.scheme in _OF_A_NAME and _is_a_place(wanted.name)):
        _check_place("the model reference", wanted.name, home)
    if wanted.scheme == "endpoint":
        host = (urlsplit(wanted.name.partition("@")[2]).hostname or "").lower()
        if host not in hosts():
            raise BadValue(
                "the server of the model reference", host or "none", f"one of {', '.join(sorted(hosts()))}",
                do=f"Name it in {HOSTS} where the dashboard is started, or ask the model at the command line.",
            )  # fmt: skip


def check_settings(values: Any, home: Path | None, what: str = "a setting") -> None:
    """Raises BadValue where a text anywhere in ``values`` is a place that is not allowed."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            check_settings(value, home, f"'{name}'")
    elif isinstance(values, list | tuple):
        for value in values:
            check_settings(value, home, what)
    elif isinstance(values, str) and _is_a_place(values):
        _check_place(what, values, home)


def _is_a_place(text: str) -> bool:
    """Whether a text can only be meant as a place: absolute, in a home, or on the way up. A plain ``a/b`` lies below, and is allowed."""
    return text.startswith(("/", "~", "\\")) or ".." in Path(text).parts or (len(text) > 2 and text[1] == ":" and text[2] in "\\/")


def _check_place(what: str, text: str, home: Path | None) -> None:
    try:
        place = Path(text).resolve()
    except (OSError, RuntimeError):  # a link that leads to itself
        raise BadValue(what, text[:200], "a place that can be found") from None
    if not any(place == root or root in place.parents for root in roots(home)):
        raise BadValue(
            what, text[:200], "inside a folder that the dashboard may open",
            do=f"Start the dashboard in that folder, or name it in {FOLDERS}; the command line opens any.",
        )  # fmt: skip
