"""Where the judge of sentiment is wrong: by function, group and name, beside its list of words without rules and the commonest label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals.judges.sentiment import labels, listed, scores
from evals.judges.table import Rate
from workbench.core.errors import BadValue
from workbench.data.worlds.feelings import NEGATIVE, POSITIVE, Feeling

AUTHORS_CUT = 0.05
OPPOSITE = {POSITIVE: NEGATIVE, NEGATIVE: POSITIVE}


@dataclass(frozen=True)
class Row:
    """One slice: forms of which most fillings are called right, texts called right, and texts of a feeling called the opposite (None where
    no text of the slice has a feeling). Intervals are of forms: the fillings of one are no separate trials; the same words in two functions
    are two forms."""

    name: str
    forms: Rate
    texts: Rate
    opposite: Rate | None

    @classmethod
    def of(cls, name: str, tried: Sequence[Feeling], said: Sequence[str]) -> Row:
        """From cases and what each is called. Raises BadValue for no cases, or another number of labels."""
        if not tried or len(tried) != len(said):
            raise BadValue(f"the cases of '{name}'", (len(tried), len(said)), "at least one, and a label for each")
        right: dict[tuple[str, str, str], list[bool]] = {}
        for one, found in zip(tried, said, strict=True):
            right.setdefault((one.function, one.label, one.form), []).append(found == one.label)
        most = sum(2 * sum(each) > len(each) for each in right.values())
        felt = [(one, found) for one, found in zip(tried, said, strict=True) if one.label in OPPOSITE]
        turned = Rate(sum(found == OPPOSITE[one.label] for one, found in felt), len(felt)) if felt else None
        return cls(name, Rate(most, len(right)), Rate(sum(map(sum, right.values())), len(tried)), turned)

    def cells(self) -> tuple[str, ...]:
        """For a table: name, forms, forms right with interval, texts, share of texts right, share of felt ones called the opposite."""
        opposite = "" if self.opposite is None else f"{self.opposite.value:.2f}"
        return self.name, str(self.forms.n), str(self.forms), str(self.texts.n), f"{self.texts.value:.2f}", opposite


def contestants(tried: Sequence[Feeling]) -> dict[str, list[str]]:
    """What each contestant calls every case: the judge, at its authors' cut, its list of words without rules, and the commonest label."""
    texts = [one.text for one in tried]
    found = scores(texts)
    commonest = Counter(label for *_, label in {(one.function, one.form, one.label) for one in tried}).most_common(1)[0][0]
    return {
        "judge": labels(found), f"judge, cut at {AUTHORS_CUT:g}": labels(found, AUTHORS_CUT), "list of words": labels(listed(texts)),
        "commonest label": [commonest] * len(texts),
    }  # fmt: skip


def by_function(tried: Sequence[Feeling], said: Sequence[str]) -> list[Row]:
    """A row for each function and label, in the order they are first met."""
    return _rows([f"{one.function}: {one.label}" for one in tried], tried, said)


def by_group(tried: Sequence[Feeling], said: Sequence[str]) -> list[Row]:
    """A row for each group of people that cases name."""
    kept = [(one, found) for one, found in zip(tried, said, strict=True) if one.group]
    return _rows([one.group for one, _ in kept], [one for one, _ in kept], [found for _, found in kept])


def unlike(tried: Sequence[Feeling], said: Sequence[str]) -> Mapping[str, Rate]:
    """By function: its forms that are not called the same whatever fills them, among those with several fillings."""
    forms: dict[str, dict[str, list[str]]] = {}
    for one, found in zip(tried, said, strict=True):
        forms.setdefault(f"{one.function}: {one.label}", {}).setdefault(one.form, []).append(found)
    several = {name: [each for each in found.values() if len(each) > 1] for name, found in forms.items()}
    return {name: Rate(sum(len(set(each)) > 1 for each in found), len(found)) for name, found in several.items() if found}


def _rows(names: Sequence[str], tried: Sequence[Feeling], said: Sequence[str]) -> list[Row]:
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return [Row.of(name, [tried[i] for i in own], [said[i] for i in own]) for name, own in places.items()]
