"""The audit: train or load a model and its reference, ask both the same questions, and write the report.

What is asked stands in a plan before anything is asked. Answers and results go into the store as they come, so that an audit
that was interrupted goes on where it stopped; the report is made from what the store holds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.calibration.cards import measured, shipped
from workbench.core.errors import AssayError
from workbench.core.finding import Finding, Plan
from workbench.core.protocol import Progress, silent
from workbench.core.result import Provenance
from workbench.engine.threads import processors
from workbench.lab import jobs
from workbench.lab.audit_findings import described, gathered
from workbench.lab.audit_report import compose
from workbench.lab.audit_subject import parts_of, subject_of
from workbench.lab.circumstances import CIRCUMSTANCES, circumstances
from workbench.lab.plan import DEFAULT, read_plan
from workbench.lab.record import recorded
from workbench.lab.refs import load, parse, reference_of, world_of
from workbench.reports.render import html, json
from workbench.reports.report import Report
from workbench.store.runs import Store


@dataclass(frozen=True)
class Audit:
    """A finished audit: its run, the report, and where its files lie."""

    run: str
    report: Report
    html: Path
    json: Path

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.report.all_findings()

    def lines(self) -> tuple[str, ...]:
        """Ten lines at most for a terminal: the report's summary and the paths."""
        return (*self.report.summary[:8], f"report  {self.html}", f"data    {self.json}")


def audit(
    plan: str | Path | Mapping[str, Any] | Plan = DEFAULT, *, settings: Mapping[str, Any] | None = None, store: Store | None = None,
    progress: Progress = silent, resume: str = "", date: str = "", added: Sequence[str] = (),
) -> Audit:  # fmt: skip
    """Carry out ``plan`` and write the report into the run's folder; suites and instruments ``added`` to it find what is exploratory.

    ``resume`` goes on with an interrupted audit of the same plan (``auto``: the newest). ``date`` stands on the report (default:
    today). References such as ``run:last`` stand in the plan as what they name now. Raises UsageError for a plan that cannot be meant,
    before anything is computed.
    """
    wanted = read_plan(plan, settings, added)
    store = store if store is not None else Store.open()
    if named := _named(wanted, store):
        before, wanted = wanted, read_plan(plan, {**(settings or {}), **named}, added)
        if before.file:  # it was changed before it came here
            wanted = wanted.model_copy(update={"changed": tuple(sorted({*before.changed, *named})), "file": before.file})
    for _, ref in parts_of(wanted):
        if parse(ref).scheme == "organism":
            world_of(ref, store)  # reads its options
        else:
            load(ref, store=store)
    with recorded(store, "audit", wanted.model_dump(mode="json"), wanted.model, resume=resume, provenance={}) as run:
        left_out = _all_asked(wanted, store, run, progress)
        subjects = [subject_of(part, ref, store) for part, ref in parts_of(wanted)]
        store.runs.annotate(run, **{f"{s.part}_digest": s.model.digest() for s in subjects})
        facts = [described(subject, wanted, store) for subject in subjects]
        found = gathered(
            wanted, facts, store.results(run), (*measured(store.home), *shipped()), left_out, lambda label: store.sink(run, label).read()
        )
        progress(0, 1, "writing the report")
        store.put_findings(run, found.findings)
        here = Provenance.here()
        report = compose(wanted, facts, found, date=date or time.strftime("%Y-%m-%d", time.gmtime()), here=here)
        made = write_pages(store, run, report, {CIRCUMSTANCES: circumstances(facts, here)})
        progress(1, 1, "done")
    return made


def _named(plan: Plan, store: Store) -> dict[str, str]:
    """The fields of the plan whose reference would mean another model after the next training or audit, with the lasting one."""
    given = {name: ref for name, ref in (("model", plan.model), ("reference", plan.reference)) if ref}
    return {name: lasting for name, ref in given.items() if (lasting := reference_of(ref, store)) != ref}


def report_of(run: str, *, store: Store | None = None) -> Audit:
    """The stored report of an audit, read back and checked. Raises UnknownName, MissingFile and CorruptFile."""
    store = store if store is not None else Store.open(create=False)
    folder = store.folder(run)
    place = folder / "report.json"
    if not place.is_file():
        record = store.runs.get(run)
        raise AssayError(f"Run {record.id} is of kind '{record.kind}' and holds no report. `workbench runs list` shows the audits.")
    return Audit(store.runs.get(run).id, Report.from_json(place.read_text(encoding="utf-8")), folder / "report.html", place)


def _all_asked(plan: Plan, store: Store, run: str, progress: Progress) -> list[tuple[str, str]]:
    """Every model trained or loaded and asked, side by side, a process each; what was left out and why.

    One thread each where there are two: the steps of a small model gain nothing from a second one.
    """
    parts = parts_of(plan)
    threads = max(1, processors() // len(parts))
    started = [
        jobs.start(
            "workbench.lab.audit_subject:ask_all",
            {"plan": plan.model_dump(mode="json"), "run": run, "part": part, "home": store.address},
            store.folder(run) / f"job-{part}", threads=threads,
        )
        for part, _ in parts
    ]  # fmt: skip
    left_out: list[tuple[str, str]] = []
    for (part, ref), status in zip(parts, jobs.wait(started, progress=progress), strict=True):
        if status.state != "done":
            raise AssayError(f"The {part} model '{ref}' was not asked to the end ({status.state}): {status.words}")
        left_out += [(what, why) for what, why in status.value["left_out"]]
    return left_out


def write_pages(store: Store, run: str, report: Report, beside: Mapping[str, str] | None = None) -> Audit:
    """Write the page and the data of a report into its run's folder, and the files ``beside`` them; each is whole or as it was."""
    folder = store.folder(run)
    pages = {"report.html": html.render(report), "report.json": json.render(report), **(beside or {})}
    for name, content in pages.items():
        place = folder / name
        partial = place.with_suffix(place.suffix + ".partial")
        partial.write_text(content, encoding="utf-8")
        partial.replace(place)
    return Audit(run, report, folder / "report.html", folder / "report.json")
