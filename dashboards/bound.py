"""Reports of several runs on a page: begun, watched, read and taken along."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboards import reads, shelf
from dashboards.elements import began, watch_beginning
from dashboards.taken import taken
from workbench.lab import audits, jobs, reports_begun
from workbench.lab.allowed import check_settings
from workbench.lab.settings import read_settings
from workbench.lab.started import words_of
from workbench.store.records import RunRecord

EVERY_S = 2
BEGUN = "begun report"


def written() -> tuple[RunRecord, ...]:
    """The runs that hold such a report, newest first."""
    return reports_begun.written(shelf.store())


def suites() -> dict[str, str]:
    """The suites with their words."""
    return audits.offered()[0]


def trainings() -> tuple[RunRecord, ...]:
    """The trainings, newest first."""
    return reads.trainings()


def begin_comparison(runs: list[str]) -> None:
    """Write the report of runs side by side."""
    began(BEGUN, str(reports_begun.begin_comparison(shelf.store(), runs)))


def begin_trend(training: str, suite: str, settings: str) -> None:
    """Ask a suite of every checkpoint of a training."""
    check_settings(read_settings(words_of(settings)), shelf.store().home)
    began(BEGUN, str(reports_begun.begin_trend(shelf.store(), training, suite, settings)))


@st.fragment(run_every=EVERY_S)
def watch(folder: str) -> None:
    """A report this session began, until it is there to be read."""
    watch_beginning(BEGUN, jobs.read_status(Path(folder)), "report", "Writing.", "It was not written:")


def show(run: str) -> None:
    """One report, inside, and as files."""
    files = reads.report(run)
    if files is None:
        st.caption("This run has no report.")
        return
    taken(run, files)
    st.iframe(files.framed, height=800, alt=f"The report of run {run}")
