"""What an audit asks with instruments, and the findings it draws from their results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes import INSTRUMENTS
from probes.attribution import Spans, first_hit
from workbench.core.finding import Denominators, Finding, Interval, Null, Verdict, decide
from workbench.core.measure import Instrument
from workbench.core.protocol import HookedModel, Progress
from workbench.core.result import Result
from workbench.core.stats.intervals import wilson
from workbench.core.stats.power import mde_proportion
from workbench.data.worlds.town import Town
from workbench.lab.inputs import LEAST_LEAN, SENTENCES, InputsSpec, make_inputs, occupation_spans, pronoun_items, usual_count
from workbench.lab.run import with_origin

ATTRIBUTION = "integrated-gradients"
BASELINES = ("zero", "unknown-token", "template-mean")
MOST_STEPS = 128
LEAST_EFFECT = 0.1
"""Log-odds of she against he. Below it, what is ranked is rounding and habit: on a clean twin some word always comes first, and the
same one in most sentences, so a rate above chance is no sign of a link."""


@dataclass(frozen=True)
class Question:
    """Who is asked, on which town, with which settings of the instrument."""

    model: HookedModel
    town: Town
    subject: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class About:
    """What findings say of the model that was asked: no model is needed to draw them. ``planted``: whether the link from occupation to
    pronoun is; ``spans``: the tokens of the occupation in each sentence, where attributions were asked for."""

    subject: str
    level: float
    planted: bool
    spans: Spans


def spans_of(model: HookedModel, town: Town) -> Spans:
    """The tokens of the occupation in each sentence that attributions are asked about."""
    return occupation_spans(model, pronoun_items(town, count=SENTENCES, least_lean=LEAST_LEAN))


def ask(name: str, q: Question, progress: Progress) -> dict[str, Result]:
    """Ask one instrument of the catalogue as an audit of the town asks it; the results by name (one for each baseline)."""
    instrument: Instrument = INSTRUMENTS.load(name)
    if name == ATTRIBUTION:
        return {
            f"{name}.{b}": _asked(instrument, q, {"baseline": b, "quantity": "logit-difference", "max_steps": MOST_STEPS}, progress)
            for b in BASELINES
        }
    return {name: _asked(instrument, q, {}, progress)}


def _asked(instrument: Instrument, q: Question, fixed: Mapping[str, Any], progress: Progress) -> Result:
    spec = instrument.spec.parse({**fixed, **q.settings}, what=instrument.name)
    given = InputsSpec.parse({"world": q.town.spec, "count": usual_count(instrument), "least_lean": LEAST_LEAN})
    return with_origin(instrument(q.model, make_inputs(instrument, q.model, given, spec), spec, progress=progress), model=q.subject)


def draw(name: str, results: Mapping[str, Result], about: About) -> list[Finding]:
    """The findings of an instrument's results; none for an instrument that describes and decides nothing."""
    if name == ATTRIBUTION:
        return [_first(results[f"{name}.{baseline}"], baseline, about) for baseline in BASELINES]
    if name == "probing":
        return _probing(name, results[name], about)
    return []


def _first(result: Any, baseline: str, about: About) -> Finding:
    hit = first_hit(result, about.spans)
    interval = wilson(hit.hits, hit.n, about.level)
    v = result.values
    gap, moved = v.gap.values, np.abs(v.value.values - v.baseline_value.values)
    open_gaps = int((~v.converged.values).sum())
    detectable = mde_proportion(hit.n, hit.chance, level=about.level)
    verdict, because = decide(hit.rate, interval, null=hit.chance, detectable=detectable)
    if float(np.median(moved)) < LEAST_EFFECT:
        verdict = Verdict.NOT_DETECTED
        because = f"the sentences hardly move the pronoun (median {np.median(moved):.2g} log-odds): a ranking of nothing finds nothing"
    elif interval.high < hit.chance:  # the claim is one-sided: coming first less often than by chance is not finding it
        verdict, because = Verdict.NOT_DETECTED, "the occupation comes first less often than a random order would put it there"
    return Finding(
        claim="the occupation moves the pronoun most", subject=about.subject, source=ATTRIBUTION,
        measure=f"share of sentences in which the occupation ranks first (baseline {baseline})", effect=hit.rate, unit="share",
        interval=interval, null=Null(name="chance", value=hit.chance, words="a random order of the tokens that can be ranked"),
        denominators=Denominators.parse({"run": hit.n, "scored": hit.n}), verdict=verdict, because=because,
        detectable=detectable if math.isfinite(detectable) else None,
        planted=1.0 if about.planted else None, status="headline",
        details={"baseline": baseline, "hits": hit.hits, "median_gap": float(np.median(gap)), "median_effect": float(np.median(moved)),
                 "median_steps": float(np.median(v.steps.values)), "gap_above_tolerance": open_gaps},
        rederive=f"workbench probe {ATTRIBUTION} --model {about.subject} --set baseline={baseline} --set max_steps={MOST_STEPS}",
    )  # fmt: skip


def _probing(name: str, result: Result, about: About) -> list[Finding]:
    """From which layer on can the class of a word be read, beyond what can be memorised of words?"""
    v: Any = result.values.isel(split=0).sel(labels="class")
    mine = v.sel(network="model")
    best = mine.isel(site=int(mine.selectivity.values.argmax()))
    site = str(best.site.item())
    gain = v.sel(site=site)
    counts = Denominators.parse({"run": int(best.n_test), "scored": int(best.n_test), "excluded": int(best.excluded)})
    others = {task: float(best.accuracy.sel(task=task)) for task in ("labels", "control", "shuffled-labels")}
    base = {"subject": about.subject, "source": name, "denominators": counts, "status": "headline",
            "rederive": f"workbench probe {name} --model {about.subject}"}  # fmt: skip
    return [
        _interval_finding(best, "selectivity", about.level, claim="word classes are linearly readable beyond memorised words",
                          measure=f"selectivity at {site} (accuracy − control task)", null=Null(name="control task", value=0.0,
                          words="one random label for each word type (Hewitt and Liang 2019)"), details={"site": site, **others}, **base),
        _interval_finding(gain, "gain", about.level, claim="word classes are better readable than in an untrained copy",
                          measure=f"accuracy at {site} − accuracy of an untrained network there", null=Null(name="untrained network",
                          value=0.0, words="the same config with fresh weights"), details={"site": site}, **base),
    ]  # fmt: skip


def _interval_finding(values: Any, name: str, level: float, **facts: Any) -> Finding:
    effect, low, high = (float(values[f"{name}{end}"]) for end in ("", "_low", "_high"))
    known = np.isfinite([low, high]).all()
    interval = Interval(low=low, high=high, level=level, method="cluster bootstrap over sentences") if known else None
    verdict, because = decide(effect, interval, null=0.0)
    return Finding(effect=effect, interval=interval, unit="accuracy", verdict=verdict, because=because, **facts)
