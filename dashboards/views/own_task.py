"""Own task: a table of questions becomes a task, is looked at, and a model is asked in the background."""

from __future__ import annotations

import streamlit as st

from dashboards import looks, own
from dashboards.elements import NO_MODEL, began, did_not_begin, is_beginning, link, plain, told, which_model, why_not

EVERY_S, BEGUN = 2, "begun own"
NONE = "none"


def page() -> None:
    st.set_page_config(page_title="Own task · Assay", layout="wide")
    st.title("Own task")
    st.markdown(
        "Questions of your own, one a row of a table. The file is checked on the server, kept in the store's home and nowhere else; what "
        "stands in it is text and stays text."
    )
    why_not(BEGUN)
    if is_beginning(BEGUN):
        begins(st.session_state[BEGUN])
    if done := st.session_state.get("done own"):
        st.success(f"Run {done} is done.")
        link("suites.py", "What it found, and each sample", {"run": done})
    kinds = [ending.removeprefix(".") for ending in own.KINDS]
    given = st.file_uploader(f"Table ({', '.join(kinds)}; at most 1 MB)", type=kinds, key="table")
    if given is None:
        st.info("Give a table. A row might be: question, answer. The first line of a csv names the columns.")
        st.code("question,answer\nIs the sky blue?,yes\nIs grass red?,no", language=None)
        return
    with told():
        table = own.table(given.name, given.getvalue())
        st.caption(f"{len(table.rows):,} rows. Columns of every row: {plain(', '.join(table.columns))}.")
        make(table)


def make(table: own.Table) -> None:
    """The choices that make a task, its first questions, and a button."""
    left, right = st.columns(2)
    output = left.selectbox("What is asked", list(own.OUTPUTS), format_func=own.OUTPUTS.__getitem__, key="output")
    name = right.text_input("Name", "my-task", key="name")
    columns = [NONE, *table.columns]
    question = NONE
    if output != "loglikelihood_rolling":
        question = left.selectbox("Column of the question", columns, index=min(1, len(columns) - 1), key="question")
    target = right.selectbox("Column of the right answer, or of the text", table.columns, index=len(table.columns) - 1, key="target")
    choices, listed = NONE, ""
    if output == "multiple_choice":
        choices = left.selectbox("Column with a list of choices", columns, key="choices")
        if choices == NONE:
            listed = right.text_input("Choices, by commas", "yes, no", key="listed")
    cluster = left.selectbox("Column that rows share which belong together", columns, key="cluster")
    subgroup = right.selectbox("Column by which results are told apart", columns, key="subgroup")
    picked = {"question": question, "target": target, "choices": choices, "cluster": cluster, "subgroup": subgroup}
    file = own.task(table, name, output, listed=listed, **{field: "" if one == NONE else one for field, one in picked.items()})
    st.header("The first questions")
    st.dataframe(own.questions(table, file), hide_index=True, alt="The first rows as the model is asked about them")
    with st.expander("The task file"):
        st.code(own.written(file), language="yaml")
    st.header("Ask a model")
    ref = which_model(looks.models())
    if not ref:
        st.info(NO_MODEL)
        return
    if st.button("Ask it in the background", type="primary", key="begin", disabled=is_beginning(BEGUN)):
        with told():
            began(BEGUN, own.begin(file, ref))


@st.fragment(run_every=EVERY_S)
def begins(folder: str) -> None:
    """An evaluation that this page began, until its result is there."""
    status = own.begun(folder)
    if status.state == "done":
        st.session_state["done own"] = str(status.value["run"])
        del st.session_state[BEGUN]
        st.rerun()
    elif status.over:
        did_not_begin(BEGUN, f"It found nothing: {status.words}")
    else:
        share = min(status.done / status.total, 1.0) if status.total else 0.0
        st.progress(share, text=plain(f"Asking. {status.words}"))


page()
