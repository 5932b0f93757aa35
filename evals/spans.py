"""How well characters of a text were marked: the F1 of SemEval-2021 task 5 (Pavlopoulos et al. 2021, section 5), for words that are marked.

Of one text F1 = 2 |found ∩ gold| / (|found| + |gold|) over characters; where nothing is to be marked it is 1 for marking nothing and 0
otherwise. Of many texts it is the mean.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.core.errors import BadValue
from workbench.data.toxic_spans import Post, words_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
THRESHOLDS = tuple(n / 20 for n in range(1, 20))


def character_f1(found: Collection[int], gold: Collection[int]) -> float:
    """The F1 of one text, from the offsets marked and those to be marked."""
    marked, wanted = set(found), set(gold)
    return 2 * len(marked & wanted) / (len(marked) + len(wanted)) if wanted else float(not marked)


@dataclass(frozen=True)
class Marked:
    """Texts cut to words, flat: of each word its ``text``, and how many characters it has (``size``) and of these are toxic (``toxic``).

    ``between`` ``[word, 2]`` is the same of the blanks up to the next word, which are marked where both words are; (0, 0) where no word
    follows or something else stands between. ``gold`` ``[text]`` counts all toxic characters, ``lengths`` ``[text]`` all characters.
    """

    text: Ints
    size: Ints
    toxic: Ints
    between: Ints
    gold: Ints
    lengths: Ints

    @classmethod
    def of(cls, posts: Sequence[Post]) -> Marked:
        """The words of ``posts``."""
        rows: list[tuple[int, ...]] = []
        for number, post in enumerate(posts):
            upto = np.concatenate([[0], np.cumsum(np.isin(np.arange(len(post.text)), post.toxic))])
            spans = words_of(post.text)
            follows = [*(start for start, _ in spans[1:]), len(post.text)]
            for (start, end), after in zip(spans, follows, strict=False):  # without words, nothing is followed
                joined = end < len(post.text) and after < len(post.text) and not post.text[end:after].strip()
                blanks = (after - end, int(upto[after] - upto[end])) if joined else (0, 0)
                rows.append((number, end - start, int(upto[end] - upto[start]), *blanks))
        table = np.array(rows, dtype=np.int64).reshape(-1, 5)
        gold, lengths = (np.array(each, dtype=np.int64) for each in ([len(p.toxic) for p in posts], [len(p.text) for p in posts]))
        return cls(table[:, 0], table[:, 1], table[:, 2], table[:, 3:], gold, lengths)

    def majority(self) -> NDArray[np.bool_]:
        """Words of which more than half is toxic ``[word]``."""
        return 2 * self.toxic > self.size

    def f1(self, marked: NDArray[np.bool_]) -> Floats:
        """The F1 of each text ``[text]`` where the words ``marked`` ``[word]`` are. Raises BadValue for another number of words."""
        if marked.shape != self.size.shape:
            raise BadValue("the marks", marked.shape, f"one for each of {len(self.size)} words")
        both = marked & np.append(marked[1:], False)
        total = lambda each: np.bincount(self.text, each, minlength=len(self.gold))  # noqa: E731
        found = total(self.size * marked + self.between[:, 0] * both)
        hit = total(self.toxic * marked + self.between[:, 1] * both)
        return np.where(self.gold > 0, 2 * hit / np.maximum(found + self.gold, 1), found == 0)

    def everything(self) -> Floats:
        """The F1 of each text ``[text]`` where every character is marked."""
        return np.where(self.gold > 0, 2 * self.gold / np.maximum(self.lengths + self.gold, 1), self.lengths == 0)


def threshold(texts: Marked, scores: Floats) -> tuple[float, float]:
    """The threshold of ``scores`` ``[word]`` whose marks (scores at or above it) have the highest mean F1, of equal ones the lowest, and
    that mean."""
    means = [float(texts.f1(scores >= level).mean()) for level in THRESHOLDS]
    return THRESHOLDS[int(np.argmax(means))], max(means)
