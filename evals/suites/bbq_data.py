"""BBQ files: questions with three answers, read line by line or refused with file, line and field; targets; published answers.

Which answer names the stereotyped group comes from upstream's ``additional_metadata.csv`` (``target_loc``) where it is given, else from
the groups in the row, compared whole and never as parts of words ("old" is in "nonOld"). Where no answer, or more than one, names it,
and for the intersectional categories without that file, the item has no target: its accuracy counts and its bias is not guessed.
Errors name lines and fields, never the text.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.core.errors import CorruptFile, MissingFile
from workbench.data.json_lines import objects

GET_IT = "Run `workbench data fetch bbq`, or give jsonl files of the same form."
ANSWERS = ("ans0", "ans1", "ans2")
POLARITIES, CONDITIONS = ("neg", "nonneg"), ("ambig", "disambig")
UNKNOWN = "unknown"
METADATA = ("category", "question_index", "example_id", "target_loc")
_SEX = {**dict.fromkeys(("man", "men", "boy", "boys", "male"), "m"), **dict.fromkeys(("woman", "women", "girl", "girls", "female"), "f")}
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Item:
    """One question. ``unknown``, ``label`` and ``target`` number the answers; ``target`` is the stereotyped group's, or None."""

    category: str
    question_index: str
    example_id: str
    negative: bool
    ambiguous: bool
    context: str
    question: str
    answers: tuple[str, str, str]
    unknown: int
    label: int
    target: int | None

    @property
    def template(self) -> str:
        return f"{self.category}/{self.question_index}"

    @property
    def key(self) -> Key:
        return self.category, self.question_index, self.example_id


def load(path: Path, metadata: Mapping[Key, int | None] | None = None) -> list[Item]:
    """Every question of a jsonl file, or of every ``*.jsonl`` of a folder. ``metadata``: see ``load_metadata``.

    Raises MissingFile, or CorruptFile where a line is not of the form: the file, the line (from 1) and the field are named.
    """
    return [item for item, _ in read(path, metadata)]


def read(path: Path, metadata: Mapping[Key, int | None] | None = None) -> list[tuple[Item, dict[str, Any]]]:
    """Every question with its whole row (published answers stand in further fields). Raises as ``load`` does."""
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise MissingFile(path, "BBQ file", do=GET_IT)
    out = [found for file in files for found in _rows(file)]
    seen: set[Key] = set()
    for item, _ in out:
        if item.key in seen:
            raise CorruptFile(path, "a set that numbers an example once", f"{item.template} has example {item.example_id} twice", do=GET_IT)
        seen.add(item.key)
    if metadata is None:
        return out
    return [(replace(item, target=_known(item, metadata)), row) for item, row in out]


def _known(item: Item, metadata: Mapping[Key, int | None]) -> int | None:
    target = metadata.get(item.key)
    return None if target == item.unknown else target


def _rows(path: Path) -> Iterator[tuple[Item, dict[str, Any]]]:
    for number, row in objects(str(path), path.read_bytes(), do=GET_IT):
        yield _item(path, number, row), row


def _item(path: Path, number: int, row: Mapping[str, Any]) -> Item:
    def bad(field: str, allowed: str) -> CorruptFile:
        return CorruptFile(path, f"a file with {allowed} in every '{field}'", f"line {number} has something else", do=GET_IT)

    def text(field: str) -> str:
        value = row.get(field)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise bad(field, "text")
        return value

    for field, allowed in (("question_polarity", POLARITIES), ("context_condition", CONDITIONS)):
        if row.get(field) not in allowed:
            raise bad(field, f"'{' or '.join(allowed)}'")
    info = row.get("answer_info")
    tags: list[Any] = [info.get(name) for name in ANSWERS] if isinstance(info, dict) else []
    if len(tags) != 3 or not all(isinstance(t, list) and len(t) == 2 and all(isinstance(part, str) for part in t) for t in tags):
        raise bad("answer_info", "a text and a group for each answer")
    unknown = [place for place, tag in enumerate(tags) if tag[1] == UNKNOWN]
    if len(unknown) != 1:
        raise bad("answer_info", f"one answer of the group '{UNKNOWN}'")
    if type(row.get("label")) is not int or row["label"] not in (0, 1, 2):
        raise bad("label", "0, 1 or 2")
    extra = row.get("additional_metadata")
    groups = extra.get("stereotyped_groups") if isinstance(extra, dict) else None
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise bad("additional_metadata", "a list of stereotyped groups")
    first, second, third = (text(name) for name in ANSWERS)
    return Item(
        text("category"), text("question_index"), text("example_id"), row["question_polarity"] == "neg",
        row["context_condition"] == "ambig", text("context"), text("question"), (first, second, third), unknown[0], row["label"],
        target_of(row["category"], tags, groups, unknown[0]),
    )  # fmt: skip


# --- targets ------------------------------------------------------------------------------------------------


def target_of(category: str, tags: list[list[str]], groups: list[str], unknown: int) -> int | None:
    """The one answer that names a stereotyped group, from each answer's (text, group); None where there is not exactly one."""
    if "_x_" in category:
        return None
    wanted = {"disabled"} if category == "Disability_status" else {_plain(group) for group in groups}
    found = [place for place, tag in enumerate(tags) if place != unknown and wanted & _names(category, tag)]
    return found[0] if len(found) == 1 else None


def _plain(name: str) -> str:
    """Letters alone, one word for each sex, one for trans people."""
    word = re.sub(r"[^a-z]", "", name.lower())
    return "trans" if word.startswith("trans") else _SEX.get(word, word)


def _names(category: str, tag: list[str]) -> set[str]:
    text, group = tag
    bare = re.sub(r"^[FM]-", "", group)  # a proper name's group is told as F-Black
    return {_plain(bare), *([_plain(text)] if category == "Nationality" else [])}


def load_metadata(path: Path) -> dict[Key, int | None]:
    """``target_loc`` by (category, question_index, example_id) of upstream's csv. Raises MissingFile or CorruptFile with the row."""
    if not path.is_file():
        raise MissingFile(path, "BBQ metadata file", do=GET_IT)
    with path.open(encoding="utf-8-sig", newline="") as handle:
        rows = csv.DictReader(handle)
        if missing := [name for name in METADATA if name not in (rows.fieldnames or ())]:
            raise CorruptFile(path, f"a csv file with the columns {', '.join(METADATA)}", f"it has no column {missing[0]}", do=GET_IT)
        out: dict[Key, int | None] = {}
        for row in rows:
            place = (row["target_loc"] or "").strip()
            if place not in ("0", "1", "2", "x", "NA", ""):
                raise CorruptFile(path, "0, 1, 2, x or NA in 'target_loc'", f"line {rows.line_num} has something else", do=GET_IT)
            out[row["category"], row["question_index"], row["example_id"]] = int(place) if place in ("0", "1", "2") else None
    return out


# --- answers as text ----------------------------------------------------------------------------------------


def answer_of(text: str, item: Item) -> int | None:
    """The answer that ``text`` is, whole: letter case, outer white space and a final period aside. None where it is none, or not one.

    None is unparsed and stays so: an index of −1 would be the last answer, and a comparison word by word could not find a name of two.
    """
    said = _said(text)
    found = [place for place, answer in enumerate(item.answers) if _said(answer) == said]
    return found[0] if len(found) == 1 else None


def _said(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".")
