"""BLiMP files: minimal pairs read line by line from jsonl files, folders or zips of them, and the published accuracies.

Errors name file, line (from 1) and field.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workbench.core.errors import CorruptFile, MissingFile
from workbench.data.json_lines import objects

GET_IT = "Run `workbench data fetch blimp`, or give jsonl files of the same form."
MODELS = ("ngram", "lstm", "txl", "gpt2")


@dataclass(frozen=True)
class MinimalPair:
    """One pair: ``good`` is grammatical, ``bad`` is not. ``paradigm`` is upstream's UID, ``term`` its phenomenon."""

    paradigm: str
    term: str
    field: str
    number: str
    good: str
    bad: str


def load(path: Path) -> list[MinimalPair]:
    """Every pair of a jsonl file, a folder of them or a zip of them, by name. Raises MissingFile or CorruptFile."""
    out = [pair for name, content in _contents(path) for pair in _pairs(name, content)]
    seen: set[tuple[str, str]] = set()
    for pair in out:
        if (pair.paradigm, pair.number) in seen:
            raise CorruptFile(path, "a set that numbers a pair once", f"{pair.paradigm} has pair {pair.number} twice", do=GET_IT)
        seen.add((pair.paradigm, pair.number))
    return out


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        files = sorted(path.glob("*.jsonl"))
        if not files:
            raise MissingFile(path, "BLiMP file", do=GET_IT)
        yield from ((str(file), file.read_bytes()) for file in files)
    elif not path.is_file():
        raise MissingFile(path, "BLiMP file", do=GET_IT)
    elif path.suffix != ".zip":
        yield str(path), path.read_bytes()
    else:
        try:
            with zipfile.ZipFile(path) as pack:
                names = sorted(name for name in pack.namelist() if name.endswith(".jsonl"))
                if not names:
                    raise CorruptFile(path, "a zip of jsonl files", "it has none", do=GET_IT)
                yield from ((f"{path}:{name}", pack.read(name)) for name in names)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise CorruptFile(path, "a zip file", f"it is not ({error})", do=GET_IT) from None


def _pairs(name: str, content: bytes) -> Iterator[MinimalPair]:
    for number, row in objects(name, content, do=GET_IT):
        values = []
        for field in ("UID", "linguistics_term", "field", "pairID", "sentence_good", "sentence_bad"):
            value = row.get(field)
            value = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
            if not isinstance(value, str) or not value.strip():
                raise CorruptFile(name, f"a file with text in every '{field}'", f"line {number} has none", do=GET_IT)
            values.append(value)
        yield MinimalPair(*values)


def load_published(path: Path) -> dict[str, dict[str, float]]:
    """Published accuracies by paradigm and model (``MODELS``); rows of averages are left out. Raises MissingFile or CorruptFile."""
    if not path.is_file():
        raise MissingFile(path, "file of published BLiMP accuracies", do=GET_IT)
    out: dict[str, dict[str, float]] = {}
    for number, row in objects(str(path), path.read_bytes(), do=GET_IT):
        if row.get("UID") == "overall":
            continue
        figures = {model: row.get(model) for model in MODELS}
        for model, value in figures.items():
            good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1
            if not good or not isinstance(row.get("UID"), str):
                raise CorruptFile(path, f"a UID and a share from 0 to 1 in every '{model}'", f"line {number} has none", do=GET_IT)
        out[row["UID"]] = {model: float(value) for model, value in figures.items() if value is not None}
    return out
