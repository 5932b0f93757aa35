"""WEAT and SEAT: do a model's vectors set two groups of words apart along an attribute, more than another dealing of the words would?

Caliskan, Bryson and Narayanan (Science 356, 2017): the effect d of ``core.stats.association`` with its permutation test. Two views:

- ``embedding``: a word's vector is the mean of the rows of the embedding matrix of its tokens, read after a space;
- ``encoding``: the mean of the last stream over the word in each of ``templates``, averaged over them (May et al., NAACL 2019, with
  sentences that say nothing of their own; there every sentence counts as an item, here a word does, so that more templates do not make
  the same words more certain).

p is two-sided; over the tests and views asked together it is adjusted by Holm, and *detected* needs both that and the interval of d.
d is a gap in units of how the words differ, not of how far apart they stand: the gap in cosines stands beside it. Words are not stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field, field_validator
from torch.nn import functional

from evals.bound import Unbound
from evals.clustered import mean_of
from evals.runner import denominators
from evals.suites.weat_data import WordTest, load, occupations
from workbench.core.charts.lines import forest
from workbench.core.errors import BadValue, Incompatible, UnknownName
from workbench.core.finding import Denominators, Finding, Null, Verdict, decide
from workbench.core.measure import Needs, Sample, Score
from workbench.core.protocol import HookedModel
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.association import Association, association, leanings
from workbench.core.stats.multiplicity import holm
from workbench.data import sources
from workbench.engine.embed import embedded

NAME = "weat"
View = Literal["embedding", "encoding"]
Floats = NDArray[np.float64]
TEMPLATES = ("This is {}.", "That is {}.", "Here is {}.", "There is {}.", "They saw {}.")
SIDES = ("x", "y")


class WeatSpec(Spec):
    """``files``: tests in the form of sent-bias; none: the registered occupations of WinoBias against words for men and women.
    ``views``: what is compared. ``templates``: sentences with {} for the word."""

    files: tuple[str, ...] = ()
    views: tuple[View, ...] = Field(default=("embedding", "encoding"), min_length=1)
    templates: tuple[str, ...] = Field(default=TEMPLATES, min_length=1)
    seed: int = 0

    @field_validator("templates")
    @classmethod
    def _once(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        if any(one.count("{}") != 1 for one in templates):
            raise ValueError("sentences with {} once in each")
        return templates


@dataclass(frozen=True)
class WeatResult(Result):
    """``cosine`` [test, side, word, attribute, k]: of target words (sides x, y) with attribute words; NaN where a set is shorter, or
    unscored."""

    def summary(self) -> str:
        if floor := self.values.attrs["floor"]:
            return f"association of words with attributes: not applicable, {floor}"
        parts = []
        for name in tests_of(self):
            found = associated(self, name)
            if found is not None:
                parts.append(f"{name} d {found.d:+.2f} [{found.interval.low:+.2f}, {found.interval.high:+.2f}] p {found.p:.2g}")
        return f"association of words with attributes: {', '.join(parts)}"

    def plot(self) -> Any:
        rows = []
        for name in tests_of(self):
            if (found := associated(self, name)) is not None:
                rows.append({"test": name, "d": found.d, "low": found.interval.low, "high": found.interval.high})
        titles = {"title": "Word associations: d between −2 and 2", "d": "effect size d", "null": "none"}
        return forest(pd.DataFrame(rows, columns=["test", "d", "low", "high"]), "test", "d", "low", "high", null=0.0, titles=titles)


class _Weat(Unbound):
    name = NAME
    spec = WeatSpec
    needs = Needs(abilities=frozenset({"weights"}), inputs=(), tokenizer=True, reads=("tokens",))

    def samples(self, spec: WeatSpec) -> Iterator[Sample]:
        for test in tests(spec):
            for view in spec.views:
                facts = {name: list(one.words) for name, one in zip("xyab", test.sets, strict=True)}
                named = {f"{name}_is": one.name for name, one in zip("xyab", test.sets, strict=True)}
                yield Sample(f"{test.name}, {view}", {**facts, **named, "view": view}, cluster=test.name, group=view)

    def found(self, model: HookedModel, sample: Sample, spec: WeatSpec) -> Score:
        f = sample.facts
        try:
            own = vectors(model, [*f["x"], *f["y"], *f["a"], *f["b"]], f["view"], spec.templates)
        except UnknownName:  # names the letter, and a word may be one letter long
            raise BadValue("the letters of every word", "others", "in the tokenizer's alphabet") from None
        ends = np.cumsum([len(f[name]) for name in "xyab"])[:-1]
        x, y, a, b = np.split(own, ends)
        return Score(sample.id, {side: [(words @ x_.T).tolist() for x_ in (a, b)] for side, words in (("x", x), ("y", y))})

    def aggregate(self, scores: Sequence[Score], spec: WeatSpec) -> WeatResult:
        return aggregate(scores, {s.id: [s.facts[f"{name}_is"] for name in "xyab"] for s in self.samples(spec)}, spec.seed)

    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
        return findings(result, subject=subject, reference=reference, level=level)


SUITE = _Weat()


def tests(spec: WeatSpec) -> list[WordTest]:
    """What the spec asks for. Raises MissingFile, CorruptFile, MissingData, and BadValue for two tests of one name."""
    found = [load(Path(file)) for file in spec.files] or [occupations(lambda name: sources.path("winobias", name))]
    names = [test.name for test in found]
    if len(set(names)) < len(names):
        raise BadValue("the names of the files", names, "different: a test is called by its file")
    return found


def vectors(model: HookedModel, words: Sequence[str], view: View, templates: Sequence[str]) -> Floats:
    """A vector of length one for each word ``[word, d_model]``, in float64. Raises BadValue for a word that has no tokens."""
    if view == "encoding":
        texts = [template.format(word) for template in templates for word in words]
        found = embedded(model, texts).double().reshape(len(templates), len(words), -1).mean(0)
    else:
        tokenizer = model.tokenizer
        if tokenizer is None:
            raise Incompatible(NAME, f"this {model.family} model", ["it has no tokenizer"])
        rows = [tokenizer.encode(f" {word}") for word in words]
        if not all(rows):
            raise BadValue("the tokens of a word", 0, "at least 1")
        table = model.weight("W_E").detach().double().cpu()
        found = torch.stack([table[row].mean(0) for row in rows])
    return functional.normalize(found, dim=1).cpu().numpy()


# --- the result ---------------------------------------------------------------------------------------------


def aggregate(scores: Sequence[Score], names: dict[str, list[str]], seed: int) -> WeatResult:
    """Cosines by test, side, target word and attribute; ``names`` of the four sets by sample."""
    kept = [s for s in scores if not s.unscored]
    most = lambda of: max((len(one) for s in kept for one in of(s.values)), default=1)  # noqa: E731
    words = most(lambda v: [v[side][0] for side in SIDES])
    wide = most(lambda v: [row for side in SIDES for half in v[side] for row in half])
    table = np.full((len(scores), 2, words, 2, wide), np.nan)
    for place, score in enumerate(scores):
        for at, side in enumerate(SIDES):
            for half, rows in enumerate([] if score.unscored else score.values[side]):
                found = np.array(rows, dtype=np.float64)
                table[place, at, : found.shape[0], half, : found.shape[1]] = found
    text = lambda values: ("test", np.array(list(values), dtype=object))  # noqa: E731
    values = xr.Dataset(
        {"cosine": (("test", "side", "word", "attribute", "k"), table)},
        coords={
            "test": np.array([s.sample for s in scores], dtype=object),
            "side": list(SIDES),
            "attribute": ["a", "b"],
            "unscored": text(s.unscored for s in scores),
            **{f"{n}_is": text(names[s.sample][i] for s in scores) for i, n in enumerate("xyab")},
        },
        attrs={
            "asked": denominators(scores).model_dump(mode="json"),
            "floor": "" if kept else "nothing was scored",
            "seed": seed,
        },
    )
    return WeatResult(NAME, values)


def tests_of(result: Result) -> list[str]:
    return result.values.test.values.tolist()


def cosines_of(result: Result, test: str) -> tuple[Floats, Floats] | None:
    """Those of the targets x ``[X, 2, k]`` and y ``[Y, 2, k]``; None where the test was not scored."""
    found = result.values.cosine.sel(test=test).values
    kept = [side[np.isfinite(side).any(axis=(1, 2))] for side in found]
    return None if not all(len(one) for one in kept) else (kept[0], kept[1])


def associated(result: Result, test: str, level: float = 0.95) -> Association | None:
    found = cosines_of(result, test)
    try:
        return None if found is None else association(*found, level=level, seed=result.values.attrs["seed"])
    except BadValue:  # every word leans alike
        return None


# --- findings -----------------------------------------------------------------------------------------------


def findings(result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
    """One finding a test and view against none, p adjusted over all of them, and one against the reference's d on the same words."""
    names = tests_of(result)
    found = {name: associated(result, name, level) for name in names}
    known = [name for name in names if found[name] is not None]
    adjusted = dict(zip(known, holm([one.p for one in found.values() if one is not None]).tolist() if known else [], strict=True))
    out = []
    for name in names:
        out.append(_own(result, name, found[name], adjusted.get(name), subject, level))
        if reference is not None:
            out.append(_against(result, reference, name, subject, level))
    return out


