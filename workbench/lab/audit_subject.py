"""One model of an audit, asked everything the plan asks of it, in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from evals import SUITES
from evals.bound import bound
from evals.runner import run_suite
from probes import INSTRUMENTS
from workbench.core.errors import BadValue, Incompatible, MissingData, UnknownName, UsageError
from workbench.core.finding import Mitigation, Plan
from workbench.core.measure import Instrument, Suite
from workbench.core.protocol import HookedModel, Progress, silent
from workbench.core.result import Result
from workbench.data.worlds.town import Town, TownSpec
from workbench.lab.audit_measures import ask, question_of
from workbench.lab.failures import FAILURES, TEXTS, Asked, has_failed
from workbench.lab.internals import locate
from workbench.lab.internals_findings import PREFIX
from workbench.lab.mitigation.kept import as_weights
from workbench.lab.mitigation.methods import mitigated
from workbench.lab.mitigation.outcome import PART, outcome
from workbench.lab.mitigation.outcome import PREFIX as MENDING
from workbench.lab.refs import load, world_of
from workbench.lab.run import suite_specs, with_origin
from workbench.store.runs import Store
from workbench.training.checkpoint import write

AUDITED, REFERENCE = "audited", "reference"


@dataclass(frozen=True)
class Subject:
    """One of the models of an audit: its part, how it is referred to, the model, and the town it was trained on, if any."""

    part: str
    ref: str
    model: HookedModel
    world: Mapping[str, Any] | None

    @property
    def town(self) -> Town | None:
        return None if self.world is None else Town(TownSpec.parse(self.world))


def parts_of(plan: Plan) -> list[tuple[str, str]]:
    """(part, reference) of each model of the plan, the audited one first."""
    return [(AUDITED, plan.model), *([(REFERENCE, plan.reference)] if plan.reference else [])]


def subject_of(part: str, ref: str, store: Store, progress: Progress = silent) -> Subject:
    """The model behind ``ref``, trained now if it is an organism that was not trained yet."""
    return Subject(part, ref, load(ref, store=store, progress=progress), world_of(ref, store))


def ask_all(plan: Mapping[str, Any], run: str, part: str, home: str, progress: Progress = silent) -> dict[str, Any]:
    """Everything the plan asks of its model ``part``, into the store; what a run that was interrupted already has is not asked again.

    Returns ``left_out``: pairs of what and why. JSON values in and out, since this runs as a job.
    """
    wanted = Plan.parse(plan)
    with Store.open(home) as store:
        subject = subject_of(part, dict(parts_of(wanted))[part], store, progress)
        asker = _Asker(wanted, subject, store, run, progress)
        for number, name in enumerate((*wanted.suites, *wanted.instruments)):
            asker.ask(name, number)
        if part == AUDITED:
            for name in wanted.internals:
                asker.locate(name)
            for number, one in enumerate(wanted.mitigations, start=1):
                asker.mend(number, one)
    return {"left_out": asker.left_out}


class _Asker:
    """Asks one model one thing after the other and stores what comes back."""

    def __init__(self, plan: Plan, subject: Subject, store: Store, run: str, progress: Progress) -> None:
        self.plan, self.subject, self.store, self.run, self.progress = plan, subject, store, run, progress
        self.stored = store.result_digests(run)
        self.left_out: list[tuple[str, str]] = []

    def ask(self, name: str, number: int) -> None:
        """A suite or instrument by name, ``number`` in the plan's order."""
        suite = number < len(self.plan.suites)
        what: Any = SUITES.load(name) if suite else INSTRUMENTS.load(name)
        if reasons := what.needs.objections(self.subject.model):
            self._leave(name, "; ".join(reasons))
            return
        try:
            (self._suite if suite else self._instrument)(name, what)
        except MissingData as error:
            self._leave(name, str(error))

    def _leave(self, name: str, why: str) -> None:
        self.left_out.append((f"{name} on {self.subject.ref}", why))

    def _named(self, name: str, part: str = "") -> Progress:
        return lambda done, total, _="": self.progress(done, total, f"{name}, {part or self.subject.part}")

    def _suite(self, name: str, suite: Suite) -> None:
        self._asked(name, suite, self.subject.model, self.subject.part)

    def _asked(self, name: str, suite: Suite, model: HookedModel, part: str) -> None:
        """A suite asked of a model, which is this one or was made of it."""
        label = f"{name}.{part}"
        if label in self.stored:
            return
        spec = suite_specs({name: suite}, self.subject.ref, {name: self.plan.settings_of(name)}, self.store)[name]
        found = run_suite(bound(suite, model), model, spec, self.store.sink(self.run, label), progress=self._named(name, part))
        self._keep(label, found)

    def locate(self, name: str) -> None:
        """Where the failure that suite ``name`` found lives in this model, if it found one."""
        label, what = f"{PREFIX}{name}.{self.subject.part}", f"internals of {name}"
        if label in self.store.result_digests(self.run) or (asked := self._failed(name, what)) is None:
            return
        try:
            found = locate(self.subject.model, FAILURES[name](asked), progress=self._named(what))
        except (BadValue, Incompatible) as error:
            self._leave(what, str(error))
            return
        self._keep(label, with_origin(found, model=self.subject.ref))

    def mend(self, number: int, wanted: Mitigation) -> None:
        """This model mended as the plan says, asked every suite again, and what became of the failure; if there is one."""
        part, what = f"{PART}{number}", f"mitigation {number} ({wanted.method})"
        label = f"{MENDING}{wanted.of}.{part}"
        if label in self.store.result_digests(self.run) or (asked := self._failed(wanted.of, what)) is None:
            return
        try:
            failure = FAILURES[wanted.of](asked)
            made = mitigated(self.subject.model, asked.town, wanted, self._named(what))
            whole, why = as_weights(made, failure.batch)
            made = made if whole is None else whole
            found = outcome(self.subject.model, made, failure, wanted, kept="" if why else part, why=why)
        except (BadValue, Incompatible) as error:
            self._leave(what, str(error))
            return
        for name in self.plan.suites:
            if f"{name}.{self.subject.part}" in self.stored or f"{name}.{self.subject.part}" in self.store.result_digests(self.run):
                self._asked(name, SUITES.load(name), made, part)
        if not why:
            write(self.store.folder(self.run) / part, made, train_state={"mended": wanted.model_dump(mode="json"), "of": self.subject.ref})
        self._keep(label, found)

    def _failed(self, name: str, what: str) -> Asked | None:
        """What there is of the failure that suite ``name`` found; None, with the reason noted for ``what``, where it found none."""
        label = f"{name}.{self.subject.part}"
        if label not in self.store.result_digests(self.run):
            self._leave(what, "its suite was left out")
            return None
        result = self.store.result(self.run, label).result
        if not has_failed(SUITES.load(name), result, self.subject.ref, self.plan.level):
            self._leave(what, "its suite found no failure")
            return None
        return Asked(self.subject.model, result, self.subject.town, self._texts())

    def _texts(self) -> list[str]:
        """Ordinary texts: of the town the model was trained on, else those of the suite perplexity where the plan asks it."""
        if (town := self.subject.town) is not None:
            return town.texts("test")[:TEXTS]
        label = f"perplexity.{self.subject.part}"
        if label not in self.store.result_digests(self.run):
            return []
        suite, result = SUITES.load("perplexity"), self.store.result(self.run, label).result
        samples = suite.samples(suite.spec.parse(result.spec, what=f"stored spec of '{label}'"))
        return [str(sample.facts["text"]) for sample in islice(samples, TEXTS)]

    def _keep(self, label: str, result: Result) -> None:
        self.store.event(self.run, "asked", label=label, digest=self.store.put_result(self.run, label, result))

    def _instrument(self, name: str, instrument: Instrument) -> None:
        asked = question_of(self.subject.model, self.subject.ref, self.plan.settings_of(name), self.store)
        if asked is None:
            why = "what it was trained on is no generated town, no organism with a question of its own and no task with held-out rows"
            self._leave(name, f"{why}, so there is nothing known to ask about")
            return
        if any(label.startswith(name) and label.endswith(f".{self.subject.part}") for label in self.stored):
            return
        try:
            found = ask(name, asked, self._named(name))
        except UnknownName:  # a slip in the plan's settings is no property of the model
            raise
        except (UsageError, Incompatible) as error:
            self._leave(name, str(error))
            return
        if any(result.stopped_early for result in found.values()):
            raise KeyboardInterrupt  # half of it is not what the plan asks for: it is asked anew when the audit goes on
        for label, result in found.items():
            self._keep(f"{label}.{self.subject.part}", result)
