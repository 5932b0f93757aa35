"""From what an audit gathered to its findings, without any model: what the audit does, and what a sceptic does again.

``Described`` holds everything that findings and report need to know of a model. It is written beside the report, so that whoever has the
results can draw the findings anew and compare.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evals import SUITES
from workbench.calibration.cards import card_for, scope_of
from workbench.core.finding import Card, Finding, Plan, Verdict
from workbench.core.measure import Suite
from workbench.core.result import Result
from workbench.core.spec import Spec, canonical_json, digest_of, later
from workbench.lab.audit_measures import ATTRIBUTION, OCCUPATION, About, draw, spot_of
from workbench.lab.audit_subject import AUDITED, REFERENCE, Subject
from workbench.lab.compare import asked_the_same
from workbench.lab.internals import InternalsResult
from workbench.lab.internals_findings import PREFIX
from workbench.lab.internals_findings import findings as internals_findings
from workbench.lab.mitigation.outcome import PART, MitigationResult
from workbench.lab.mitigation.outcome import findings as mitigation_findings
from workbench.lab.plan import command_of
from workbench.lab.refs import domain_of, mended_of, organism_of, task_of
from workbench.lab.slices import Read, Sliced, sliced
from workbench.organisms import ORGANISMS
from workbench.organisms.organism import Spot
from workbench.reports.words import words_of
from workbench.store.runs import Store

OTHERS = ("reference", "clean twin")
"""What suites call the null of a finding that compares two models."""


USUAL, SUREST = 0.95, 0.9999
"""The level at which ``workbench eval`` draws intervals, and the highest that ``workbench compare`` takes."""


class Origin(Spec):
    """Where a model comes from that was trained here, but not on the town: the organism or task in words, its dose and seed, what it was
    trained on, and the digest of its recipe or of its task's data. Empty: not known."""

    words: str = ""
    dose: float | None = None
    seed: int | None = None
    trained_on: str = ""
    recipe: str = ""


class Described(Spec):
    """One model of an audit in words and numbers. ``config`` is its family's, ``world`` the spec of the town it was trained on, ``origin``
    what else is known of its making. ``spans``: the positions of the part that attributions are asked to find, in each item; ``words`` are
    those for the part, for what it moves, for the items and for what they are made of (empty: the town's)."""

    part: str
    ref: str
    family: str
    config: Mapping[str, Any]
    parameters: int
    model_digest: str
    domain: str
    world: Mapping[str, Any] | None = None
    spans: tuple[tuple[int, int], ...] = ()
    words: tuple[str, ...] = later(())
    origin: Origin = later(Origin())

    def profile(self) -> dict[str, Any]:
        """What decides whether a card applies."""
        placement = str(self.config.get("norm_placement", "unknown"))
        shape = {"family": self.family, "norm_placement": placement, "domain": self.domain, "parameters": max(1, self.parameters)}
        return {**shape, "model": self.model_digest}

    @property
    def planted(self) -> bool:
        """Whether the link that attributions are asked to find is planted in it."""
        return bool(self.origin.dose) if self.world is None else self.world["dose"] != 0

    @property
    def spot(self) -> Spot:
        return Spot(self.spans, *(self.words or OCCUPATION))


@dataclass
class Gathered:
    """What an audit has. ``results`` by part and name; ``left_out`` what was asked for and could not be had, with the reason."""

    results: dict[str, dict[str, Result]]
    findings: list[Finding]
    left_out: list[tuple[str, str]]
    slices: list[Sliced] = field(default_factory=list)


def described(subject: Subject, plan: Plan, store: Store) -> Described:
    """The model of ``subject`` as findings and report know it."""
    model, domain = subject.model, domain_of(subject.ref, store, subject.model.family)
    scope = scope_of(model, domain)
    spot = spot_of(model, subject.ref, store) if ATTRIBUTION in plan.instruments else None
    town = subject.world is not None
    config = model.config.model_dump(mode="json") if hasattr(model.config, "model_dump") else {}
    return Described(
        part=subject.part, ref=subject.ref, family=model.family, parameters=sum(p.numel() for p in getattr(model, "parameters", list)()),
        config={"norm_placement": scope["norm_placement"], **config}, model_digest=model.digest(), domain=domain, world=subject.world,
        spans=spot.spans if spot is not None else (), origin=origin_of(subject.ref, store, town=town),
        words=() if spot is None or town else (spot.part, spot.moves, spot.items, spot.parts),
    )  # fmt: skip


