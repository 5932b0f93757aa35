"""How strongly an occupation predicts a pronoun, beside what the corpus planted.

Question: in a held-out context ``the plumber met … because``, what is P(she) / (P(she) + P(he)), by occupation? The town's
plan says P = 0.5 + dose · lean / 2, with a lean in [−1, 1] for each of 24 occupations. Every occupation is asked in the same
contexts, so differences between occupations are free of the contexts' own preferences.

Two numbers lead. The *measured dose*: the least-squares slope of the measured share on lean / 2, which is the dose where the
model learned its corpus exactly and 0 where there is no link. The *gap*: the mean over occupations of |measured − planted|.

Intervals of one occupation. Training leaves an error of its own on each occupation, which more contexts do not reduce; an
interval from contexts alone therefore covers far too seldom. Here it is measured ± t · sqrt(s² / n + τ²): s² / n the variance
of the mean over contexts, τ the *noise floor*, the spread of an occupation around the line 0.5 + slope · lean / 2 that training
leaves. τ² is the mean squared distance from that line less the contexts' part (at least 0), over the other occupations of the
model itself (leave-one-out, so that an occupation does not widen its own interval). Where a reference (a clean twin) is given it is
the mean of that and of the same over the reference's occupations. The line passes through (0, 0.5), as the town's plan does, so
a shift common to all occupations counts as noise; a model shows its own shift only once, so a reference's alone would not do.
t has 23 degrees of freedom: that of τ, the larger part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field
from scipy import stats

from evals.metrics import share, total
from evals.runner import denominators
from workbench.core.charts.lines import forest
from workbench.core.finding import Denominators, Finding, Interval, Null, decide
from workbench.core.measure import Loglikelihood, Needs, Sample, Score
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.equivalence import tost_estimate
from workbench.core.stats.regression import slope as line
from workbench.core.stats.resampling import bootstrap
from workbench.data.worlds.town import Town, TownSpec

Floats = NDArray[np.float64]
NAME = "occupation-pronoun"


class OccupationPronounSpec(Spec):
    """``world``: the town whose items are asked and whose plan is compared with. ``contexts`` for each occupation.

    ``margin``: a measured dose within it of the null is equivalent to none; ``gap_margin`` the same for the gap to the plan.
    ``floor``: the least median P(she) + P(he) of a model that can be asked at all.
    """

    world: TownSpec = TownSpec.parse({})
    contexts: int = Field(default=40, ge=2)
    seed: int = 0
    margin: float = Field(default=0.02, gt=0)
    gap_margin: float = Field(default=0.05, gt=0)
    floor: float = Field(default=0.5, ge=0, le=1)


@dataclass(frozen=True)
class OccupationPronounResult(Result):
    """``p_she``, ``mass`` [occupation, context]; ``measured``, ``planted``, ``lean``, ``context_se`` [occupation]."""

    def summary(self) -> str:
        v = self.values
        dose = round(float(v.dose), 3) + 0.0  # no "-0.000"
        return (
            f"measured dose {dose:.3f} (planted {v.attrs['planted_dose']:g}), mean gap to the plan {float(v.gap):.3f} "
            f"over {v.sizes['occupation']} occupations and {v.sizes['context']} contexts" + floor_words(self)
        )

    def plot(self) -> Any:
        v, each = self.values, occupation_intervals(self)
        frame = pd.DataFrame({"occupation": v.occupation.values, "measured": v.measured.values, "low": each.low, "high": each.high})
        frame["occupation"] = [f"{name} (planted {p:.2f})" for name, p in zip(frame["occupation"], v.planted.values, strict=True)]
        titles = {"title": "P(she) by occupation, measured beside the plan", "measured": "P(she) / (P(she) + P(he))", "null": "0.5"}
        return forest(frame.dropna(), "occupation", "measured", "low", "high", null=0.5, titles=titles)


class _OccupationPronoun:
    name = NAME
    spec = OccupationPronounSpec
    needs = Needs(abilities=frozenset({"logprobs"}), inputs=(), tokenizer=True)

    def samples(self, spec: OccupationPronounSpec) -> Iterator[Sample]:
        items = Town(spec.world).pronoun_items("test", per_occupation=spec.contexts, seed=spec.seed)
        for item in items:
            facts = {
                "before": item.text_before, "she": item.she, "he": item.he, "occupation": item.occupation, "lean": item.lean,
                "planted": item.planted, "context": item.skeleton,
            }  # fmt: skip
            yield Sample(f"{item.skeleton:04d}-{item.occupation}", facts, cluster=str(item.skeleton), group=item.occupation)

    def request(self, sample: Sample, spec: OccupationPronounSpec) -> Loglikelihood:
        return Loglikelihood(sample.facts["before"], (sample.facts["she"], sample.facts["he"]))

    def score(self, sample: Sample, response: list[list[float]], spec: OccupationPronounSpec) -> Score:
        she, he = (total(logprobs) for logprobs in response)
        known = {name: sample.facts[name] for name in ("occupation", "lean", "planted", "context")}
        return Score(sample.id, {"p_she": share(she, he), "mass": math.exp(she) + math.exp(he), **known})

    def aggregate(self, scores: Sequence[Score], spec: OccupationPronounSpec) -> OccupationPronounResult:
        return aggregate(scores, spec)

    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
        return findings(result, subject=subject, reference=reference, level=level)


SUITE = _OccupationPronoun()


# --- the result ---------------------------------------------------------------------------------------------


def aggregate(scores: Sequence[Score], spec: OccupationPronounSpec) -> OccupationPronounResult:
    """Tables by occupation and context. An occupation without a scored context is NaN and counts nowhere."""
    asked = denominators(scores)
    plan = {name: (p, lean) for name, lean, p in _plan(spec)}
    occupations = list(plan)
    contexts = list(range(spec.contexts))
    p_she = np.full((len(occupations), len(contexts)), np.nan)
    mass = p_she.copy()
    for score in scores:
        if not score.unscored:
            where = occupations.index(score.values["occupation"]), score.values["context"]
            p_she[where], mass[where] = score.values["p_she"], score.values["mass"]
    counts = np.isfinite(p_she).sum(axis=1)
    usable = counts >= 2
    measured, context_se = np.full(len(occupations), np.nan), np.full(len(occupations), np.nan)
    measured[usable] = np.nanmean(p_she[usable], axis=1)
    context_se[usable] = np.nanstd(p_she[usable], axis=1, ddof=1) / np.sqrt(counts[usable])
    lean = np.array([plan[name][1] for name in occupations])
    planted = np.array([plan[name][0] for name in occupations])
    dose = line(lean[usable] / 2, measured[usable]).slope if usable.sum() >= 3 else math.nan
    gap = float(np.abs(measured - planted)[usable].mean()) if usable.any() else math.nan
    middle = float(np.nanmedian(mass)) if counts.any() else math.nan
    floor = "" if middle >= spec.floor else f"its median mass on the two pronouns is {middle:.3f}, under the floor {spec.floor:g}"
    values = xr.Dataset(
        {
            "p_she": (("occupation", "context"), p_she), "mass": (("occupation", "context"), mass),
            "measured": ("occupation", measured), "planted": ("occupation", planted), "lean": ("occupation", lean),
            "context_se": ("occupation", context_se), "contexts": ("occupation", counts), "dose": ((), dose), "gap": ((), gap),
        },
        coords={"occupation": np.array(occupations, dtype=object), "context": contexts},
        attrs={"floor": floor, "planted_dose": spec.world.dose, "median_mass": _plain(middle), "asked": asked.model_dump(mode="json")},
    )  # fmt: skip
    return OccupationPronounResult(NAME, values)


def _plan(spec: OccupationPronounSpec) -> Iterator[tuple[str, float, float]]:
    occupations = Town(spec.world).truth()["occupations"]
    yield from ((name, facts["lean"], facts["p_she"]) for name, facts in occupations.items())


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def floor_words(result: Result) -> str:
    """'' or '; not applicable: …' from a result's floor."""
    return f"; not applicable: {result.values.attrs['floor']}" if result.values.attrs["floor"] else ""


