"""What a bundle holds of the samples behind a report: every row as the store keeps it, what aggregating reads besides, data by digest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evals import SUITES
from evals.runner import score_of
from workbench.core.errors import AssayError, StoreError
from workbench.core.measure import Sample, Suite
from workbench.core.result import Result
from workbench.core.spec import digest_of
from workbench.data.sources import SOURCES
from workbench.lab.compare import asked_the_same, request_digest, request_of
from workbench.lab.told import told_name, told_of
from workbench.reports.evidence.samples import Row
from workbench.store.runs import Store


@dataclass
class Gathered:
    """Results and samples by the label they have in the bundle, and what aggregating reads of the data, by ``told_name``."""

    results: dict[str, Result] = field(default_factory=dict)
    samples: dict[str, list[Row]] = field(default_factory=dict)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, store: Store, run: str, name: str, label: str, result: Result) -> None:
        """Put the samples that ``run`` keeps under ``name`` into the bundle as ``label``."""
        asked = asked_of(name, result)
        self.results[label] = result
        self.samples[label] = rows = _rows(store, run, name, asked)
        if (known := told_name(result)) not in self.told:
            self.told[known] = told_of(result, asked, [score_of(row.record) for row in rows])

    def said(self) -> dict[str, dict[str, Any]]:
        """What is told, where anything is."""
        return {name: one for name, one in self.told.items() if one}


def asked_of(name: str, result: Result) -> list[Sample]:
    """The samples of one suite in its order. Raises AssayError where the data are not those that were asked."""
    suite: Suite = SUITES.load(result.kind)
    asked = list(suite.samples(suite.spec.parse(result.spec, what=f"stored spec of '{name}'")))
    found = digest_of([[s.id, dict(s.facts), s.cluster, s.group] for s in asked])
    if found != result.provenance.data_digest:
        raise AssayError(
            f"The data of '{name}' is not what was asked: its digest is {found[:12]}…, and the result is of "
            f"{result.provenance.data_digest[:12]}…. Put back the data set that was used."
        )
    return asked


def requests_of(name: str, result: Result) -> list[str]:
    """By digest what each sample of one suite was asked, in its order."""
    suite: Suite = SUITES.load(result.kind)
    spec = suite.spec.parse(result.spec, what=f"stored spec of '{name}'")
    return [request_digest(request_of(suite, sample, spec)) for sample in asked_of(name, result)]


def asked_differently(results: Mapping[str, Result]) -> list[str]:
    """The labels of the suites that were not asked of all runs by one spec and on the same data, so that it must be told what was asked."""
    first: dict[str, Result] = {}
    kinds = {result.kind for result in results.values() if not asked_the_same(first.setdefault(result.kind, result), result)}
    return [label for label, result in results.items() if result.kind in kinds]


def data_of(results: Mapping[str, Result]) -> dict[str, Any]:
    """What was asked, by digest; of a public set also its files with their sha256, its licence and its page."""
    out: dict[str, Any] = {}
    for label, result in results.items():
        about: dict[str, Any] = {"data": result.provenance.data, "digest": result.provenance.data_digest}
        if (source := SOURCES.get(result.kind)) is not None and result.kind in SUITES:
            about["source"] = {
                "name": source.name, "page": source.page, "licence": source.licence,
                "files": {file.name: file.sha256 for file in source.files},
            }  # fmt: skip
        out[label] = about
    return out


def _rows(store: Store, run: str, name: str, asked: Sequence[Sample]) -> list[Row]:
    """What the store keeps of each of these samples, with the digest of what was asked."""
    records = {str(record["sample"]): record for record in store.sink(run, name).read()}
    if missing := [s.id for s in asked if s.id not in records]:
        raise StoreError(f"The samples of '{name}' could not be bundled", f"{len(missing)} are not in the store, such as '{missing[0]}'")
    return [Row(records[s.id], digest_of([dict(s.facts), s.cluster, s.group])) for s in asked]


def events_of(store: Store, run: str) -> list[dict[str, Any]]:
    """What a run noted, in order."""
    return [{"name": e.name, "time": e.time, "details": dict(e.details)} for e in store.events(run)]


def about(store: Store, run: str) -> dict[str, Any]:
    """The run that wrote the report."""
    record = store.runs.get(run)
    return {"id": record.id, "kind": record.kind, "created": record.created, "spec_digest": record.spec_digest}


def models_of(subjects: Iterable[Any]) -> dict[str, str]:
    """The digest of each model of a report, by what the report calls it."""
    return {subject.ref: subject.model_digest for subject in subjects}
