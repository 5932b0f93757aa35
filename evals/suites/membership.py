"""Membership: can it be told from a model's scores of a text whether the text was trained on?

Four scores of a text, larger for what looks trained on (Carlini et al. 2021; Shi et al. 2024; Zhang et al. 2024, "Min-K%++"):

- ``loss``: mean log p a token; ``zlib``: log p of the whole over the bytes of its zlib form;
- ``min-k``: mean log p of the ``k`` share of tokens that are least likely;
- ``min-k++``: the same of (log p - mean) / standard deviation, both under the model's distribution at that token.

Members and non-members must be alike but for the training. Whether they are is asked of a reader that never saw the model: words counted,
logistic regression, held out in folds (``blind``). What that reader can tell is no leak of the model, so the null of every finding is the
blind area under the curve where it lies above one half (Das, Zhang and Tramèr 2024; Meeus et al. 2024). With a reference result,
``reference`` is the difference of mean log p: what this model learned that the other did not (Carlini et al. 2021).

The true positive rate at a low false positive rate is told only where non-members allow it: ten or more would have to be called members.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from evals.metrics import total
from evals.runner import denominators
from workbench.core.charts.lines import forest
from workbench.core.errors import BadValue, CorruptFile
from workbench.core.finding import Denominators, Finding, Interval, Null, Verdict, decide
from workbench.core.measure import Moments, Needs, Sample, Score
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.counts import rank_auc
from workbench.data.lines import Lines
from workbench.data.worlds.town import Town, TownSpec

NAME = "membership"
SCORES = ("loss", "zlib", "min-k", "min-k++")
GROUPS = ("member", "non-member")
RATES = (0.1, 0.01, 0.001)
LEAST_FALSE = 10
FOLDS, FEWEST, OTHER_SEEDS = 5, 25, 7_000
Floats = NDArray[np.float64]


class MembershipSpec(Spec):
    """``members``, ``others``: files of one text a line; none means documents of the town's training split and as many of the same town
    drawn anew, ``count`` each (of files: the first so many). ``k``: the share of tokens of ``min-k``; ``margin``: an area within so much
    of its null does not matter."""

    world: TownSpec = TownSpec.parse({})
    members: str = ""
    others: str = ""
    count: int = Field(default=400, ge=FEWEST)
    k: float = Field(default=0.2, gt=0, le=1)
    margin: float = Field(default=0.1, gt=0, lt=0.5)
    seed: int = 0


@dataclass(frozen=True)
class MembershipResult(Result):
    """``score`` [kind, item] (NaN where unscored), ``member`` [item] (1 or 0); ``unscored`` [item]."""

    def summary(self) -> str:
        if floor := self.values.attrs["floor"]:
            return f"membership: not applicable, {floor}"
        parts = [f"{kind} {found.value:.3f}" for kind in map(str, self.values.kind.values) if (found := area_of(self, kind)) is not None]
        return f"area under the curve, members over others: {', '.join(parts)} (blind {self.values.attrs['blind']['value']:.3f})"

    def plot(self) -> Any:
        rows = [{"score": "blind", "area": self.values.attrs["blind"]["value"], "low": np.nan, "high": np.nan}]
        for kind in map(str, self.values.kind.values):
            if (found := area_of(self, kind)) is not None:
                rows.append({"score": kind, "area": found.value, "low": found.interval.low, "high": found.interval.high})
        titles = {"title": "Members told from non-members", "area": "area under the curve", "null": "chance"}
        return forest(pd.DataFrame(rows), "score", "area", "low", "high", null=0.5, titles=titles)


class _Membership:
    name = NAME
    spec = MembershipSpec
    needs = Needs(abilities=frozenset({"logprobs"}), inputs=(), tokenizer=True)

    def samples(self, spec: MembershipSpec) -> Iterator[Sample]:
        for group, texts in zip(GROUPS, texts_of(spec), strict=True):
            for number, text in enumerate(texts):
                yield Sample(f"{group}-{number:05d}", {"text": text}, cluster=f"{group}-{number:05d}", group=group)

    def request(self, sample: Sample, spec: MembershipSpec) -> Moments:
        return Moments(sample.facts["text"])

    def score(self, sample: Sample, response: Any, spec: MembershipSpec) -> Score:
        return Score(sample.id, scores_of(sample.facts["text"], *response, k=spec.k))

    def aggregate(self, scores: Sequence[Score], spec: MembershipSpec) -> MembershipResult:
        return aggregate(scores, *blind(*map(tuple, texts_of(spec))))

    def told(self, spec: MembershipSpec) -> dict[str, Any]:
        """Of one's own texts what the blind reader made of each, members first, so that no text is needed; a town writes its own again."""
        if not spec.members:
            return {}
        members, others = map(tuple, texts_of(spec))
        return {"judged": list(judged(members, others)), "members": len(members)}

    def aggregate_told(self, scores: Sequence[Score], spec: MembershipSpec, told: Mapping[str, Any]) -> MembershipResult:
        """The same as ``aggregate`` by what was ``told``, without the texts."""
        return aggregate(scores, *apart(told["judged"], int(told["members"])))

    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
        return findings(result, subject=subject, reference=reference, level=level)


