"""What a report says of its models and of every denominator, from what an audit gathered: no model is needed for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evals import SUITES
from workbench.core.finding import Denominators, Finding, Plan, Verdict
from workbench.core.result import Result
from workbench.core.spec import digest_of
from workbench.lab.audit_findings import Described, Gathered, Origin, mended_name
from workbench.lab.audit_subject import AUDITED
from workbench.lab.mitigation.outcome import PART
from workbench.reports.parts import Coverage, Identity, TrainingData

REFUSED = "refused"
"""The word by which the reason of an unscored item says that the model's server would not answer it."""


def identities(plan: Plan, subjects: Sequence[Described]) -> tuple[Identity, ...]:
    """Each model as its digest, its config and its world tell; what the plan states ``about`` the audited one is laid over it.

    Raises UsageError for an ``about`` with other fields than an identity's.
    """
    return tuple(_identity(subject, plan.about if subject.part == AUDITED else {}) for subject in subjects)


def _identity(subject: Described, about: Mapping[str, Any]) -> Identity:
    world = subject.world
    known: dict[str, Any] = {
        "part": subject.part,
        "name": subject.ref,
        "family": subject.family,
        "architecture": _architecture(subject.config),
        "parameters": subject.parameters or None,
        "sha256": subject.model_digest,
        "lineage": _lineage(subject),
        "training_data": _training_data(subject.origin) if world is None else [_town(world)],
    }
    return Identity.parse(known | dict(about), what="the plan's 'about'")


def _lineage(subject: Described) -> list[str]:
    origin = subject.origin
    seed = origin.seed if subject.world is None else subject.world["seed"]
    said = [f"random weights, seed {seed}"] if seed is not None else []
    said += ["trained on the generated town"] if subject.world is not None else []
    return [*said, *([origin.words] if origin.words else [])]


def _architecture(config: Mapping[str, Any]) -> str:
    """Layers, width, heads and norm, as far as the config has them."""
    said = [*layers(config), *(f"{config['n_heads']} heads" for _ in range(bool(config.get("n_heads"))))]
    said += [f"width {config['d_model']}"] if config.get("d_model") else []
    norm = config.get("norm")
    placement = config.get("norm_placement")
    return ", ".join([*said, *([f"{norm} norm ({placement})"] if norm else [])])


def layers(config: Mapping[str, Any]) -> list[str]:
    """How many layers each stack has: ``4 layers``, or ``2 layers (encoder)`` and ``1 layer (decoder)``."""
    named = [(key.removeprefix("n_layers").strip("_"), config[key]) for key in sorted(config) if key.startswith("n_layers") and config[key]]
    named.sort(key=lambda one: one[0] == "decoder")  # what is read comes first, however the config was stored
    return [f"{count} layer{'s' if count > 1 else ''}{f' ({stack})' if stack else ''}" for stack, count in named]


def _training_data(origin: Origin) -> list[TrainingData]:
    """What a model that was trained here on something else than the town saw, as far as that is known."""
    if not origin.trained_on:
        return []
    dose = "" if origin.dose is None else f"dose {origin.dose:g}, "
    return [TrainingData(name=origin.trained_on, source=f"{dose}recipe {origin.recipe[:16]}")]


def _town(world: Mapping[str, Any]) -> TrainingData:
    """The generated town: its texts follow from its spec, whose digest is named."""
    source = f"generated, dose {world['dose']:g}, seed {world['seed']}, spec {digest_of(dict(world))[:16]}"
    return TrainingData(name="town", items=int(world["documents"]), source=source)


def coverage(plan: Plan, gathered: Gathered) -> tuple[Coverage, ...]:
    """Every denominator of each suite and instrument of the plan on each model that was asked it."""
    return tuple(_covered(plan, gathered))


def _covered(plan: Plan, gathered: Gathered) -> Iterator[Coverage]:
    for name in (*plan.suites, *plan.instruments):
        for part, results in gathered.results.items():
            ref = plan.model if part == AUDITED else mended_name(plan, part) if part.startswith(PART) else str(plan.reference)
            own = [f for f in gathered.findings if f.source == name and f.subject == ref]
            if name in SUITES and name in results:
                yield suite_coverage(name, part, results[name], own)
            elif name not in SUITES and any(label == name or label.startswith(f"{name}.") for label in results):
                yield _instrument(name, part, own)


def suite_coverage(name: str, part: str, result: Result, found: Sequence[Finding]) -> Coverage:
    """The suite's own count of what it asked; without one, that of its findings with most items."""
    stored = result.values.attrs.get("asked")
    counts = Denominators.parse(stored) if stored is not None else _largest(found)
    if counts is None:
        return Coverage(kind="suite", asked=name, model=part)
    refused = sum(n for reason, n in counts.unscored.items() if REFUSED in reason)
    below = bool(found) and all(finding.verdict is Verdict.NOT_APPLICABLE for finding in found)
    return Coverage(
        kind="suite", asked=name, model=part, run=counts.run, scored=0 if below else counts.scored,
        not_applicable=counts.scored if below else 0, refused=refused, excluded=counts.excluded,
        unscored={reason: n for reason, n in counts.unscored.items() if REFUSED not in reason},
    )  # fmt: skip


def _instrument(name: str, part: str, found: Sequence[Finding]) -> Coverage:
    counts = _largest(found)
    if counts is None:
        return Coverage(kind="instrument", asked=name, model=part)
    return Coverage(
        kind="instrument", asked=name, model=part, run=counts.run, scored=counts.scored, unscored=counts.unscored, excluded=counts.excluded
    )


def _largest(found: Sequence[Finding]) -> Denominators | None:
    counts = [finding.denominators for finding in found if finding.denominators is not None]
    return max(counts, key=lambda each: each.run, default=None)


def limits(gathered: Gathered) -> tuple[str, ...]:
    """What suites noted about how they were asked, each remark once."""
    notes = [
        f"{name} ({part}): {note}."
        for part, results in gathered.results.items()
        for name, r in results.items()
        if name in SUITES
        for note in r.notes
    ]
    return tuple(dict.fromkeys(note.replace("..", ".") for note in notes))