def origin_of(ref: str, store: Store, *, town: bool = False) -> Origin:
    """What a reference tells of its model's making: the mitigation of an audit, its organism, or the task of its recipe; of one that was
    trained on the ``town``, which is told elsewhere, the first alone."""
    if (mended := mended_of(ref, store)) is not None:
        words, task = f"mended from {mended.audited} by {mended.method} ({ref})", None if town else task_of(ref, store)
        return Origin(words=words) if task is None else Origin(words=words, trained_on=task["task"], recipe=digest_of(dict(task["data"])))
    if town:
        return Origin()
    if (own := organism_of(ref, store)) is not None:
        organism, made = own
        truth, seed = organism.truth(made), made.model_dump(mode="json").get("train", {}).get("seed")
        dose = truth.get("dose")
        return Origin(words=ORGANISMS[organism.name].words, dose=dose, seed=seed, trained_on=organism.domain, recipe=made.digest())
    if (task := task_of(ref, store)) is not None:
        return Origin(words=f"trained for task {task['task']}", trained_on=task["task"], recipe=digest_of(dict(task["data"])))
    return Origin()


def gathered(
    plan: Plan, subjects: Sequence[Described], stored: Mapping[str, Result], cards: Sequence[Card],
    left_out: Sequence[tuple[str, str]] = (), read: Read | None = None,
) -> Gathered:  # fmt: skip
    """Results by part and name, and the findings drawn from them, each beside its card: suites first, the audited model's beside its
    reference. ``stored`` are the results by ``name.part``; with ``read``, which gives the samples behind them, also the plan's slices."""
    mended = {f"{PART}{number}": one for number, one in enumerate(plan.mitigations, start=1)}
    out = Gathered({s.part: {} for s in subjects}, [], list(left_out))
    out.results |= {part: {} for part in mended if any(label.endswith(f".{part}") for label in stored)}
    for label in sorted(stored):
        name, _, part = label.rpartition(".")
        out.results[part][name] = stored[label]
    found = _family(plan, lambda level: _drawn(plan, subjects, out.results, level))
    profiles = {s.ref: s.profile() for s in subjects}
    # A mended model is of the same shape and size, and another model.
    profiles |= {mended_name(plan, part): {**subjects[0].profile(), "model": ""} for part in mended}
    for finding in found:
        card, words = card_for(finding.source, profiles[finding.subject], cards)
        out.findings.append(finding.model_copy(update={"card": card, "card_words": words}))
    out.slices = sliced(plan, stored, read) if read is not None else []
    return out


def _family(plan: Plan, drawn: Callable[[float], list[Finding]]) -> list[Finding]:
    """The findings of a plan: what its claims cover drawn at the level that makes the whole family hold at the plan's (Bonferroni), and the
    audited model's others marked exploratory. Without claims, and for the reference, every interval holds for itself."""
    found = drawn(plan.level)
    if not plan.claims and not plan.added:
        return found
    declared = [n for n, one in enumerate(found) if one.subject == plan.model and any(claim.covers(one) for claim in plan.claims)]
    strict = drawn(family_level(plan.level, len(declared))) if len(declared) > 1 else found
    by_name = {_name(one): one for one in strict}
    out: list[Finding] = []
    for number, one in enumerate(found):
        beyond = one.subject == plan.model and (one.source in plan.added or (bool(plan.claims) and number not in declared))
        out.append(by_name.get(_name(one), _unheld(one)) if number in declared else _exploratory(one) if beyond else one)
    return out


def _name(one: Finding) -> tuple[str, str, str, str]:
    return one.source, one.subject, one.measure, one.claim


