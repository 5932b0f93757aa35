"""Rows of a task: CSV, JSON lines or a JSON list, one file, several, or a folder of them. Errors name file and line, never the text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.errors import CorruptFile, MissingFile
from workbench.data.json_lines import objects

KINDS = (".csv", ".tsv", ".jsonl", ".json")
GIVE = "Give csv, tsv, jsonl or json files, one row an item."
LONGEST_CELL = 10_000_000


@dataclass(frozen=True)
class Row:
    """One item: its columns, and the file and line (from 1) it stands at."""

    columns: dict[str, Any]
    file: Path
    line: int

    @property
    def where(self) -> str:
        return f"{self.file.name} line {self.line}"


def rows_of(places: Sequence[Path], *, columns: Sequence[str] = ()) -> list[Row]:
    """Every row of the files, in order; a folder stands for its files by name. ``columns``: the names where a csv's first line has none.

    Raises MissingFile and CorruptFile.
    """
    out = [row for place in places for file in _files(place) for row in _rows(file, columns)]
    if not out:
        raise CorruptFile(places[0], "files with at least one row", "there is none", do=GIVE)
    return out


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        found = sorted(file for file in place.iterdir() if file.suffix in KINDS and file.is_file())
        if not found:
            raise MissingFile(place, f"folder with a {', '.join(KINDS)} file", do=GIVE)
        return found
    if not place.is_file():
        raise MissingFile(place, "file of rows", do=GIVE)
    if place.suffix not in KINDS:
        raise CorruptFile(place, f"a file that ends in {', '.join(KINDS)}", f"it ends in '{place.suffix}'", do=GIVE)
    return [place]


def _rows(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    content = file.read_bytes()
    if file.suffix == ".jsonl":
        yield from (Row(row, file, number) for number, row in objects(str(file), content, do=GIVE))
        return
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorruptFile(file, "UTF-8 text", f"byte {error.start} is not", do=GIVE) from None
    yield from _json_rows(file, text) if file.suffix == ".json" else _csv_rows(file, text, columns)


def _json_rows(file: Path, text: str) -> Iterator[Row]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise CorruptFile(file, "a json list of objects", f"line {error.lineno} is not json ({error.msg})", do=GIVE) from None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise CorruptFile(file, "a json list of objects", "it is none", do=GIVE)
    yield from (Row(one, file, number) for number, one in enumerate(found, start=1))


def _csv_rows(file: Path, text: str, columns: Sequence[str]) -> list[Row]:
    """All rows at once: the limit of a cell holds for the whole process, so it is put back before anything else reads."""
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        return list(_cells(file, text, columns))
    finally:
        csv.field_size_limit(before)


def _cells(file: Path, text: str, columns: Sequence[str]) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if file.suffix == ".tsv" else ",", strict=True, skipinitialspace=True)
    header = list(columns)
    try:
        for cells in reader:
            if not cells:
                continue
            if not header:
                header = cells
                if doubled := sorted({name for name in header if header.count(name) > 1}):
                    raise CorruptFile(file, "columns of different names", f"'{doubled[0]}' stands twice", do=GIVE)
                continue
            if len(cells) != len(header):
                found = f"line {reader.line_num} has {len(cells)} cells and there are {len(header)} columns"
                raise CorruptFile(file, "rows of one length", found, do=GIVE)
            yield Row(dict(zip(header, cells, strict=True)), file, reader.line_num)
    except csv.Error as error:
        raise CorruptFile(file, "a csv file", f"line {reader.line_num} is not ({error})", do=GIVE) from None