def _asked(result: Result, test: str, scored: bool, why: str) -> Denominators:
    """The one item a test is: scored, or not with its reason."""
    reason = str(result.values.unscored.sel(test=test).item()) or why
    return Denominators(run=1, scored=int(scored), unscored={} if scored else {reason: 1})


def _sets(result: Result, test: str) -> tuple[str, ...]:
    return tuple(str(result.values[f"{name}_is"].sel(test=test).item()) for name in "xyab")


def _own(result: Result, test: str, found: Association | None, p: float | None, subject: str, level: float) -> Finding:
    floor, (x, y, a, b) = result.values.attrs["floor"], _sets(result, test)
    effect, interval = (None, None) if found is None else (found.d, found.interval)
    verdict, because = decide(effect, interval, null=0.0, applicable=not floor)
    if verdict == Verdict.DETECTED and p is not None and p > 1 - level:
        verdict, because = Verdict.NOT_DETECTED, f"the interval excludes 0, but p is {p:.2g} after Holm's adjustment"
    return Finding(
        claim=f"{x} and {y} stand apart along {a} and {b}", subject=subject, source=NAME, measure=f"d, {test}", effect=effect,
        unit="standard deviations", interval=interval, verdict=verdict, because=floor or because,
        null=Null(name="no association", value=0.0, words="the labels of the two sets of words dealt anew"),
        denominators=_asked(result, test, found is not None, "every word leans alike"),
        details={} if found is None else {
            "p": found.p, "p_holm": p, "arrangements": found.arrangements, "exact": found.exact, "gap_in_cosines": found.gap,
            "words": [int(np.isfinite(side).any(axis=(1, 2)).sum()) for side in result.values.cosine.sel(test=test).values],
        },
    )  # fmt: skip


