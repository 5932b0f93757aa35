"""Posts whose toxic characters are marked (data set ``toxic-spans``), and a split of them in which no wording is on two sides.

Source: Pavlopoulos, Sorensen, Laugier and Androutsopoulos, SemEval-2021 Task 5: Toxic Spans Detection, SemEval 2021. Every post had been
judged toxic by most of its raters, so there is no harmless one among them: nothing measured here says how often a harmless text would be
marked. Where no character is marked, the annotators named none; the post is no less toxic for it.

No message quotes a post: its line says where it is.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from workbench.core.errors import CorruptFile
from workbench.data import sources
from workbench.data.counter import key_of

NAME = "toxic-spans"
FILES = {"train": "tsd_train.csv", "trial": "tsd_trial.csv"}
COLUMNS = ["spans", "text"]
SHARES = 10
"""One wording in so many of the train file is validation's."""
_WORD = re.compile(r"\w+(?:['’]\w+)*")
Span = tuple[int, int]


@dataclass(frozen=True)
class Post:
    """A post, and the offsets of its toxic characters, ascending; none where the annotators marked nothing."""

    text: str
    toxic: tuple[int, ...]


def words_of(text: str) -> list[Span]:
    """The characters ``(start, end)`` of each word: letters, digits and underscores, with apostrophes between them."""
    return [match.span() for match in _WORD.finditer(text)]


def wording(text: str) -> tuple[str, ...]:
    """The words of a text without case: what makes two posts the same."""
    return tuple(text[start:end].casefold() for start, end in words_of(text))


def runs(offsets: Sequence[int]) -> list[Span]:
    """Ascending offsets as half-open spans of neighbours."""
    starts = [at for i, at in enumerate(offsets) if not i or offsets[i - 1] + 1 != at]
    ends = [at + 1 for at, after in pairwise([*offsets, -1]) if at + 1 != after]
    return list(zip(starts, ends, strict=True))


def splits() -> dict[str, list[Post]]:
    """``train`` and ``validation`` (the train file) and ``test`` (the trial file, whole).

    The published test file is not registered here, so nothing measured on ``test`` compares with the published table. Posts of the train
    file whose wording is a test post's are left out; the others go to validation or train by a hash of their wording.
    Raises MissingData and CorruptFile.
    """
    test = posts("trial")
    return {**divided(posts("train"), test), "test": test}


def divided(known: Sequence[Post], test: Sequence[Post]) -> dict[str, list[Post]]:
    """``known`` as ``train`` and ``validation``, without what has a wording of ``test``."""
    held = {wording(post.text) for post in test}
    out: dict[str, list[Post]] = {"train": [], "validation": []}
    for post in known:
        words = wording(post.text)
        if words not in held:
            out["train" if key_of(NAME, *words) % SHARES else "validation"].append(post)
    return out


def posts(file: str) -> list[Post]:
    """The posts of the file ``train`` or ``trial``, in its order. Raises MissingData and CorruptFile."""
    return list(parsed(sources.read_text(NAME, FILES[file]), FILES[file]))


def parsed(text: str, name: str = NAME) -> Iterator[Post]:
    """The posts of a file with the columns ``spans`` and ``text``. Raises CorruptFile for one that ends within a field, another header, a
    row of other columns, spans that are no list of different integers, and an offset outside its text."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    found = 0
    try:
        header = next(rows, None)
        if header != COLUMNS:
            raise CorruptFile(name, f"a file with the columns {', '.join(COLUMNS)}", f"it has {len(header or [])} others")
        for row in rows:
            found += 1
            if len(row) != len(COLUMNS) or not row[1]:
                raise CorruptFile(name, "rows of spans and a text", f"row {found} has {len(row)} columns, or no text")
            yield Post(row[1], _offsets(row[0], len(row[1]), f"row {found}", name))
    except csv.Error as error:
        raise CorruptFile(name, "a whole file of comma-separated values", f"after row {found}: {error}") from None
    if not found:
        raise CorruptFile(name, "a file of posts", "it holds none")


def _offsets(field: str, length: int, where: str, name: str) -> tuple[int, ...]:
    try:
        given = json.loads(field)
    except (ValueError, RecursionError):  # a number of too many digits is a ValueError of no narrower kind
        given = None
    if not isinstance(given, list) or any(type(at) is not int for at in given):
        raise CorruptFile(name, "posts whose spans are a list of integers", f"those of {where} are not")
    if odd := [at for at in given if not 0 <= at < length]:
        raise CorruptFile(name, "posts whose spans lie in their text", f"{where} has {length} characters and marks number {odd[0]}")
    if len(set(given)) != len(given):
        raise CorruptFile(name, "posts whose spans name a character once", f"{where} names {len(given) - len(set(given))} again")
    return tuple(sorted(given))
