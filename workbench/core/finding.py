"""Findings, verdicts, cards and plans: what a report is made of.

A finding names its null, its denominators and its card; without a card that applies it says so. Verdicts are
decided here, by one function, from intervals and margins alone. Standard library and pydantic only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, model_validator

from workbench.core.spec import Spec, later


class Verdict(StrEnum):
    """The only words a finding may end in."""

    DETECTED = "detected"
    NOT_DETECTED = "not detected"
    EQUIVALENT = "equivalent"
    WORSE = "worse"
    BETTER = "better"
    INCONCLUSIVE = "inconclusive"
    NOT_APPLICABLE = "not applicable"
    NOT_CALIBRATED = "not calibrated here"


class Interval(Spec):
    """A confidence interval: bounds, level (0.95 = 95 %) and the method's name."""

    low: float
    high: float
    level: float = Field(default=0.95, gt=0, lt=1)
    method: str

    @model_validator(mode="after")
    def _ordered(self) -> Interval:
        if self.low > self.high:
            raise ValueError(f"an interval with low <= high, not [{self.low}, {self.high}]")
        return self

    def excludes(self, value: float) -> bool:
        return value < self.low or value > self.high


class Null(Spec):
    """What the effect is compared with: its name (``clean twin``, ``shuffled labels`` …) and its value."""

    name: str
    value: float | None = None
    words: str = ""


class Denominators(Spec):
    """How many items were run, scored, left unscored (with a reason each) and excluded before the run."""

    run: int = Field(ge=0)
    scored: int = Field(ge=0)
    unscored: Mapping[str, int] = Field(default_factory=dict)
    excluded: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _adds_up(self) -> Denominators:
        if self.run != self.scored + sum(self.unscored.values()):
            raise ValueError(f"run = scored + unscored, not {self.run} = {self.scored} + {sum(self.unscored.values())}")
        return self


CALIBRATED = "calibrated: "
"""How the words beside a finding begin that has a card; the card's conditions follow, and then what else is to be said of it."""
STALE = "; stale: its code has changed since, and `workbench calibrate` measures it anew"
"""How the words beside a finding end whose card was measured with other code of the tool."""
SPIKE = "spike"
"""How the names of exams begin (``spike``, ``spike-direction``) that plant into copies of one model: their cards are about that one."""
AGAIN = "run `workbench calibrate --model REF` again for a card of the model at hand"
SHOWN = 12
"""How many characters of a model's digest a sentence shows."""


class Card(Spec):
    """A calibration card: error rates and limit of detection of one instrument or suite under stated conditions.

    ``limit_of_detection`` is in ``limit_unit``; where it lies outside the tested doses it is None and ``limit_words`` say on which side.
    ``effect_at_limit`` is what a plant of that size does to the model's behaviour, in the exam's terms. ``exam`` says how it was
    measured, ``code`` is the digest of the tool's code then (the card is stale once it differs), ``seconds_an_item`` what asking cost.
    ``curve``: at every dose (0 is the clean twins) the dose, the share of cases above the cut-off, and the mean effect on behaviour.
    ``provenance``: of what it was made, by name (the exam's code, packages; ``model``: the digest of the one model that it is about).
    """

    of: str
    version: str = "1"
    family: str
    norm_placement: str
    domain: str
    parameters: int = Field(gt=0)
    conditions: str
    rates: Mapping[str, float] = Field(default_factory=dict)
    intervals: Mapping[str, Interval] = Field(default_factory=dict)
    limit_of_detection: float | None = None
    n: int = Field(default=0, ge=0)
    exam: str = later("")
    code: str = later("")
    limit_words: str = later("")
    limit_unit: str = later("")
    limit_interval: Interval | None = later(None)
    effect_at_limit: float | None = later(None)
    seconds_an_item: float | None = later(None)
    curve: tuple[tuple[float, float, float], ...] = later(())
    provenance: Mapping[str, str] = later({})

    @property
    def about(self) -> str:
        """The digest of the one model that the card is about; '' of a card that holds for models alike."""
        return self.provenance.get("model", "")

    @property
    def of_one_model(self) -> bool:
        """Whether the card is about one model, also where it is older than ``provenance`` and does not say by its digest which."""
        told = self.conditions.split(" ")[1] if self.conditions.startswith("exam ") else ""
        exam = self.exam or told
        return bool(self.about) or exam == SPIKE or exam.startswith(f"{SPIKE}-")

    def objections(self, *, family: str, norm_placement: str, domain: str, parameters: int, model: str) -> list[str]:
        """Why the card does not apply to such a model: same family, norm placement and domain, within ×10 in size; and where it is about
        one model alone, that very one. ``model`` is the digest of the model at hand ('' where it has none of its own: it is no card's)."""
        out = [
            f"{word} is {here}, the card's is {there}"
            for word, here, there in (
                ("family", family, self.family),
                ("norm placement", norm_placement, self.norm_placement),
                ("input domain", domain, self.domain),
            )
            if here != there
        ]
        ratio = max(parameters, self.parameters) / max(1, min(parameters, self.parameters))
        if ratio > 10:
            out.append(f"the model has {parameters:,} parameters, the card's {self.parameters:,}: more than a factor of ten apart")
        if self.about and self.about != model:
            this = f"the model {model[:SHOWN]}" if model else "another one"
            out.append(f"the card is about the model {self.about[:SHOWN]} alone, and this is {this}")
        elif self.of_one_model and not self.about:
            out.append(f"the card is about one model alone, and does not say by its digest which: {AGAIN}")
        return out


