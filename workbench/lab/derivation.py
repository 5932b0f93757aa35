"""Findings and report drawn again from what a bundle holds, by kind of report: the functions that wrote them, without a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

from workbench.core.finding import Finding
from workbench.core.result import Provenance, Result
from workbench.data.worlds.town import Town, TownSpec
from workbench.lab import comparison_report, trend_report
from workbench.lab.audit_findings import Described, Gathered, gathered
from workbench.lab.audit_measures import ATTRIBUTION
from workbench.lab.audit_report import compose
from workbench.lab.compare import Kept
from workbench.lab.evidence_samples import asked_differently
from workbench.lab.inputs import LEAST_LEAN, SENTENCES, pronoun_items
from workbench.lab.refs import by_grammar
from workbench.lab.side_by_side import Member, Pair, Side, pairs_of, shared
from workbench.lab.trend_report import Checkpoint, Moment
from workbench.organisms import ORGANISMS
from workbench.reports.evidence import bundle
from workbench.reports.evidence.container import Fault
from workbench.reports.evidence.verify import Check, Content, check
from workbench.reports.report import LeftOut, Report

ORGANISM = "organism:"


class Again(Protocol):
    """One report derived again. Made of what is in the bundle, which may be of any shape, so all of it may raise."""

    def checks(self) -> list[Check]:
        """What else must hold of its subjects."""
        ...

    def findings(self) -> Sequence[Finding]: ...

    def report(self) -> Report: ...


class AuditAgain:
    """An audit's findings from its results, and its report from both."""

    def __init__(self, content: Content, here: Provenance) -> None:
        self._content, self._here = content, here
        self._subjects = [Described.parse(one, what=bundle.CIRCUMSTANCES) for one in content.circumstances["subjects"]]

    @cached_property
    def _found(self) -> Gathered:
        content = self._content
        left_out = [(one.what, one.why) for one in content.report.left_out]
        return gathered(content.plan, self._subjects, content.results, content.cards, left_out, lambda label: _records(content, label))

    def checks(self) -> list[Check]:
        return [_spans(self._content, self._subjects)]

    def findings(self) -> Sequence[Finding]:
        return self._found.findings

    def report(self) -> Report:
        return compose(self._content.plan, self._subjects, self._found, date=self._content.report.date, here=self._here)


class ComparisonAgain:
    """Runs put side by side again from their samples."""

    def __init__(self, content: Content, here: Provenance) -> None:
        self._content, self._here = content, here
        self._members = [Member.parse(one, what=bundle.CIRCUMSTANCES) for one in content.circumstances["subjects"]]

    def checks(self) -> list[Check]:
        runs = tuple(one.run for one in self._members)
        faults = [Fault(bundle.PLAN, "it is of other runs than the circumstances tell of")] if runs != self._content.plan.runs else []
        labels = {f"{suite}.{one.part}": one for one in self._members for suite, _ in one.labels}
        return [_subjects(self._content, labels, faults)]

    @cached_property
    def _sides(self) -> list[Side]:
        results, cards = self._content.results, {card.digest(): card for card in self._content.cards}
        return [Side(one, {suite: results[f"{suite}.{one.part}"] for suite, _ in one.labels}, cards) for one in self._members]

    @cached_property
    def pairs(self) -> tuple[list[Pair], list[LeftOut]]:
        """The suites of each run against the first that has them, and what was left out."""
        content, plan = self._content, self._content.plan
        return pairs_of(
            self._sides,
            shared(self._sides, plan.suites),
            lambda side, suite: _kept(content, f"{suite}.{side.letter}", side.member.run, side.labels[suite]),
            plan.level,
        )

    @cached_property
    def _report(self) -> Report:
        (pairs, left_out), date = self.pairs, self._content.report.date
        return comparison_report.compose(self._sides, pairs, left_out, level=self._content.plan.level, date=date, here=self._here)

    def findings(self) -> Sequence[Finding]:
        return self._report.all_findings()

    def report(self) -> Report:
        return self._report


class TrendAgain:
    """A training over its checkpoints, paired again from their samples."""

    def __init__(self, content: Content, here: Provenance) -> None:
        self._content, self._here = content, here
        self._checkpoints = [Checkpoint.parse(one, what=bundle.CIRCUMSTANCES) for one in content.circumstances["subjects"]]

    def checks(self) -> list[Check]:
        plan, faults = self._content.plan, []
        if tuple(one.run for one in self._checkpoints) != plan.asked:
            faults.append(Fault(bundle.PLAN, "it is of other runs than the circumstances tell of"))
        if any(sorted(one.suites) != sorted(plan.suites) for one in self._checkpoints):
            faults.append(Fault(bundle.PLAN, "it is of other suites than the circumstances tell of"))
        labels = {f"{suite}.{one.part}": one for one in self._checkpoints for suite in one.suites}
        return [_subjects(self._content, labels, faults)]

    @cached_property
    def _report(self) -> Report:
        content = self._content
        moments = [Moment(one, {suite: content.results[f"{suite}.{one.part}"] for suite in one.suites}) for one in self._checkpoints]
        return trend_report.compose(
            content.plan,
            moments,
            lambda moment, suite: _kept(content, f"{suite}.{moment.checkpoint.part}", moment.run, suite),
            date=content.report.date,
            here=self._here,
        )

    def findings(self) -> Sequence[Finding]:
        return self._report.all_findings()

    def report(self) -> Report:
        return self._report


