"""What an audit asks with instruments, and the findings it draws from their results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes import INSTRUMENTS
from probes.attribution import first_hit
from workbench.core.finding import Denominators, Finding, Interval, Null, Verdict, decide
from workbench.core.measure import Instrument
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.intervals import wilson
from workbench.core.stats.power import mde_proportion
from workbench.data.worlds.town import Town, TownSpec
from workbench.lab.inputs import (
    LEAST_LEAN,
    SENTENCES,
    InputsSpec,
    default_inputs,
    make_inputs,
    occupation_spans,
    pronoun_items,
    usual_count,
)  # fmt: skip
from workbench.lab.refs import organism_of, task_of, world_of
from workbench.lab.run import with_origin
from workbench.organisms.organism import Organism, Spot
from workbench.store.runs import Store

ATTRIBUTION = "integrated-gradients"
BASELINES = ("zero", "unknown-token", "template-mean")
PLAIN = "zero"
"""The baseline of inputs that are no sentences on templates."""
OCCUPATION = ("the occupation", "the pronoun", "sentences", "tokens")
MOST_STEPS = 128
LEAST_EFFECT = 0.1
"""Log-odds of she against he, or nats of log-probability where an organism's question asks for those. Below it, what is ranked is rounding
and habit: on a clean twin some word always comes first, and the same one in most sentences, so a rate above chance is no sign of a link."""
UNITS = {"logit": "logits", "logprob": "nats of log-probability", "logit-difference": "log-odds"}
"""What is explained is measured in, by its quantity."""


Given = Callable[[Instrument, Mapping[str, Any]], tuple[Inputs, Spec]]
"""What an instrument is asked under these settings, and its spec."""


@dataclass(frozen=True)
class Question:
    """Who is asked, what of the model's own world is asked, from which baselines attributions start, and the instrument's settings."""

    model: HookedModel
    given: Given
    baselines: tuple[str, ...]
    subject: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class About:
    """What findings say of the model that was asked: no model is needed to draw them. ``planted``: whether the link from the part to what
    it moves is; ``spot``: where the part stands in each item, where attributions were asked for."""

    subject: str
    level: float
    planted: bool
    spot: Spot


def spot_of(model: HookedModel, ref: str, store: Store | None = None) -> Spot | None:
    """The part whose effect attributions are asked to find, and where it stands in each item; None where that is not known."""
    if (world := world_of(ref, store)) is not None:
        items = pronoun_items(Town(TownSpec.parse(world)), count=SENTENCES, least_lean=LEAST_LEAN)
        return Spot(occupation_spans(model, items), *OCCUPATION)
    own = organism_of(ref, store)
    return own[0].spot(own[1]) if own is not None and own[0].spot is not None else None


def question_of(model: HookedModel, ref: str, settings: Mapping[str, Any], store: Store | None = None) -> Question | None:
    """What is known of a model's own world, to ask instruments about: its town, what its organism asks, or held-out rows of its task.
    None where nothing is known."""
    if (world := world_of(ref, store)) is not None:
        return Question(model, _of_the_town(model, Town(TownSpec.parse(world))), BASELINES, ref, settings)
    own, task = organism_of(ref, store), task_of(ref, store)
    if own is not None and own[0].question is not None:
        return Question(model, _of_the_organism(model, *own), (PLAIN,), ref, settings)
    return Question(model, _of_the_task(model, ref, store), (PLAIN,), ref, settings) if task is not None else None


def _of_the_town(model: HookedModel, town: Town) -> Given:
    def given(tool: Instrument, settings: Mapping[str, Any]) -> tuple[Inputs, Spec]:
        fixed = {"quantity": "logit-difference"} if tool.name == ATTRIBUTION else {}
        spec = tool.spec.parse({**fixed, **settings}, what=tool.name)
        asked = InputsSpec.parse({"world": town.spec, "count": usual_count(tool), "least_lean": LEAST_LEAN})
        return make_inputs(tool, model, asked, spec), spec

    return given


def _of_the_organism(model: HookedModel, organism: Organism, made: Any) -> Given:
    def given(tool: Instrument, settings: Mapping[str, Any]) -> tuple[Inputs, Spec]:
        assert organism.question is not None, "question_of has looked"
        inputs, fields = organism.question(model, made, tool.spec.model_fields)
        return inputs, tool.spec.parse({**fields, **settings}, what=tool.name)

    return given


def _of_the_task(model: HookedModel, ref: str, store: Store | None) -> Given:
    def given(tool: Instrument, settings: Mapping[str, Any]) -> tuple[Inputs, Spec]:
        spec = tool.spec.parse(settings, what=tool.name)
        return make_inputs(tool, model, default_inputs(tool, ref, store), spec, store), spec

    return given


def ask(name: str, q: Question, progress: Progress) -> dict[str, Result]:
    """Ask one instrument of the catalogue as an audit asks it; the results by name (of attributions one for each baseline)."""
    instrument: Instrument = INSTRUMENTS.load(name)
    if name == ATTRIBUTION:
        return {f"{name}.{b}": _asked(instrument, q, {"baseline": b, "max_steps": MOST_STEPS}, progress) for b in q.baselines}
    return {name: _asked(instrument, q, {}, progress)}


def _asked(instrument: Instrument, q: Question, fixed: Mapping[str, Any], progress: Progress) -> Result:
    inputs, spec = q.given(instrument, {**fixed, **q.settings})
    return with_origin(instrument(q.model, inputs, spec, progress=progress), model=q.subject)


def draw(name: str, results: Mapping[str, Result], about: About) -> list[Finding]:
    """The findings of an instrument's results; none for an instrument that describes and decides nothing."""
    if name == ATTRIBUTION and about.spot.spans:
        return [_first(results[label], label.rpartition(".")[2], about) for label in in_order(results)]
    if name == "probing" and "class" in results[name].values.labels.values:
        return _probing(name, results[name], about)
    return []


def in_order(labels: Iterable[str]) -> list[str]:
    """Results of attributions from several baselines, in the order of ``BASELINES``."""
    return sorted(labels, key=lambda label: BASELINES.index(label.rpartition(".")[2]))


def _first(result: Any, baseline: str, about: About) -> Finding:
    spot = about.spot
    hit = first_hit(result, spot.spans)
    interval = wilson(hit.hits, hit.n, about.level)
    v = result.values
    gap, moved = v.gap.values, np.abs(v.value.values - v.baseline_value.values)
    open_gaps = int((~v.converged.values).sum())
    detectable = mde_proportion(hit.n, hit.chance, level=about.level)
    verdict, because = decide(hit.rate, interval, null=hit.chance, detectable=detectable)
    if float(np.median(moved)) < LEAST_EFFECT:
        verdict = Verdict.NOT_DETECTED
        size = f"median {np.median(moved):.2g} {UNITS[result.spec['quantity']]}"
        because = f"the {spot.items} hardly move {spot.moves} ({size}): a ranking of nothing finds nothing"
    elif interval.high < hit.chance:  # the claim is one-sided: coming first less often than by chance is not finding it
        verdict, because = Verdict.NOT_DETECTED, f"{spot.part} comes first less often than a random order would put it there"
    return Finding(
        claim=f"{spot.part} moves {spot.moves} most", subject=about.subject, source=ATTRIBUTION,
        measure=f"share of {spot.items} in which {spot.part} ranks first (baseline {baseline})", effect=hit.rate, unit="share",
        interval=interval, null=Null(name="chance", value=hit.chance, words=f"a random order of the {spot.parts} that can be ranked"),
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
