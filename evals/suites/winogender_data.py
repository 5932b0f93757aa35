"""Winogender files: sentences whose ids say what a pronoun means and whose it is, and the share of women in each occupation.

``all_sentences.tsv`` has the columns sentid and sentence; an id is ``occupation.participant.answer.sex.txt``, answer 0 for the occupation
and 1 for the participant. ``occupations-stats.tsv`` has the columns occupation and bls_pct_female. Errors name lines and columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from workbench.core.errors import CorruptFile, MissingFile

GET_IT = "Give --set folder=FOLDER with all_sentences.tsv and occupations-stats.tsv of the Winogender schemas."
SENTENCES, STATISTICS, PERCENT = "all_sentences.tsv", "occupations-stats.tsv", "bls_pct_female"
WORDS = {"male": "he|him|his", "female": "she|hers|her", "neutral": "they|them|theirs|their"}


@dataclass(frozen=True)
class Sentence:
    """One sentence. ``occupation_meant``: the pronoun means the occupation, not the participant; ``women``: percent of the occupation."""

    id: str
    occupation: str
    participant: str
    occupation_meant: bool
    sex: str
    text: str
    pronoun: str
    women: float

    @property
    def template(self) -> str:
        """What the sentences with other pronouns share."""
        return f"{self.occupation}.{self.participant}.{0 if self.occupation_meant else 1}"


def load(folder: Path) -> list[Sentence]:
    """Every sentence. Raises MissingFile, or CorruptFile with file, line (from 1, the header) and column."""
    women = statistics(folder / STATISTICS)
    path = folder / SENTENCES
    out = [_sentence(path, number, row, women) for number, row in _rows(path, ("sentid", "sentence"))]
    if len({one.id for one in out}) != len(out):
        raise CorruptFile(path, "a file that uses an id once", "one stands twice", do=GET_IT)
    return out


def statistics(path: Path) -> dict[str, float]:
    """Percent of women by occupation. Raises MissingFile or CorruptFile."""
    out: dict[str, float] = {}
    for number, row in _rows(path, ("occupation", PERCENT)):
        try:
            value = float(row[PERCENT])
        except ValueError:
            value = math.nan
        if not 0 <= value <= 100:
            raise CorruptFile(path, f"a percentage in every '{PERCENT}'", f"line {number} has something else", do=GET_IT)
        out[row["occupation"].lower()] = value
    return out


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    if not path.is_file():
        raise MissingFile(path, "Winogender file", do=GET_IT)
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise CorruptFile(path, "UTF-8 text", f"byte {error.start} is not", do=GET_IT) from None
    header = lines[0].split("\t") if lines else []
    if missing := [name for name in columns if name not in header]:
        raise CorruptFile(path, f"a table with the columns {', '.join(columns)}", f"it has no column {missing[0]}", do=GET_IT)
    if len(lines) < 2:
        raise CorruptFile(path, "a table", "it has a header and no rows", do=GET_IT)
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        if len(cells) != len(header):
            raise CorruptFile(path, f"of {len(header)} cells a line", f"line {number} has {len(cells)}", do=GET_IT)
        row = dict(zip(header, cells, strict=True))
        if empty := [name for name in columns if not row[name].strip()]:
            raise CorruptFile(path, f"a table with something in every '{empty[0]}'", f"line {number} has nothing", do=GET_IT)
        yield number, row


def _sentence(path: Path, number: int, row: Mapping[str, str], women: Mapping[str, float]) -> Sentence:
    parts = row["sentid"].removesuffix(".txt").split(".")
    if len(parts) != 4 or parts[2] not in ("0", "1") or parts[3] not in WORDS:
        wanted = "occupation.participant.0 or 1.male, female or neutral in every 'sentid'"
        raise CorruptFile(path, wanted, f"line {number} has something else", do=GET_IT)
    occupation, participant, answer, sex = parts
    if occupation.lower() not in women:
        raise CorruptFile(path, f"about occupations of {STATISTICS}", f"that of line {number} is not there", do=GET_IT)
    found = re.search(rf"\b({WORDS[sex]})\b", row["sentence"], re.IGNORECASE)
    if not found:
        raise CorruptFile(path, "a sentence with the pronoun its id says", f"line {number} has none", do=GET_IT)
    meant, share = answer == "0", women[occupation.lower()]
    return Sentence(row["sentid"], occupation, participant, meant, sex, row["sentence"].strip(), found[1].lower(), share)