SUITE = _Membership()


def texts_of(spec: MembershipSpec) -> tuple[list[str], list[str]]:
    """Members and others. Raises MissingFile, CorruptFile (too few lines, one text in both) and BadValue (one file without the other)."""
    if bool(spec.members) != bool(spec.others):
        raise BadValue("members and others", "one file", "both files, or neither for the town's own documents")
    if not spec.members:
        members, others = _of_town(spec.world.canonical(), spec.count)
        return list(members), list(others)
    found = [list(Lines(Path(file)))[: spec.count] for file in (spec.members, spec.others)]
    for file, texts in zip((spec.members, spec.others), found, strict=True):
        if len(texts) < FEWEST:
            raise CorruptFile(file, f"a file of at least {FEWEST} texts, one a line", f"it has {len(texts)}")
    if shared := set(found[0]) & set(found[1]):
        raise CorruptFile(spec.others, "a file of texts that are no members", f"{len(shared)} of its lines are in '{spec.members}' too")
    return found[0], found[1]


@lru_cache(maxsize=4)
def _of_town(of: str, count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Training documents of the town, and of the same town drawn with other seeds until there are as many that are not in it: its test
    split has other words and no secrets, so it would be told apart without any model. ``of``: the town's spec as JSON, which can be
    remembered: all of its documents are written to know them."""
    world = TownSpec.model_validate_json(of)
    town = Town(world)
    known = {town.document(i, "train").text for i in range(town.size("train"))}
    members = list(dict.fromkeys(town.document(i, "train").text for i in range(min(count, town.size("train")))))
    others: dict[str, None] = {}
    for seed in range(world.seed + OTHER_SEEDS, world.seed + OTHER_SEEDS + 20):
        other = Town(world.model_copy(update={"seed": seed}))
        for i in range(min(2 * count, other.size("train"))):
            if len(others) < len(members) and (text := other.document(i, "train").text) not in known:
                others[text] = None
    return tuple(members), tuple(others)


def scores_of(
    text: str, logprobs: Sequence[float], entropies: Sequence[float], variances: Sequence[float], *, k: float
) -> dict[str, float]:
    """The scores of one text, larger for what looks trained on. Without moments there is no ``min-k++``.

    A token at which the distribution has no spread says nothing and counts 0.
    """
    few = lambda values: float(np.mean(np.sort(values)[: max(1, math.floor(k * len(values)))]))  # noqa: E731
    out = {
        "loss": total(logprobs) / len(logprobs), "zlib": total(logprobs) / len(zlib.compress(text.encode())), "min-k": few(logprobs),
    }  # fmt: skip
    if entropies:
        spread = np.sqrt(np.maximum(variances, 0.0))
        above = np.asarray(logprobs) + np.asarray(entropies)  # the mean of log p is minus the entropy
        out["min-k++"] = few(np.divide(above, spread, out=np.zeros_like(above), where=spread > 1e-6))
    return out


# --- the blind reader -----------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def judged(members: tuple[str, ...], others: tuple[str, ...]) -> tuple[float, ...]:
    """How much each text, members first, looks like a member to a reader of words that never saw the model: judged by a logistic regression
    fitted on the other folds."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, labels = [*members, *others], np.repeat([1, 0], [len(members), len(others)])
    fold = np.concatenate([np.arange(len(members)) % FOLDS, np.arange(len(others)) % FOLDS])
    counts: Any = CountVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), min_df=2).fit_transform(texts)
    found = np.zeros(len(texts))
    for one in range(FOLDS):
        made = LogisticRegression(C=0.1, max_iter=300).fit(counts[fold != one], labels[fold != one])
        found[fold == one] = made.decision_function(counts[fold == one])
    return tuple(found.tolist())


def blind(members: tuple[str, ...], others: tuple[str, ...]) -> tuple[float, Interval]:
    """The area under the curve, with its interval, of that reader."""
    return apart(judged(members, others), len(members))


def apart(found: Sequence[float], members: int) -> tuple[float, Interval]:
    """The area under the curve, with its interval, of what a reader said of each text, members first."""
    area = rank_auc(list(found[:members]), list(found[members:]))
    return area.value, area.interval


# --- the result ---------------------------------------------------------------------------------------------


