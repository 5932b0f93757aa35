"""Model lab: one model, one prompt or row; what it answers, where its heads look, what moved the answer, and what changes it."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboards import looks, reads
from dashboards.elements import NO_MODEL, chart_of, plain, told, which_model, written
from dashboards.panels import PANELS
from workbench.core.errors import Incompatible
from workbench.lab import live

PROMPT = "the nurse visited the visitor by the big market because"  # a sentence of the town, which the shipped models know
FIRST = ("Attention", "Attribution")
MOST_LETTERS, MOST_IDS = 2000, 64
"""Of a row's text that are shown."""


def page() -> None:
    st.set_page_config(page_title="Model lab · Assay", layout="wide")
    st.title("Model lab")
    ref = which_model(looks.models())
    if not ref:
        written(st, "Prompt", PROMPT, "prompt")
        st.info(NO_MODEL)
        return
    with told():
        reads.model(ref)
        what = which_text() if looks.typed(ref) else which_row(ref)
        if what is None:
            return
        left, right = st.columns([2, 3], gap="large")
        with left:
            show_input(ref, what)
        names = st.pills("Look at", list(PANELS), selection_mode="multi", default=FIRST, key="look", bind="query-params")
        drawn_first = [name for name in names[:1] if name == FIRST[0]]  # the browser draws all heads while the answers are computed
        show_looks(drawn_first, ref, what)
        with right, told():
            show_answers(ref, what)
        show_looks(names[len(drawn_first) :], ref, what)


def show_looks(names: Sequence[str], ref: str, what: looks.What) -> None:
    for name in names:
        st.header(name)
        with told():
            PANELS[name](ref, what)


def which_text() -> str:
    return written(st, "Prompt", PROMPT, "prompt")


def which_row(ref: str) -> looks.What | None:
    """A held-out row, for a model that reads pictures, sounds or pairs; or something of one's own."""
    model = reads.model(ref)
    rows, kinds = looks.rows_of(ref, reads.fingerprint(ref)), looks.takes(ref)
    if rows is None and kinds is None:
        reasons = [f"it reads {getattr(model, 'reads', 'tokens')}, which nobody types, and its reference names no task with held-out rows"]
        error = Incompatible("the model lab", f"this {model.family} model", reasons)
        st.info(plain(f"{error} Open it as run:ID of the training that made it, or look at an untrained one as family:{model.family}."))
        return None
    if rows is None:
        st.caption("This reference names no task with held-out rows, so the model is asked about what you give it.")
        return own(ref, kinds, needed=True) if kinds is not None else None
    if rows.warning and not st.toggle("Show rows that may offend", key="shown"):
        st.warning(plain(f"These are {rows.words}. {rows.warning}"))
        return None
    left, right = st.columns(2)
    row = int(left.number_input(f"Row: one of {rows.words}", 0, rows.count - 1, 0, key="row", bind="query-params"))
    with right:
        mine = own(ref, kinds, needed=False) if kinds is not None else None
    return row if mine is None else mine


TEXTS = {"source": "Text to read", "caption": "Caption of the picture", "captions": "Captions to choose from, one a line"}


def own(ref: str, kinds: looks.Takes, *, needed: bool) -> looks.Own | None:
    """What somebody gives the model; None until it is whole. What is not ``needed`` is as in the held-out rows."""
    file, texts, begin = None, "", None
    if kinds.file:
        words = f"{'A' if needed else 'Or a'} file of your own ({', '.join(kinds.file)}; it stays in this server's memory)"
        file = st.file_uploader(words, type=list(kinds.file), key="own")
    if kinds.texts:
        rest = "" if needed else "; empty: as in the held-out rows"
        texts = written(st, f"{TEXTS[kinds.texts]} ({looks.words_for(ref)}{rest})", "", kinds.texts)
    if kinds.begins and needed:
        words = "Id of the token that its decoder begins with (its publisher's decoder_start_token_id)"
        begin = st.number_input(words, 0, reads.vocabulary(reads.model(ref)) - 1, None, key="begin", bind="query-params")
    lacking = (["a file"] if kinds.file and file is None else []) + (["a text"] if kinds.texts and not texts.strip() else [])
    if needed and kinds.begins and begin is None:
        lacking.append("the token it begins with")
    if needed and lacking:
        st.info(f"To look at this model, give it {' and '.join(lacking)}.")
        return None
    if file is None and kinds.file:
        if texts.strip():
            st.info(
                "What you typed is used beside a file of your own. There is none yet, so the held-out row is shown, with its own texts."
            )
        return None
    if file is None and not texts.strip():
        return None
    return looks.keep(file.name if file is not None else "", file.getvalue() if file is not None else b"", texts, begin)


def show_input(ref: str, what: looks.What) -> None:
    if isinstance(what, str):
        st.header("Tokens")
        tokens = live.tokens_of(reads.model(ref), what)
        st.caption(f"{len(tokens.ids)} tokens. A dot stands for a space; ids are those of this model's vocabulary.")
        height = min(38 + 35 * len(tokens.ids), 320)
        st.dataframe(tokens.frame(), hide_index=True, height=height, alt="The prompt's tokens with their ids")
        return
    mine = isinstance(what, looks.Own)
    st.header("Yours" if mine else "Row")
    model = reads.model(ref)
    named = (what.name or "Your text") if isinstance(what, looks.Own) else ""
    about = f"{named}, as this {model.family} model reads it" if mine else f"Row {what} of {model.family}"
    st.markdown(plain(f"{about}: what the model is asked about it is its own answer, so every look below explains that."))
    if mine:
        st.caption(plain(looks.prepared(ref)))
    elif isinstance(what, int):
        text, ids = looks.row_text(ref, what)
        if text:
            st.markdown("**Its text**")
            st.code(text[:MOST_LETTERS], language=None, wrap_lines=True)
        if text and ids:
            st.caption(f"The figures name its tokens by their ids: {' '.join(map(str, ids[:MOST_IDS]))}.")
    st.caption("A picture or a spectrogram is shown under what its parts are worth, below.")


def show_answers(ref: str, what: looks.What) -> None:
    text = isinstance(what, str)
    st.header("Next token" if text else "Answers")
    model = reads.model(ref)
    most = st.slider("How many tokens to list", 2, min(40, reads.vocabulary(model)), 10, key="most", bind="query-params") if text else 10
    found = looks.answers(ref, reads.fingerprint(ref), what, most)
    chart_of(found.plot().to_dict(), found.summary())
    st.caption(plain(found.summary()))
    if getattr(model, "both_ways", False):
        st.caption("This model reads both ways: this is its answer at the last position, not a token that follows.")
    name = "Next tokens" if text else "Answers"
    with st.expander(f"{name} as a table"):
        st.dataframe(found.to_frame(), hide_index=True, alt=f"{name} with their probabilities")


page()
