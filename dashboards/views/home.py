"""Home: what is running, what was found last, and what to do next. It imports no torch, so it is there at once."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboards import shelf
from dashboards.elements import link, plain, told
from workbench.core.errors import StoreError
from workbench.store.records import RunRecord

EVERY_S = 2
SHOWN = 6
WHERE = {"audit": "audit.py", "train": "training.py", "eval": "suites.py"}


def page() -> None:
    st.set_page_config(page_title="Home · Assay", layout="wide")
    st.title("Assay")
    st.markdown("Look inside a transformer, ask how safe and fair it behaves, and keep every number with its interval, null and card.")
    with told():
        try:
            records = shelf.runs()
        except StoreError as error:
            if "there is none" not in str(error):
                raise
            records = ()
        left, right = st.columns([3, 2], gap="large")
        with right:
            show_next(records)
        with left:
            if any(record.status == "running" for record in records):
                running()
            recent([record for record in records if record.status != "running"])


def show_next(records: Sequence[RunRecord]) -> None:
    st.header("What to do next")
    for number, step in enumerate(shelf.next_steps(records)):
        with st.container(border=True, key=f"step-{number}"):
            st.markdown(plain(step.words))
            link(step.page, step.label, step.query)


@st.fragment(run_every=EVERY_S)
def running() -> None:
    """What runs now, read again every two seconds; the page is read again when the last of it is over."""
    with told():
        records = [record for record in shelf.runs() if record.status == "running"]
        if not records:
            st.rerun()
        st.header("Running now")
        for record in records[:SHOWN]:
            now = shelf.standing(record.id)
            words = f"{shelf.named(record)}, begun {shelf.when(record.created)}"
            said = "; ".join(f"{job}: {status.words or status.state}" for job, status in now.jobs.items())
            samples = sum(now.samples.values())
            said = said or (f"{samples:,} samples" if samples else "nothing is committed yet")
            if now.share is not None:
                st.progress(now.share, text=plain(f"{words}. {now.share:.0%}; {said}"))
            else:
                st.markdown(plain(f"{words}. {said[:1].upper()}{said[1:]}."))
            link(WHERE.get(record.kind, "runs.py"), f"Watch {record.id}", {"run": record.id})


def recent(records: Sequence[RunRecord]) -> None:
    st.header("Recent runs")
    if not records:
        st.info("Nothing has been run in this store yet. What you do from these pages or with `workbench` shows up here.")
        return
    for record in records[:SHOWN]:
        with st.container(border=True, key=f"run-{record.id}"):
            st.markdown(f"**{plain(shelf.named(record))}**, {plain(record.status)}")
            st.caption(plain(shelf.when(record.created)))
            if found := shelf.verdicts(record.id):
                st.markdown(plain(found))
            elif record.note:
                st.caption(plain(record.note[:200]))
            link("runs.py", f"Open {record.id}", {"run": record.id})
    if len(records) > SHOWN:
        link("runs.py", f"All {len(records):,} runs")


page()
