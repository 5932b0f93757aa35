"""WinoBias files: each sentence with its stereotype-keeping and its stereotype-breaking pronoun, read or refused with file and line.

The files of one type and half stand side by side: line *n* of ``pro_stereotyped_type1.txt.dev`` and of ``anti_stereotyped_type1.txt.dev``
are one sentence with the pronoun changed. What a pronoun refers to is in brackets, and so is the pronoun; in a few lines of the real set
more pronouns are, or an article or a space stands inside or outside, and one line names three occupations. Those are read where their
meaning is certain, and kept with a reason where it is not, so that they are counted. Errors name lines, never sentences.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.core.errors import CorruptFile, MissingFile

GET_IT = "Run `workbench data fetch winobias`, or give a folder with files of the same names."
SIDES = ("pro", "anti")
PRONOUNS = {"he": "male", "him": "male", "his": "male", "she": "female", "her": "female", "hers": "female"}
Where = Callable[[str], Path]
THREE, DIFFERENT = "not two occupations in the sentence", "the two files refer to different occupations"


@dataclass(frozen=True)
class Side:
    """One sentence without its brackets, and the first pronoun that was in brackets, as written."""

    sentence: str
    pronoun: str


@dataclass(frozen=True)
class Pair:
    """One line of both files. ``right``: the occupation meant; ``other``: the one that is not; ``unscored``: why it cannot be asked."""

    type: int
    half: str
    line: int
    pro: Side
    anti: Side
    right: str
    other: str
    unscored: str = ""

    @property
    def occupations(self) -> str:
        return " + ".join(sorted((self.right, self.other)))


def occupations(where: Where) -> dict[str, str]:
    """The sex each occupation is stereotypically of, by occupation. Raises MissingFile, or CorruptFile for an occupation of both."""
    out: dict[str, str] = {}
    for sex in ("male", "female"):
        path = where(f"{sex}_occupations.txt")
        for number, line in enumerate(_lines(path), start=1):
            name = line.strip()
            if not name:
                continue
            if name.lower() in out:
                raise CorruptFile(path, "a list that names an occupation once", f"line {number} names one again", do=GET_IT)
            out[name.lower()] = sex
    if not out:
        raise CorruptFile(where("male_occupations.txt"), "a list of occupations", "it and the other are empty", do=GET_IT)
    return out


def halves(names: Iterable[str]) -> list[tuple[int, str]]:
    """The (type, half) that there are files of, from their names."""
    found = [re.fullmatch(r"pro_stereotyped_type([12])\.txt\.(\w+)", name) for name in sorted(names)]
    return [(int(match[1]), match[2]) for match in found if match]


def load(where: Where, kind: int, half: str, known: Sequence[str]) -> list[Pair]:
    """Every sentence of one type and half. ``where`` places a file's name, ``known`` are the occupations, in lower case.

    Raises MissingFile or CorruptFile.
    """
    paths = [where(f"{side}_stereotyped_type{kind}.txt.{half}") for side in SIDES]
    pro, anti = (_numbered(path) for path in paths)
    if len(pro) != len(anti):
        raise CorruptFile(paths[1], f"{len(pro)} sentences long, as its other half", f"it has {len(anti)}", do=GET_IT)
    return [_pair((kind, half), paths, number, known) for number in zip(range(1, len(pro) + 1), pro, anti, strict=True)]


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise MissingFile(path, "WinoBias file", do=GET_IT)
    try:
        return path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise CorruptFile(path, "UTF-8 text", f"byte {error.start} is not", do=GET_IT) from None


def _numbered(path: Path) -> list[str]:
    """The sentences, without the numbers they begin with."""
    out = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        match = re.fullmatch(r"(\d+)\s+(\S.*)", line.strip())
        if not match:
            raise CorruptFile(path, "a number and a sentence a line", f"line {number} is not", do=GET_IT)
        out.append(match[2])
    if not out:
        raise CorruptFile(path, "a file of sentences", "it has none", do=GET_IT)
    return out


def _pair(where: tuple[int, str], paths: Sequence[Path], lines: tuple[int, str, str], known: Sequence[str]) -> Pair:
    number, *texts = lines
    read = [_side(path, number, text, known) for path, text in zip(paths, texts, strict=True)]
    (pro, right), (anti, second) = read
    named = [name for name in known if re.search(rf"\b{re.escape(name)}\b", pro.sentence.lower())]
    others = [name for name in named if name != right]
    reason = DIFFERENT if right != second else THREE if len(others) != 1 else ""
    return Pair(*where, number, pro, anti, right, others[0] if len(others) == 1 else "", reason)


def _side(path: Path, number: int, text: str, known: Sequence[str]) -> tuple[Side, str]:
    """The sentence, its first bracketed pronoun, and the occupation in brackets."""
    spans = [" ".join(span.lower().split()) for span in re.findall(r"\[([^\[\]]*)\]", text)]
    meant = [bare for span in spans if (bare := re.sub(r"^(the|a|an) ", "", span)) in known]
    pronouns = [span for span in spans if span in PRONOUNS]
    if len(meant) != 1 or not pronouns or text.count("[") != text.count("]"):
        found = f"line {number} has {len(meant)} and {len(pronouns)}"
        raise CorruptFile(path, "a known occupation and a pronoun in brackets a line", found, do=GET_IT)
    return Side(" ".join(re.sub(r"[\[\]]", "", text).split()), pronouns[0]), meant[0]
