"""The evidence bundle of a finished report: everything gathered from the store, so that the report can be derived again elsewhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from workbench.calibration.cards import measured, shipped
from workbench.core.errors import BadValue, StoreError
from workbench.core.finding import Card, Plan
from workbench.core.spec import canonical_json
from workbench.lab.audit import Audit
from workbench.lab.circumstances import read as read_circumstances
from workbench.lab.evidence_samples import Gathered, about, data_of, events_of, models_of
from workbench.lab.evidence_several import SEVERAL
from workbench.lab.reporting import stored_report
from workbench.reports.evidence import keys
from workbench.reports.evidence.bundle import Evidence, bundle
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

    def facts(self) -> dict[str, str | int]:
        """For machines."""
        return {"file": str(self.place), "sha256": self.sha256, "bytes": self.size, "samples": self.samples, "signer": self.signer}

    def lines(self) -> tuple[str, ...]:
        signed = (
            f"signed by {self.signer}" if self.signer else "not signed: `workbench keys new NAME` makes a key, --key NAME signs with it"
        )
        return f"bundle  {self.place} ({self.size:,} bytes, {self.samples:,} samples)", f"sha256  {self.sha256}", signed


def write_bundle(run: str, out: str | Path, *, key: str = "", store: Store | None = None) -> Bundled:
    """Write the evidence bundle of a report to ``out``, signed by ``key`` (a key's name or file) where one is given.

    The data sets of the suites must be at hand, since the order of the samples is theirs. Raises MissingData, MissingFile, StoreError, and
    BadValue where ``out`` is there already.
    """
    place = unwritten(out)
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


def unwritten(out: str | Path) -> Path:
    """Where a bundle may be written. Raises BadValue for a file that is there already."""
    place = Path(out)
    if place.exists():
        raise BadValue("the bundle to write", str(out), "a file that is not there yet", do="Nothing is written over.")
    return place


def gather(run: str, store: Store) -> Evidence:
    """What the bundle of an audit, a comparison or a trend holds. Nothing is computed anew and no model is loaded."""
    found = stored_report(run, store=store)
    if found.report.kind == "audit":
        return _audited(found, store)
    return SEVERAL[found.report.kind](found, store)


def _audited(found: Audit, store: Store) -> Evidence:
    record = store.runs.get(found.run)
    subjects, environment = read_circumstances(store.folder(record.id))
    plan = Plan.parse(record.spec, what=f"the plan of run {record.id}")
    results = store.results(record.id)
    kept = Gathered()
    for label in store.sample_counts(record.id):
        if label in results:
            kept.add(store, record.id, label, label, results[label])
    return Evidence(
        run=about(store, record.id), plan=plan, data=data_of(results), results=results, samples=kept.samples,
        circumstances=canonical_json({"subjects": [s.model_dump(mode="json") for s in subjects], "environment": dict(environment)}),
        cards=_cards(store, plan), findings=store.findings(record.id), report=found.report, events=events_of(store, record.id),
        page=found.html.read_text(encoding="utf-8"), models=models_of(subjects), told=kept.said(),
    )  # fmt: skip


def _cards(store: Store, plan: Plan) -> list[Card]:
    """The cards there were to choose from for what the plan asks, each once, in the order they are looked through."""
    asked = {*plan.suites, *plan.instruments}
    found = {card.digest(): card for card in (*measured(store.home), *shipped()) if card.of in asked}
    return list(found.values())