def _unheld(one: Finding) -> Finding:
    """A declared finding that its suite does not draw at the family's level: too little was seen for bounds that sure."""
    words = "there is too little for an interval that holds together with the plan's other claims"
    return one.model_copy(update={"interval": None, "verdict": Verdict.INCONCLUSIVE, "because": words})


def _exploratory(one: Finding) -> Finding:
    return one.model_copy(update={"exploratory": True, "because": words_of()("finding.undeclared", because=one.because).lstrip()})


def family_level(level: float, claims: int) -> float:
    """The level of each of so many intervals that hold together at ``level``: 1 - (1 - level) / claims."""
    return 1 - (1 - level) / max(1, claims)


def _drawn(plan: Plan, subjects: Sequence[Described], results: Mapping[str, Mapping[str, Result]], level: float) -> list[Finding]:
    """All findings at ``level``: suites first, the audited model's beside its reference."""
    found: list[Finding] = []
    for name in plan.suites:
        for subject in subjects:
            if name in results[subject.part]:
                found += _suite_findings(name, subject, results, level, plan)
    for name in plan.instruments:
        for subject in subjects:
            own = {label: r for label, r in results[subject.part].items() if label == name or label.startswith(f"{name}.")}
            if own:
                found += draw(name, own, About(subject.ref, level, subject.planted, subject.spot))
    for subject in subjects:
        for name in plan.internals:
            located = results[subject.part].get(f"{PREFIX}{name}")
            if isinstance(located, InternalsResult):
                found += internals_findings(located, subject.ref, level)
    return found + _mended(plan, results, level)


def mended_name(plan: Plan, part: str) -> str:
    """What findings call the audited model after the mitigation of this part."""
    number = int(part.removeprefix(PART))
    return f"{plan.model} after {plan.mitigations[number - 1].method} ({part})"


def _mended(plan: Plan, results: Mapping[str, Mapping[str, Result]], level: float) -> list[Finding]:
    """What each mitigation did, and every suite again, paired with the audited model as it was."""
    found: list[Finding] = []
    for part in [part for part in results if part.startswith(PART)]:
        subject = mended_name(plan, part)
        for result in results[part].values():
            if isinstance(result, MitigationResult):
                found += mitigation_findings(result, subject, level)
        for name in [name for name in plan.suites if name in results[part]]:
            suite: Suite = SUITES.load(name)
            before = results[AUDITED].get(name)
            own = suite.findings(results[part][name], subject=subject, reference=before, level=level)
            found += [one.model_copy(update={"status": SUITES[name].status}) for one in own]
    return found


def _suite_findings(name: str, subject: Described, results: Mapping[str, Mapping[str, Result]], level: float, plan: Plan) -> list[Finding]:
    suite: Suite = SUITES.load(name)
    reference = results.get(REFERENCE, {}).get(name) if subject.part == AUDITED else None
    found = suite.findings(results[subject.part][name], subject=subject.ref, reference=reference, level=level)
    alone = paired = _asked_again(name, subject.ref, plan)
    if level != USUAL:
        alone = paired = f"{alone}  # draws its interval at {USUAL * 100:g} %, and this finding's is at {level * 100:.6g} %"
    if reference is not None and level <= SUREST and asked_the_same(reference, results[subject.part][name]):
        asked = " && ".join(_asked_again(name, ref, plan) for ref in (str(plan.reference), subject.ref))
        paired = f"{asked} && workbench compare FIRST_RUN SECOND_RUN --level {level:.10g}"
    elif reference is not None:
        paired = command_of(plan)  # each was asked about its own world, or no comparison is so sure
    again = [paired if one.null is not None and one.null.name in OTHERS else alone for one in found]
    return [
        one.model_copy(update={"status": SUITES[name].status, "rederive": one.rederive or command})
        for one, command in zip(found, again, strict=True)
    ]


def _asked_again(name: str, ref: str, plan: Plan) -> str:
    """The command that asks a model a suite as the plan does."""
    told = [word for field, value in sorted(plan.settings_of(name).items()) for word in ("--set", f"{field}={canonical_json(value)}")]
    return " ".join([f"workbench eval {name} --model {shlex.quote(ref)}", *map(shlex.quote, told)])