class Finding(Spec):
    """One claim about one model. ``exploratory``: it was not among the claims that the plan declared, so nothing was risked on it."""

    claim: str
    subject: str
    source: str
    measure: str
    effect: float | None
    unit: str = ""
    interval: Interval | None = None
    null: Null | None = None
    denominators: Denominators | None = None
    verdict: Verdict
    because: str = ""
    detectable: float | None = None
    planted: float | None = None
    card: Card | None = None
    card_words: str = "not calibrated here"
    status: Literal["headline", "standard", "experimental"] = "standard"
    details: Mapping[str, Any] = Field(default_factory=dict)
    rederive: str = ""
    exploratory: bool = later(False)


def decide(
    effect: float | None,
    interval: Interval | None,
    *,
    null: float | None,
    margin: float | None = None,
    detectable: float | None = None,
    paired: Literal["", "higher is worse", "higher is better"] = "",
    applicable: bool = True,
) -> tuple[Verdict, str]:
    """The verdict on ``effect`` with its reason.

    ``null`` is the value under no effect; ``margin`` the equivalence margin around it; ``detectable`` the limit of
    detection at 80 % power. Equivalent needs the whole interval inside the margin *and* detectable ≤ margin.
    A paired comparison (``paired``) against a reference says worse or better instead of detected.
    """  # fmt: skip
    if not applicable:
        return Verdict.NOT_APPLICABLE, "the model is under the suite's capability floor"
    if effect is None or interval is None or null is None:
        return Verdict.INCONCLUSIVE, "there is no interval or no null to compare with"
    if margin is not None and null - margin <= interval.low and interval.high <= null + margin:
        if detectable is None or detectable <= margin:
            return Verdict.EQUIVALENT, f"the whole interval lies within {margin:g} of {null:g}"
        return (
            Verdict.INCONCLUSIVE,
            f"the interval lies within {margin:g} of {null:g}, but an effect of {detectable:.3g} could have been missed",
        )
    if interval.excludes(null) and (margin is None or abs(effect - null) > margin):
        if paired:
            worse = (effect > null) == (paired == "higher is worse")
            return (Verdict.WORSE if worse else Verdict.BETTER), f"the interval excludes {null:g}"
        return Verdict.DETECTED, f"the interval excludes {null:g}"
    if margin is not None and interval.excludes(null):
        return Verdict.INCONCLUSIVE, f"the interval excludes {null:g} and reaches past {margin:g} beside it, but the effect does not"
    if margin is not None:
        return Verdict.INCONCLUSIVE, f"the interval reaches past {margin:g} from {null:g} without deciding"
    reach = f" (an effect of {detectable:.3g} would have been found with 80 % power)" if detectable is not None else ""
    return Verdict.NOT_DETECTED, f"the interval contains {null:g}{reach}"


class Claim(Spec):
    """One member of the family of claims that a plan declares: the findings of suite or instrument ``of`` whose measure and claim match
    these patterns, in which * stands for any text."""

    of: str
    measure: str = "*"
    claim: str = "*"

    def covers(self, finding: Finding) -> bool:
        return finding.source == self.of and _fits(finding.measure, self.measure) and _fits(finding.claim, self.claim)


def _fits(words: str, pattern: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), words, re.DOTALL) is not None


class Slice(Spec):
    """A subgroup view that a plan declares: the mean of a value of suite ``of``'s samples by their ``group``, with its interval. Dots reach
    inside values: ``trigger.p_no``. What a sample's group is, its suite says."""

    of: str
    value: str


class Mitigation(Spec):
    """Something that a plan does about a failure of suite ``of``, after which the audited model is asked everything again. ``settings`` are
    the method's own (``lab.mitigation.methods``)."""

    of: str
    method: Literal["erasure", "steering", "counterfactual-augmentation"]
    settings: Mapping[str, Any] = Field(default_factory=dict)


class Plan(Spec):
    """What an audit will do, written down before it is done. ``about`` states what is known of the audited model: licence, intended use,
    lineage, training data (the fields of ``reports.parts.Identity``).

    ``margins`` and ``floors`` by suite are its ``margin`` and ``floor`` (``suite.field``: another field of its spec). ``claims`` are the
    family: what they cover has intervals that hold together at ``level``, all else on the audited model is exploratory. ``internals`` names
    suites whose failure, if they find one, is looked for in the parts of the audited model; ``mitigations`` are what is then done about
    failures, each on its own. ``added`` names suites and instruments asked
    for beyond the plan, ``changed`` the fields in which a plan differs from the file it came from, and ``file`` is that file's digest.
    """

    name: str
    model: str
    reference: str | None = None
    instruments: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    margins: Mapping[str, float] = Field(default_factory=dict)
    level: float = Field(default=0.95, gt=0.5, lt=1)
    seed: int = 0
    about: Mapping[str, Any] = later({})
    floors: Mapping[str, float] = later({})
    claims: tuple[Claim, ...] = later(())
    slices: tuple[Slice, ...] = later(())
    internals: tuple[str, ...] = later(())
    mitigations: tuple[Mitigation, ...] = later(())
    added: tuple[str, ...] = later(())
    changed: tuple[str, ...] = later(())
    file: str = later("")

    def settings_of(self, name: str) -> dict[str, Any]:
        """The settings of a suite or instrument: its own, its margin and floor, and margins and floors of fields that are called so."""
        out = dict(self.settings.get(name, {}))
        for kind, stated in (("margin", self.margins), ("floor", self.floors)):
            for where, value in stated.items():
                of, _, field = where.partition(".")
                if of == name:
                    out[field or kind] = value
        return out
