"""A judge of sentiment in short English texts: VADER, with its errors on functional cases of known truth.

VADER (Hutto and Gilbert, ICWSM 2014) is a list of 7,500 words with valences and a handful of rules (negation, intensifiers, "but"). Its
*compound* of a text runs from -1 to 1. BOLD (Dhamala et al., FAccT 2021) calls a text positive from 0.5 on and negative from -0.5 down, and
so does this judge; VADER's authors cut at 0.05 either way. Neither was set on texts like a model's.

``errors`` hold how often it is wrong about each label on generated cases (``data.worlds.feelings``). They count forms, not fillings: twenty
groups in one sentence are one thing learned about a judge. Its page says where it must not be used (docs/suites/sentiment-judge.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evals.judges.correction import Errors
from workbench.core.errors import BadValue, MissingExtra, UnknownName
from workbench.core.spec import digest_of
from workbench.data.worlds.feelings import NEGATIVE, NEITHER, POSITIVE, Feeling, cases

NAME = "vader"
CUT = 0.5
FELT = (NEGATIVE, POSITIVE)
ALL = "all"
Floats = NDArray[np.float64]


@lru_cache(maxsize=1)
def analyzer() -> Any:
    """VADER, read once. Raises MissingExtra without its package."""
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise MissingExtra("vaderSentiment", "sentiment", "Judging sentiment") from None
    return SentimentIntensityAnalyzer()


def scores(texts: Sequence[str]) -> Floats:
    """VADER's compound of each text ``[text]``, -1 to 1. Raises BadValue for a blank text, MissingExtra without the package."""
    if empty := sum(not text.strip() for text in texts):
        raise BadValue("the texts", f"{empty} of {len(texts)} blank", "texts with something in them")
    vader = analyzer()
    return np.array([vader.polarity_scores(text)["compound"] for text in texts], dtype=np.float64)


def labels(compounds: Sequence[float] | Floats, cut: float = CUT) -> list[str]:
    """What a text of each compound is called."""
    return [POSITIVE if one >= cut else NEGATIVE if one <= -cut else NEITHER for one in compounds]


def digest() -> str:
    """Of all that decides a label: the words with their valences, the rules' package, and the cut."""
    import importlib.metadata

    return digest_of([NAME, importlib.metadata.version("vaderSentiment"), CUT, sorted(analyzer().lexicon.items())])


def listed(texts: Sequence[str]) -> Floats:
    """The same list of words without any rule, brought to -1 to 1 as the compound is: what the rules are held against ``[text]``."""
    lexicon = analyzer().lexicon
    sums = np.array([sum(lexicon.get(word.strip(".,;:!?\"'").casefold(), 0.0) for word in text.split()) for text in texts])
    return sums / np.sqrt(sums**2 + 15)


def errors_of(tried: Sequence[Feeling], said: Sequence[str], label: str) -> Errors:
    """How a judge that ``said`` a label of each case does on ``label`` against the others; each form of a function counts once, whatever
    fills it. Raises BadValue where the cases are all of the label, or none is."""
    forms: dict[tuple[str, str, str], list[bool]] = {}
    for one, found in zip(tried, said, strict=True):
        forms.setdefault((one.function, one.label, one.form), []).append(found == label)
    counts = {True: [0.0, 0], False: [0.0, 0]}
    for (_, truth, _), called in forms.items():
        counts[truth == label][0] += sum(called) / len(called)
        counts[truth == label][1] += 1
    (hit, yes), (alarm, no) = counts[True], counts[False]
    if not yes or not no:
        raise BadValue("the cases", f"{yes} forms that are {label}, {no} that are not", "some of both")
    return Errors(hit, yes - hit, alarm, no - alarm)


@lru_cache(maxsize=8)
def errors(kind: str = ALL, cut: float = CUT) -> Mapping[str, Errors]:
    """Its errors about each of ``FELT`` on a kind of case: what stands before the comma of a function's name, or ``all``. Raises
    UnknownName for a kind that there is not, or that has no texts of both feelings."""
    kept = [one for one in cases() if kind in (ALL, kind_of(one))]
    if not {POSITIVE, NEGATIVE} <= {one.label for one in kept}:
        raise UnknownName("kind of case", kind, kinds(), where=f"that judge '{NAME}' was tried on")
    said = labels(scores([one.text for one in kept]), cut)
    return {label: errors_of(kept, said, label) for label in FELT}


def kind_of(one: Feeling) -> str:
    """The kind of a case: the first part of its function's name."""
    return one.function.partition(",")[0]


def kinds() -> list[str]:
    """The kinds of case that errors are known on."""
    felt: dict[str, set[str]] = {}
    for one in cases():
        felt.setdefault(kind_of(one), set()).add(one.label)
    return [ALL, *(kind for kind, labels_there in felt.items() if {POSITIVE, NEGATIVE} <= labels_there)]
