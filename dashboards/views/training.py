"""Training: which trainings there are, how the chosen one stands, and its curves, drawn again while it runs."""

from __future__ import annotations

import streamlit as st

from dashboards import reads, shelf
from dashboards.elements import began, chart_of, did_not_begin, is_beginning, plain, told, why_not
from workbench.core.errors import StoreError
from workbench.store.records import RunRecord

EVERY_S, BEGUN = 2, "begun"
WORDS = {"running": "running", "done": "finished", "interrupted": "stopped", "failed": "failed"}


def page() -> None:
    st.set_page_config(page_title="Training · Assay", layout="wide")
    st.title("Training")
    try:
        records = reads.trainings()
    except StoreError as error:
        if "there is none" not in str(error):
            st.error(plain(str(error)))
            return
        records = ()
    with st.expander("Start a training", expanded=not records):
        start()
    why_not(BEGUN)
    if is_beginning(BEGUN):
        begins(st.session_state[BEGUN])
    if not records:
        st.info("There are no trainings yet. The form above starts one, and so does `workbench train town-target` at the command line.")
        return
    st.dataframe(reads.training_table(records, WORDS), hide_index=True, height=min(38 + 35 * len(records), 200), alt="All trainings")
    with told():
        asked = st.query_params.get("run", "")  # a link to one training; the choice below writes it back
        place = [record.id for record in records].index(reads.course(asked).record.id) if asked else 0
        chosen = st.selectbox("Training", records, index=place, format_func=label_of, key="training")
        st.query_params["run"] = chosen.id
        show(chosen.id)


def label_of(record: RunRecord) -> str:
    return f"{record.id}: {record.ref.removeprefix('recipe:')}, {WORDS[record.status]}, begun {shelf.when(record.created)}"


def show(name: str) -> None:
    found = reads.course(name)
    st.header(plain(found.record.ref.removeprefix("recipe:")))
    if found.record.status == "running":
        follow(name)
    else:
        stands(found)
    with st.expander("The recipe, whole"):
        st.json(dict(found.record.spec))


@st.fragment(run_every=EVERY_S)
def follow(name: str) -> None:
    """How a running training stands, read again every two seconds; the whole page is read again once it is over."""
    with told():
        found = reads.course(name)
        if found.record.status != "running":
            st.rerun()
        stands(found)


def stands(found: reads.Course) -> None:
    """One training: the sentence, what can be done, its curves and its numbers."""
    status = found.record.status
    {"running": st.info, "done": st.success, "failed": st.error}.get(status, st.warning)(plain(found.sentence()))
    if status != "done":
        st.progress(found.share, text=plain(f"step {found.step:,} of {found.steps:,}") if found.steps else "before the first step")
    if status == "running" and found.here and st.button("Stop it; what it has done is kept", key="stop"):
        reads.stop_training(found)
        st.toast("It was asked to stop. It writes a checkpoint after the step it is in.")
    if status in ("interrupted", "failed"):
        st.code(found.resume, language=None)
        if st.button("Go on with it", key="resume"):
            began(BEGUN, reads.resume_training(found))
    curves(found)


def curves(found: reads.Course) -> None:
    drawn = reads.training_charts(found)
    if not drawn:
        st.caption("There is no curve yet: the first line of its metrics comes with its first steps.")
        return
    for first in range(0, len(drawn), 2):
        for place, (words, drawing) in zip(st.columns(2), drawn[first : first + 2], strict=False):
            with place:
                chart_of(drawing, words)
    with st.expander("The numbers"):
        st.dataframe(reads.training_numbers(found), hide_index=True, alt="Loss, rate, gradient norm, tokens and speed by step")


def start() -> None:
    """A shipped recipe, what is to be different of it, and a button."""
    recipes = reads.recipes()
    left, right = st.columns(2)
    name = left.selectbox("Recipe", list(recipes), format_func=lambda one: f"{one}: {recipes[one]}", key="recipe")
    settings = right.text_input(
        "Settings, as after --set, with spaces between them", placeholder="train.steps=500 watch.measures=[induction]", key="settings"
    )
    if st.button("Start", key="start", disabled=is_beginning(BEGUN)):
        with told():
            began(BEGUN, reads.start_training(name, settings))


@st.fragment(run_every=EVERY_S)
def begins(folder: str) -> None:
    """A training this page started or took up again, until its run is there to be looked at."""
    status, run = reads.begun_training(folder)
    if run:
        del st.session_state[BEGUN]
        st.session_state.pop("training", None)
        st.query_params["run"] = run
        st.rerun()
    elif status.over:
        did_not_begin(BEGUN, f"It did not begin: {status.words}")
    else:
        st.info("It is starting: its libraries, its data and its model are being prepared.")


page()