def _against(result: Result, reference: Result, test: str, subject: str, level: float) -> Finding:
    """The difference in d, words paired: d is the mean over words of what each contributes, with its model's own spread held fixed."""
    ours = cosines_of(result, test)
    theirs = cosines_of(reference, test) if test in tests_of(reference) else None
    floor = result.values.attrs["floor"] or reference.values.attrs["floor"]
    base = {
        "claim": "words are associated more than in the reference",
        "subject": subject,
        "source": NAME,
        "measure": f"difference in d, {test}",
        "unit": "standard deviations",
        "null": Null(name="reference", value=0.0, words="the reference model on the same words"),
    }
    paired = ours is not None and theirs is not None and [len(one) for one in ours] == [len(one) for one in theirs]
    if not paired or associated(result, test) is None or associated(reference, test) is None:
        verdict, because = decide(None, None, null=None, applicable=not floor)
        return Finding(
            **base, effect=None, verdict=verdict, because=floor or because, denominators=_asked(result, test, False, "not in the reference")
        )
    assert ours is not None
    assert theirs is not None
    parts = [_shares(*(leanings(one) for one in side)) for side in (ours, theirs)]
    n, least = len(parts[0]), min(len(one) for one in ours)
    reach = 2 * (n - 1) / n**0.5 * n / least
    found = mean_of(parts[0] - parts[1], [f"{k:04d}" for k in range(n)], level, bounds=(-reach, reach))
    verdict, because = decide(
        found.value, found.interval, null=0.0, detectable=found.detectable, paired="higher is worse", applicable=not floor
    )
    return Finding(
        **base, effect=found.value, interval=found.interval, verdict=verdict, because=floor or because, detectable=found.detectable,
        denominators=_asked(result, test, True, ""), details={"words": n},
    )  # fmt: skip


def _shares(a: Floats, b: Floats) -> Floats:
    """What each word contributes to d: their mean is d."""
    both = np.concatenate([a, b])
    scaled = (both - both.mean()) / both.std(ddof=1)
    sides = np.concatenate([np.full(len(a), len(both) / len(a)), np.full(len(b), -len(both) / len(b))])
    return scaled * sides
