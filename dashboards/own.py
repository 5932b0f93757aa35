"""What the page of one's own task asks: a table that was given, the task made of it, and the process that asks a model."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboards import shelf
from workbench.lab import jobs, own
from workbench.lab.allowed import check_reference
from workbench.lab.own import Table as Table
from workbench.store.runs import Store

KINDS = own.KINDS
OUTPUTS = own.OUTPUTS


@st.cache_resource(show_spinner="Reading the table …", max_entries=8)
def table(name: str, content: bytes) -> Table:
    """A table that was given, checked and kept. Makes the store where there is none yet."""
    with Store.open() as made:
        return own.keep_table(made.home, name, content)


def task(found: Table, name: str, output: str, **columns: str) -> Path:
    """The task file made of it."""
    return own.task_of(found, name, output, **columns)


def written(file: Path) -> str:
    """The task file's text."""
    return file.read_text(encoding="utf-8")


def questions(found: Table, file: Path) -> list[dict[str, object]]:
    """The first rows as the model is asked about them."""
    return [
        {"context": one.context, "choices": ", ".join(one.choices), "right": ", ".join(one.choices[i] for i in one.right) or one.target,
         "not scored because": one.unscored}
        for one in own.first_questions(found, file)
    ]  # fmt: skip


def begin(file: Path, ref: str) -> str:
    """Ask a model; the folder of the job."""
    check_reference(ref, shelf.store().home)
    return str(own.begin(shelf.store(), file, ref))


def begun(folder: str) -> jobs.Status:
    """How a job that was started here stands."""
    return jobs.read_status(Path(folder))
