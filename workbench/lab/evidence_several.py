"""What the bundle of a report of several runs holds: every result and sample of each run, under its letter or its step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.core.errors import AssayError
from workbench.core.finding import Card
from workbench.core.result import Provenance, Result
from workbench.core.spec import canonical_json
from workbench.lab.audit import Audit
from workbench.lab.circumstances import read_as
from workbench.lab.comparison_report import UNPAIRED
from workbench.lab.derivation import ComparisonAgain
from workbench.lab.evidence_samples import Gathered, about, asked_differently, data_of, events_of, models_of, requests_of
from workbench.lab.side_by_side import Member
from workbench.lab.trend_report import Checkpoint
from workbench.reports.evidence.bundle import Evidence
from workbench.reports.evidence.plans import AnyPlan, ComparisonPlan, TrendPlan
from workbench.reports.evidence.verify import Content
from workbench.store.runs import Store


def _compared(found: Audit, store: Store) -> Evidence:
    members, environment = read_as(Member, store.folder(found.run))
    kept = Gathered()
    for member in members:
        for suite, name in member.labels:
            kept.add(store, member.run, name, f"{suite}.{member.part}", store.result(member.run, name).result)
    plan = ComparisonPlan.parse(store.runs.get(found.run).spec, what=f"the spec of run {found.run}")
    evidence = _evidence(found, store, plan, members, environment, kept)
    _check_pairs(evidence)
    return evidence


def _check_pairs(evidence: Evidence) -> None:
    """Raises AssayError where the report has other pairs than its evidence makes: whoever verified it would find it broken."""
    content = Content(
        {}, plan=evidence.plan, circumstances=json.loads(evidence.circumstances), results=dict(evidence.results),
        samples={label: list(rows) for label, rows in evidence.samples.items()}, cards=list(evidence.cards),
        asked={label: list(said) for label, said in evidence.asked.items()}, report=evidence.report,
    )  # fmt: skip
    pairs, left_out = ComparisonAgain(content, Provenance.here()).pairs
    tables = [table.caption for section in evidence.report.sections for table in section.tables]
    said = sorted(one.what for one in evidence.report.left_out), sum(UNPAIRED in caption for caption in tables)
    if said != (sorted(one.what for one in left_out), sum(not pair.paired for pair in pairs)):
        raise AssayError(
            "The report has other pairs than its samples make now: data that were missing when it was written are here, or pairs are made "
            f"otherwise. Compare them again (`{evidence.report.rederive[0]}`) and bundle that."
        )


def _over_time(found: Audit, store: Store) -> Evidence:
    checkpoints, environment = read_as(Checkpoint, store.folder(found.run))
    kept = Gathered()
    for one in checkpoints:
        for suite in one.suites:
            kept.add(store, one.run, suite, f"{suite}.{one.part}", store.result(one.run, suite).result)
    plan = TrendPlan.parse(store.runs.get(found.run).spec, what=f"the spec of run {found.run}")
    return _evidence(found, store, plan, checkpoints, environment, kept)


SEVERAL: Mapping[str, Callable[[Audit, Store], Evidence]] = {"comparison": _compared, "trend": _over_time}
"""By the kind of the report."""


def _evidence(
    found: Audit, store: Store, plan: AnyPlan, subjects: Sequence[Member] | Sequence[Checkpoint], environment: Mapping[str, Any],
    kept: Gathered,
) -> Evidence:  # fmt: skip
    return Evidence(
        run=about(store, found.run), plan=plan, data=data_of(kept.results), results=kept.results, samples=kept.samples,
        circumstances=canonical_json({"subjects": [one.model_dump(mode="json") for one in subjects], "environment": dict(environment)}),
        cards=_cards(found), findings=store.findings(found.run), report=found.report, events=events_of(store, found.run),
        page=found.html.read_text(encoding="utf-8"), models=models_of(subjects), told=kept.said(), asked=_asked(kept.results),
    )  # fmt: skip


def _cards(found: Audit) -> list[Card]:
    """The cards beside the findings, each once."""
    return list({one.card.digest(): one.card for one in found.findings if one.card is not None}.values())


def _asked(results: Mapping[str, Result]) -> dict[str, list[str]]:
    """What each sample was asked, for the suites that were not asked of all by one spec and on the same data."""
    return {label: requests_of(label, results[label]) for label in asked_differently(results)}