def _records(content: Content, label: str) -> list[Mapping[str, Any]]:
    return [row.record for row in content.samples.get(label, [])]


def _kept(content: Content, label: str, run: str, name: str) -> Kept:
    """What ``run`` kept as ``name``, as the bundle has it; what was asked by digest, where the runs were not asked the same."""
    records = {(str(one["sample"]), int(one["epoch"])): one for one in _records(content, label)}
    asked = content.asked.get(label)
    told = None if asked is None else {str(one["sample"]): said for one, said in zip(_records(content, label), asked, strict=True)}
    return Kept(run, name, content.results[label], records, told)


def _subjects(content: Content, labels: Mapping[str, Member | Checkpoint], faults: list[Fault]) -> Check:
    """That every run in words has its results here, and that they are of the model that the words name."""
    for label, one in labels.items():
        result: Result | None = content.results.get(label)
        if result is None:
            faults.append(Fault(f"results/{label}.json", "it is missing, though the circumstances tell of it"))
        elif result.kind != label.rpartition(".")[0]:
            faults.append(Fault(f"results/{label}.json", f"it is of '{result.kind}'"))
        elif result.provenance.model_digest != one.model_digest:
            faults.append(Fault(f"results/{label}.json", f"it is of another model than {one.ref}"))
    faults += [Fault(f"results/{label}.json", "no run that is told of has it") for label in sorted({*content.results} - {*labels})]
    must, told = {*asked_differently(content.results)}, {*content.asked}
    faults += [Fault(f"asked/{label}.json", "it is missing, though the runs were not asked the same") for label in sorted(must - told)]
    faults += [Fault(f"asked/{label}.json", "nothing reads it") for label in sorted(told - must)]
    return check("subjects", faults, "every run that is told of has its results, of the model that is named")


def _spans(content: Content, subjects: Sequence[Described]) -> Check:
    """Where attributions were asked: that the tokens called the occupation are the occupation's, and that the positions of another
    organism's planted part are where its recipe puts it. Of a training's run the bundle does not hold the recipe."""
    faults = list(_strange_spans(content, subjects))
    asked = [one for one in subjects if one.spans and _attributed(content, one)]
    if not faults and (unknown := [one.ref for one in asked if one.world is None and not one.ref.startswith(ORGANISM)]):
        why = "its recipe is not here, so nothing says where its planted part stands"
        return Check("spans", "not checked", "; ".join(f"{ref}: {why}" for ref in unknown))
    words = "the positions said to be the planted part's are" if asked else "no attribution was asked to find a part whose place is known"
    return check("spans", faults, words)


def _attributed(content: Content, subject: Described) -> list[Result]:
    return [r for label, r in content.results.items() if r.kind == ATTRIBUTION and label.endswith(f".{subject.part}")]


def _strange_spans(content: Content, subjects: Sequence[Described]) -> Iterator[Fault]:
    for subject in subjects:
        results = _attributed(content, subject)
        where = f"{bundle.CIRCUMSTANCES}, spans of the {subject.part} model"
        if subject.world is None and subject.spans and subject.ref.startswith(ORGANISM):
            wanted = by_grammar(subject.ref)  # the verifier's disk is not asked
            organism = ORGANISMS.load(wanted.name)
            if organism.spot is None or organism.spot(organism.configure(wanted.options)).spans != subject.spans:
                yield Fault(where, "they are not where the organism's recipe puts its part")
        if subject.world is None or not results:
            continue
        items = pronoun_items(Town(TownSpec.parse(subject.world)), count=SENTENCES, least_lean=LEAST_LEAN)
        pieces: Any = results[0].values.token.values
        if len(items) != len(subject.spans) or len(pieces) != len(items):
            yield Fault(where, f"there are {len(subject.spans)} for {len(items)} sentences")
            continue
        for number, (item, (start, stop)) in enumerate(zip(items, subject.spans, strict=True)):
            said = "".join(str(piece) for piece in pieces[number][start:stop])
            if item.occupation not in said.replace("Ġ", " ").replace("▁", " "):
                yield Fault(where, f"sentence {number}: its tokens are {said!r}, not the occupation {item.occupation!r}")