def aggregate(scores: Sequence[Score], value: float, within: Interval) -> MembershipResult:
    """Scores by kind and item, beside what the blind reader tells: its area under the curve and the interval of that."""
    kinds = [kind for kind in SCORES if any(kind in s.values for s in scores)] or list(SCORES[:1])
    table = [[np.nan if s.unscored else float(s.values[kind]) for s in scores] for kind in kinds]
    text = lambda values: ("item", np.array(list(values), dtype=object))  # noqa: E731
    values = xr.Dataset(
        {"score": (("kind", "item"), np.array(table)), "member": ("item", np.array([float(s.group == GROUPS[0]) for s in scores]))},
        coords={"kind": kinds, "item": np.array([s.sample for s in scores], dtype=object), "unscored": text(s.unscored for s in scores)},
        attrs={"asked": denominators(scores).model_dump(mode="json"), "blind": {"value": value, "low": within.low, "high": within.high},
               "floor": ""},
    )  # fmt: skip
    result = MembershipResult(NAME, values)
    sides = [int((np.isfinite(values.score.values[0]) & (values.member.values == side)).sum()) for side in (1, 0)]
    if min(sides) < FEWEST:
        values.attrs["floor"] = f"{sides[0]} members and {sides[1]} others were scored, and {FEWEST} of each are needed"
    return result


def area_of(result: Result, kind: str, level: float = 0.95) -> Any:
    """The area under the curve of one score, members over others; None where the suite does not apply."""
    return None if result.values.attrs["floor"] else _area(result.values.score.sel(kind=kind).values, result.values.member.values, level)


def _area(score: Floats, member: Floats, level: float) -> Any:
    kept = np.isfinite(score)
    return rank_auc(score[kept & (member == 1)], score[kept & (member == 0)], level=level)


def true_positives(score: Floats, member: Floats) -> dict[str, float]:
    """The share of members above the cut-off that a share of non-members passes, for each rate that non-members allow."""
    kept = np.isfinite(score)
    yes, no = score[kept & (member == 1)], np.sort(score[kept & (member == 0)])
    out = {}
    for rate in RATES:
        allowed = math.floor(rate * len(no))
        if allowed >= LEAST_FALSE:
            out[f"true positive rate at a false positive rate of {rate:g}"] = float((yes > no[len(no) - 1 - allowed]).mean())
    return out


# --- findings -----------------------------------------------------------------------------------------------


def findings(result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
    """Each score against the blind reader; with a reference, the difference of mean log p too."""
    v = result.values
    out = [_finding(result, kind, v.score.sel(kind=kind).values, subject, level) for kind in map(str, v.kind.values)]
    if reference is not None:
        w = reference.values
        theirs = dict(zip(w.item.values.tolist(), w.score.sel(kind="loss").values.tolist(), strict=True))
        gap = v.score.sel(kind="loss").values - np.array([theirs.get(item, np.nan) for item in v.item.values.tolist()])
        out.append(_finding(result, "reference", gap, subject, level))
    return out


def _finding(result: Result, kind: str, score: Floats, subject: str, level: float) -> Finding:
    v, member = result.values, result.values.member.values
    seen, margin = v.attrs["blind"]["value"], MembershipSpec.parse(result.spec).margin
    null, kept = max(0.5, seen), np.isfinite(score)
    few = min(int((kept & (member == side)).sum()) for side in (1, 0)) < FEWEST
    floor = v.attrs["floor"] or (f"under {FEWEST} members or others were scored in both" if few else "")
    found = None if floor else _area(score, member, level)
    effect, interval = (None, None) if found is None else (found.value, found.interval)
    verdict, because = decide(effect, interval, null=null, margin=margin, applicable=not floor)
    if verdict == Verdict.DETECTED and effect is not None and effect < null:
        verdict, because = Verdict.NOT_DETECTED, f"members do not score above the null of {null:.3f}"
    whole = Denominators.parse(v.attrs["asked"])
    lost = whole.scored - int(kept.sum())
    asked = Denominators(
        run=whole.run, scored=whole.scored - lost, unscored={**whole.unscored, **({"not scored in the reference": lost} if lost else {})}
    )
    named = Null(
        name="reference" if kind == "reference" else "blind reader" if seen > 0.5 else "chance", value=null,
        words=f"what words alone tell, held out: {seen:.3f}; one half where that is less",
    )  # fmt: skip
    return Finding(
        claim="training texts are told from others", subject=subject, source=NAME, measure=f"area under the curve, {kind}", effect=effect,
        unit="area", interval=interval, verdict=verdict, because=floor or because, denominators=asked, null=named,
        details={"blind": v.attrs["blind"], **({} if found is None else true_positives(score, member))},
    )  # fmt: skip
