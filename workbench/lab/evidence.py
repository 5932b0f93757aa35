"""The evidence bundle of a finished audit: everything gathered from the store, so that the report can be derived again elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals import SUITES
from evals.runner import score_of
from workbench.calibration.cards import measured, shipped
from workbench.core.errors import AssayError, BadValue, StoreError
from workbench.core.finding import Card, Plan
from workbench.core.measure import Sample, Suite
from workbench.core.result import Result
from workbench.core.spec import canonical_json, digest_of
from workbench.data.sources import SOURCES
from workbench.lab.audit_findings import Described
from workbench.lab.circumstances import read as read_circumstances
from workbench.lab.reporting import stored_report
from workbench.lab.told import told_name, told_of
from workbench.reports.evidence import keys
from workbench.reports.evidence.bundle import Evidence, bundle
from workbench.reports.evidence.samples import Row
from workbench.store.runs import Store


@dataclass(frozen=True)
class Bundled:
    """A bundle that was written: where, its size and sha256, how many samples and entries it holds, and by whom it is signed ('')."""

    run: str
    place: Path
    size: int
    sha256: str
    samples: int
    signer: str

    def lines(self) -> tuple[str, ...]:
        signed = (
            f"signed by {self.signer}" if self.signer else "not signed: `workbench keys new NAME` makes a key, --key NAME signs with it"
        )
        return f"bundle  {self.place} ({self.size:,} bytes, {self.samples:,} samples)", f"sha256  {self.sha256}", signed


def write_bundle(run: str, out: str | Path, *, key: str = "", store: Store | None = None) -> Bundled:
    """Write the evidence bundle of an audit to ``out``, signed by ``key`` (a key's name or file) where one is given.

    The data sets of the suites must be at hand, since the order of the samples is theirs. Raises MissingData, MissingFile, StoreError, and
    BadValue where ``out`` is there already.
    """
    place = Path(out)
    if place.exists():
        raise BadValue("the bundle to write", str(out), "a file that is not there yet", do="Nothing is written over.")
    signer = keys.load(key, keys.folder()) if key else None
    store = store if store is not None else Store.open(create=False)
    evidence = gather(run, store)
    content = bundle(evidence, signer)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f"{place.name}.partial")
        partial.write_bytes(content)
        partial.replace(place)
    except OSError as error:
        raise StoreError(f"The bundle could not be written to '{place}'", error.strerror or str(error)) from error
    count = sum(map(len, evidence.samples.values()))
    return Bundled(
        str(evidence.run["id"]),
        place,
        len(content),
        hashlib.sha256(content).hexdigest(),
        count,
        signer.public().fingerprint if signer else "",
    )


def gather(run: str, store: Store) -> Evidence:
    """What the bundle of an audit holds. Nothing is computed anew and no model is loaded."""
    found = stored_report(run, store=store)
    if found.report.kind != "audit":
        raise AssayError(f"A {found.report.kind} report has no evidence bundle: bundle the audits that it rests on, one by one.")
    record = store.runs.get(found.run)
    subjects, environment = read_circumstances(store.folder(record.id))
    plan = Plan.parse(record.spec, what=f"the plan of run {record.id}")
    results = store.results(record.id)
    samples: dict[str, list[Row]] = {}
    told: dict[str, dict[str, Any]] = {}
    for label in store.sample_counts(record.id):
        if label in results:
            asked = _asked(label, results[label])
            samples[label] = _rows(store, record.id, label, asked)
            if (name := told_name(results[label])) not in told:
                told[name] = told_of(results[label], asked, [score_of(row.record) for row in samples[label]])
    about = {"id": record.id, "kind": record.kind, "created": record.created, "spec_digest": record.spec_digest}
    return Evidence(
        run=about, plan=plan, data=_data(results), results=results, samples=samples,
        circumstances=canonical_json({"subjects": [s.model_dump(mode="json") for s in subjects], "environment": dict(environment)}),
        cards=_cards(store, plan), findings=store.findings(record.id), report=found.report,
        events=[{"name": e.name, "time": e.time, "details": dict(e.details)} for e in store.events(record.id)],
        page=found.html.read_text(encoding="utf-8"), models=_models(subjects), told={name: one for name, one in told.items() if one},
    )  # fmt: skip


def _models(subjects: Sequence[Described]) -> dict[str, str]:
    return {subject.ref: subject.model_digest for subject in subjects}


def _asked(label: str, result: Result) -> list[Sample]:
    """The samples of one suite in its order. Raises AssayError where the data are not those that were asked."""
    suite: Suite = SUITES.load(result.kind)
    asked = list(suite.samples(suite.spec.parse(result.spec, what=f"stored spec of '{label}'")))
    found = digest_of([[s.id, dict(s.facts), s.cluster, s.group] for s in asked])
    if found != result.provenance.data_digest:
        raise AssayError(
            f"The data of '{label}' is not what was asked: its digest is {found[:12]}…, and the result is of "
            f"{result.provenance.data_digest[:12]}…. Put back the data set that the audit used."
        )
    return asked


def _rows(store: Store, run: str, label: str, asked: Sequence[Sample]) -> list[Row]:
    """What the store keeps of each of these samples, with the digest of what was asked."""
    records = {str(record["sample"]): record for record in store.sink(run, label).read()}
    if missing := [s.id for s in asked if s.id not in records]:
        raise StoreError(f"The samples of '{label}' could not be bundled", f"{len(missing)} are not in the store, such as '{missing[0]}'")
    return [Row(records[s.id], digest_of([dict(s.facts), s.cluster, s.group])) for s in asked]


def _cards(store: Store, plan: Plan) -> list[Card]:
    """The cards there were to choose from for what the plan asks, each once, in the order they are looked through."""
    asked = {*plan.suites, *plan.instruments}
    found = {card.digest(): card for card in (*measured(store.home), *shipped()) if card.of in asked}
    return list(found.values())


def _data(results: Mapping[str, Result]) -> dict[str, Any]:
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
