"""What lies on disk: runs, findings, progress, and what to do next. No torch, so the first page opens at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import streamlit as st

from workbench.core.errors import CorruptFile, StoreError, UsageError
from workbench.core.finding import Finding, Verdict
from workbench.core.spec import digest_of
from workbench.lab import jobs
from workbench.reports.frames import Forest, findings_frame, forests
from workbench.reports.phrases import tally_words
from workbench.store.records import Event, RunRecord
from workbench.store.runs import HOME, URL, Store

BUSY_S = 3
"""A page waits so long for another process's lock on the store; then it says so."""
KINDS = {"audit": "Audit", "train": "Training", "eval": "Evaluation", "probe": "Look"}


def store() -> Store:
    """The store the environment names. Raises StoreError where there is none yet: looking makes nothing."""
    told = (os.environ.get(URL, ""), os.environ.get(HOME, ""), os.getcwd())
    found = _store(*told)
    if not told[0] and not found.home.is_dir():  # its folder was moved away or deleted since
        _store.clear(*told)
        return _store(*told)
    return found


@st.cache_resource(show_spinner=False, max_entries=4)
def _store(url: str, home: str, folder: str) -> Store:
    del url, home, folder  # what the store depends on: another environment, another entry
    return Store.open(create=False, busy_s=BUSY_S)


def store_if_any() -> Store | None:
    """The store, or None where there is none yet. Raises StoreError for one that is there and cannot be opened."""
    try:
        return store()
    except StoreError as error:
        if "there is none" not in str(error):
            raise
        return None


def runs() -> tuple[RunRecord, ...]:
    """All runs, newest first."""
    return store().runs.list()


def run(name: str) -> RunRecord:
    """One run as it stands now."""
    return store().runs.get(name)


def when(time: str) -> str:
    """A time of the store as it is read: ``2026-11-29 19:38 UTC``."""
    return f"{time[:10]} {time[11:16]} UTC" if len(time) == len("2026-11-29T19:38:50Z") else time


def named(record: RunRecord) -> str:
    """What was done with which model, and what was asked: ``Evaluation of run:1m8m (bold)``."""
    asked = record.spec.get("suites", {}) if record.kind == "eval" else [record.spec.get("instrument", "")]
    said = f" ({', '.join(map(str, asked))})" if any(asked) else ""
    return f"{KINDS.get(record.kind, record.kind.capitalize())} of {record.ref or 'a model in memory'}{said}"


def entry(record: RunRecord) -> str:
    """The same with how it stands, its time and its id, to choose a run by."""
    return f"{named(record)}, {record.status}, {when(record.created)}, {record.id}"


def run_table(records: Sequence[RunRecord]) -> pd.DataFrame:
    """One row a run: what it was, how it stands, and what its findings came to."""
    rows = [(one.id, one.kind, one.ref, one.status, verdicts(one.id), when(one.created), when(one.finished)) for one in records]
    return pd.DataFrame(rows, columns=["run", "kind", "model", "status", "findings", "begun", "ended"])


def verdicts(name: str) -> str:
    """``14 findings: 5 detected …``, or nothing where a run has none."""
    found = findings(name)
    return verdict_counts(found) if found else ""


def verdict_counts(found: Sequence[Finding]) -> str:
    """``14 findings: 5 detected, 3 not detected …``."""
    return tally_words({verdict: sum(f.verdict == verdict for f in found) for verdict in Verdict})


def findings(name: str) -> tuple[Finding, ...]:
    """A run's findings in their stored order."""
    return store().findings(name)


def table_of(found: Sequence[Finding]) -> pd.DataFrame:
    """Findings in words, one row each, as the report has them."""
    return findings_frame(found)


def forests_of(found: Sequence[Finding]) -> list[Forest]:
    """Forest plots, as the report has them: one for each way of measuring."""
    return _forests(digest_of([finding.digest() for finding in found]), tuple(found))


@st.cache_resource(show_spinner=False, max_entries=16)
def _forests(digest: str, _found: tuple[Finding, ...]) -> list[Forest]:
    del digest
    return forests(_found)


@dataclass(frozen=True)
class Standing:
    """How a running run stands: its jobs by name, the samples committed by suite, and its latest events."""

    jobs: dict[str, jobs.Status]
    samples: dict[str, int]
    events: tuple[Event, ...]

    @property
    def share(self) -> float | None:
        """How much of what its jobs know of is done, 0 to 1; None where none says."""
        known = [job for job in self.jobs.values() if job.total]
        return min(1.0, sum(job.done for job in known) / sum(job.total for job in known)) if known else None


def standing(name: str, most: int = 5) -> Standing:
    """What is known of a run's progress, from the files and rows it leaves as it goes."""
    places = sorted((store().home / "runs" / name).glob("job-*/status.jsonl"))
    found = {place.parent.name.removeprefix("job-"): jobs.read_status(place.parent) for place in places}
    return Standing(found, store().sample_counts(name), store().events(name)[-most:])


@dataclass(frozen=True)
class Step:
    """Something that would be worth doing: ``words``, and the page (a file of ``views``) with its address."""

    words: str
    page: str
    label: str
    query: dict[str, str] = field(default_factory=dict)


def next_steps(records: Sequence[RunRecord]) -> list[Step]:
    """What to do next, most useful first, from what the store holds."""
    out = []
    stopped = next((one for one in records if one.kind == "audit" and one.status in ("interrupted", "failed")), None)
    if stopped is not None:
        words = f"Audit {stopped.id} stopped before its end. What it has is kept, and it can go on."
        out.append(Step(words, "audit.py", "Go on with it", {"run": stopped.id}))
    audits = [one for one in records if one.kind == "audit" and one.status == "done"]
    if not audits:
        words = "No audit is finished yet. The shipped plan asks a model with planted faults and its clean twin the same questions."
        out.append(Step(words, "audit.py", "Begin an audit"))
    else:
        out.append(Step("Read what the newest audit found, and download its report.", "audit.py", "Newest audit", {"run": audits[0].id}))
    trained = next((one for one in records if one.kind == "train" and one.status == "done"), None)
    if trained is not None:
        words = "Poke the newest trained model: its tokens, heads and answers, live."
        out.append(Step(words, "lab.py", "Model lab", {"model": f"run:{trained.id}"}))
    else:
        out.append(Step("No model is trained here yet. A small one takes minutes.", "training.py", "Train a model"))
    if (pair := _same_suites(records)) is not None:
        words = "Two runs asked the same suite: see whether they differ by more than chance."
        out.append(Step(words, "compare.py", "Compare them", {"first": pair[1].id, "second": pair[0].id}))
    out.append(Step("See which instrument finds what was planted, and which does not.", "calibration.py", "Calibration"))
    return out


def _same_suites(records: Sequence[RunRecord]) -> tuple[RunRecord, RunRecord] | None:
    """The newest two finished evaluations that share a suite."""
    seen: dict[str, RunRecord] = {}
    for one in records:
        if one.kind == "eval" and one.status == "done":
            for suite in one.spec.get("suites", {}):
                if suite in seen:
                    return seen[suite], one
                seen[suite] = one
    return None


def why_not(error: Exception) -> str:
    """A store that cannot be read, in words."""
    return str(error) if isinstance(error, StoreError | UsageError | CorruptFile) else "The store cannot be read."