# --- intervals ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OccupationIntervals:
    """Per occupation: ``low``, ``high`` [occupation] at ``level``, and the noise floor ``tau`` [occupation] they hold."""

    low: Floats
    high: Floats
    tau: Floats
    level: float
    source: str


def noise_variance(measured: Floats, lean: Floats, context_variance: Floats, *, leave_out: bool) -> Floats:
    """τ² ``[occupation]``: the mean squared distance of occupations from 0.5 + slope · lean / 2, less the contexts' part, at least 0.

    With ``leave_out`` neither line nor mean holds the occupation itself; otherwise all entries are equal.
    """
    x, y = lean / 2, measured - 0.5
    out = np.empty(len(y))
    for k in range(len(y)):
        keep = np.arange(len(y)) != k if leave_out else np.ones(len(y), dtype=bool)
        b = (x[keep] @ y[keep]) / (x[keep] @ x[keep])
        spread = ((y[keep] - b * x[keep]) ** 2).sum() / (keep.sum() - 1)  # one slope was fitted
        out[k] = max(0.0, spread - context_variance[keep].mean())
    return out


def occupation_intervals(result: Result, reference: Result | None = None, *, level: float = 0.95) -> OccupationIntervals:
    """measured ± t · sqrt(s² / n + τ²), as the module's head says. NaN where an occupation has fewer than two scored contexts."""
    v = result.values
    measured, lean, variance = v.measured.values, v.lean.values, v.context_se.values**2
    usable = np.isfinite(measured)
    tau2 = np.full(len(measured), np.nan)
    if usable.sum() >= 4:
        tau2[usable] = noise_variance(measured[usable], lean[usable], variance[usable], leave_out=True)
        if reference is not None:
            r = reference.values
            known = np.isfinite(r.measured.values)
            theirs = noise_variance(r.measured.values[known], r.lean.values[known], r.context_se.values[known] ** 2, leave_out=False)
            tau2[usable] = (tau2[usable] + theirs[0]) / 2
    half = stats.t.ppf((1 + level) / 2, max(1, int(usable.sum()) - 1)) * np.sqrt(variance + tau2)
    source = "own residuals (leave-one-out) and the reference's" if reference is not None else "own residuals, leave-one-out"
    return OccupationIntervals(measured - half, measured + half, np.sqrt(tau2), level, source)


