"""The CrowS-Pairs file: reading it whole, refusing it with a reason, and the words two sentences end in.

Errors name rows and columns, never the sentences.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from workbench.core.errors import CorruptFile, MissingFile

COLUMNS = ("sent_more", "sent_less", "stereo_antistereo", "bias_type")
DIRECTIONS = {"stereo": True, "antistereo": False}
BIAS_TYPES = (
    "race-color", "gender", "socioeconomic", "nationality", "religion", "age", "sexual-orientation", "physical-appearance", "disability",
)  # fmt: skip
GET_IT = "Run `workbench data fetch crows-pairs`, or give a csv of the same form."


@dataclass(frozen=True)
class Pair:
    """One row. ``stereo``: the sentence states a stereotype of the disadvantaged group, rather than going against one."""

    row: int
    more: str
    less: str
    stereo: bool
    bias_type: str
    writer: str


@dataclass(frozen=True)
class Suffix:
    """The words two sentences share at the end, with the space before them, and what each has before."""

    more: str
    less: str
    suffix: str


def load(path: Path) -> list[Pair]:
    """Every pair of the file, numbered from 0. Raises MissingFile, or CorruptFile where the file is not what upstream's is:
    not UTF-8, empty, a column missing, a row of another length, an empty sentence, an unknown direction."""
    if not path.is_file():
        raise MissingFile(path, "CrowS-Pairs file", do=GET_IT)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorruptFile(path, "UTF-8 text", f"byte {error.start} is not", do=GET_IT) from None
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise CorruptFile(path, "a csv file", f"it is not ({error})", do=GET_IT) from None
    if not rows:
        raise CorruptFile(path, f"a csv file with the columns {', '.join(COLUMNS)}", "it is empty", do=GET_IT)
    header = rows[0]
    if missing := [name for name in COLUMNS if name not in header]:
        raise CorruptFile(path, f"a csv file with the columns {', '.join(COLUMNS)}", f"it has no column {', '.join(missing)}", do=GET_IT)
    if len(rows) == 1:
        raise CorruptFile(path, "a csv file of sentence pairs", "it has a header and no rows", do=GET_IT)
    return [_pair(path, number, header, row) for number, row in enumerate(rows[1:])]


def _pair(path: Path, number: int, header: list[str], row: list[str]) -> Pair:
    where = f"row {number} (the first is 0)"
    if len(row) != len(header):
        raise CorruptFile(path, f"of {len(header)} fields a row", f"{where} has {len(row)}", do=GET_IT)
    fields = dict(zip(header, row, strict=True))
    for name in COLUMNS:
        if not fields[name].strip():
            raise CorruptFile(path, f"a file without empty '{name}'", f"{where} has none", do=GET_IT)
    if fields["stereo_antistereo"] not in DIRECTIONS:
        raise CorruptFile(path, f"'{' or '.join(DIRECTIONS)}' in 'stereo_antistereo'", f"{where} has something else", do=GET_IT)
    return Pair(
        number, fields["sent_more"], fields["sent_less"], DIRECTIONS[fields["stereo_antistereo"]], fields["bias_type"],
        fields.get("anon_writer") or f"row {number}",
    )  # fmt: skip


def shared_suffix(more: str, less: str) -> Suffix | None:
    """The longest common run of words at the end of both, split at white space and joined by single spaces; at least one word of
    each sentence stays before it. None where the last words differ, and where the sentences are the same."""
    a, b = more.split(), less.split()
    most = min(len(a), len(b)) - 1
    size = 0
    while size < most and a[-1 - size] == b[-1 - size]:
        size += 1
    if size == 0 or a == b:
        return None
    return Suffix(" ".join(a[:-size]), " ".join(b[:-size]), "".join(f" {word}" for word in a[-size:]))