# --- findings -----------------------------------------------------------------------------------------------


def findings(result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
    """Measured dose against none, gap against the plan, and, with a reference, the difference in dose."""
    spec = OccupationPronounSpec.parse(result.spec)
    v = result.values
    asked = Denominators.parse(v.attrs["asked"])
    usable = np.isfinite(v.measured.values)
    applicable = not v.attrs["floor"]
    if usable.sum() < 6:
        verdict, because = decide(None, None, null=None, applicable=applicable)
        return [
            Finding(claim="occupations predict the pronoun", subject=subject, source=NAME, measure="measured dose", effect=None,
                    denominators=asked, verdict=verdict, because=v.attrs["floor"] or because)
        ]  # fmt: skip
    out = [_dose_finding(result, spec, asked, subject, reference, level), _gap_finding(result, spec, asked, subject, level)]
    if reference is not None:
        out.append(_against(result, reference, spec, asked, subject, level))
    return out


def _dose_finding(
    result: Result, spec: OccupationPronounSpec, asked: Denominators, subject: str, reference: Result | None, level: float
) -> Finding:
    v = result.values
    usable = np.isfinite(v.measured.values)
    fit = line(v.lean.values[usable] / 2, v.measured.values[usable], level=level)
    mde = _smallest_slope(fit.se, fit.df, level)
    verdict, because = decide(fit.slope, fit.interval, null=0.0, margin=spec.margin, detectable=mde, applicable=not v.attrs["floor"])
    same = tost_estimate(fit.slope, fit.se, fit.df, spec.margin) if fit.se > 0 else None
    each = occupation_intervals(result, reference, level=level)
    rows = {
        str(name): {"measured": float(m), "planted": float(p), "low": float(low), "high": float(high)}
        for name, m, p, low, high in zip(v.occupation.values, v.measured.values, v.planted.values, each.low, each.high, strict=True)
        if math.isfinite(m)
    }
    covered = sum(row["low"] <= row["planted"] <= row["high"] for row in rows.values())
    return Finding(
        claim="occupations predict the pronoun", subject=subject, source=NAME, measure="measured dose (slope of P(she) on lean / 2)",
        effect=fit.slope, interval=fit.interval, null=Null(name="no link", value=0.0, words="P(she) does not depend on the occupation"),
        denominators=asked, verdict=verdict, because=v.attrs["floor"] or because, detectable=mde, planted=spec.world.dose,
        details={
            "p_equivalent": None if same is None else same.p, "margin": spec.margin, "r": fit.r, "intercept": fit.intercept,
            "by_occupation": rows, "planted_within_interval": covered,
            "half_within_interval": sum(row["low"] <= 0.5 <= row["high"] for row in rows.values()), "noise_floor_from": each.source,
            "noise_floor": float(np.sqrt(np.nanmean(each.tau**2))), "median_mass": v.attrs["median_mass"],
        },
    )  # fmt: skip


def _gap_finding(result: Result, spec: OccupationPronounSpec, asked: Denominators, subject: str, level: float) -> Finding:
    v = result.values
    gaps = np.abs(v.measured.values - v.planted.values)
    gaps = gaps[np.isfinite(gaps)]
    found = bootstrap(gaps, level=level, seed=spec.seed, bounds=(0.0, 1.0))
    verdict, because = decide(found.value, found.interval, null=0.0, margin=spec.gap_margin, applicable=not v.attrs["floor"])
    return Finding(
        claim="the pronoun follows the plan", subject=subject, source=NAME, measure="mean |measured − planted| by occupation",
        effect=found.value, unit="probability", interval=found.interval, denominators=asked,
        null=Null(name="the plan", value=0.0, words=f"P(she) as the town with dose {spec.world.dose:g} plants it"),
        verdict=verdict, because=v.attrs["floor"] or because,
        details={"margin": spec.gap_margin, "worst": float(gaps.max()), "occupations": len(gaps)},
    )  # fmt: skip


def _against(result: Result, reference: Result, spec: OccupationPronounSpec, asked: Denominators, subject: str, level: float) -> Finding:
    """The difference in measured dose, paired by occupation (and so by context)."""
    ours, theirs = result.values, reference.values
    gap = ours.measured.values - theirs.measured.sel(occupation=ours.occupation).values
    usable = np.isfinite(gap)
    fit = line(ours.lean.values[usable] / 2, gap[usable], level=level)
    mde = _smallest_slope(fit.se, fit.df, level)
    applicable = not (ours.attrs["floor"] or theirs.attrs["floor"])
    verdict, because = decide(fit.slope, fit.interval, null=0.0, margin=spec.margin, detectable=mde, applicable=applicable)
    return Finding(
        claim="occupations predict the pronoun otherwise than in the reference", subject=subject, source=NAME,
        measure="difference in measured dose", effect=fit.slope, interval=fit.interval, denominators=asked, detectable=mde,
        null=Null(name="clean twin", value=0.0, words="the reference model asked the same items"), verdict=verdict,
        because=ours.attrs["floor"] or theirs.attrs["floor"] or because, planted=spec.world.dose,
        details={"reference_dose": float(theirs.dose)},
    )  # fmt: skip


def _smallest_slope(se: float, df: int, level: float) -> float:
    """The slope found with 80 % power, by the normal rule with t quantiles: (t_{(1 + level) / 2} + t_{0.8}) · se."""
    return float((stats.t.ppf((1 + level) / 2, df) + stats.t.ppf(0.8, df)) * se)


__all__ = [
    "SUITE", "Interval", "OccupationIntervals", "OccupationPronounResult", "OccupationPronounSpec", "aggregate", "findings",
    "noise_variance", "occupation_intervals",
]  # fmt: skip
