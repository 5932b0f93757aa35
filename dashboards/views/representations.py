"""Representations: what can be read at each layer beside its controls, directions, and sparse features with what pushing along one does."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboards import inner, looks, reads, shelf
from dashboards.elements import (
    began,
    chart,
    chart_of,
    is_beginning,
    kept,
    link,
    plain,
    told,
    watch_beginning,
    which_model,
    why_not,
    written,
)
from workbench.core.errors import StoreError
from workbench.core.result import Result

EVERY_S, BEGUN = 2, "begun look"
PROMPT = "the nurse visited the visitor by the big market because"
KINDS = {
    inner.READ: "What can be read, layer by layer",
    inner.DIRECTIONS: "Directions of concepts",
    inner.FEATURES: "Sparse features",
}
ABOUT = {
    inner.READ: "A probe that reads a property beyond its controls says that it is there, not that the model uses it. Control tasks give "
    "each word a random label; what a probe reaches on them, or in an untrained network, is memory or architecture.",
    inner.DIRECTIONS: "A direction that tells two sides apart need not move the answer: push along it and see what it costs.",
    inner.FEATURES: "What frozen or random directions reach too is no merit of the dictionary. A feature's examples suggest a name; only a "
    "change of the model can show what it does.",
}


def page() -> None:
    st.set_page_config(page_title="Representations · Assay", layout="wide")
    st.title("Representations")
    with told():
        kind = kept(st.container(), "kind", "What", list(KINDS), words=KINDS)
        st.markdown(ABOUT[kind])
        try:
            found = inner.found(kind)
        except StoreError as error:
            if "there is none" not in str(error):
                raise
            found = ()
        with st.expander("Ask for one", expanded=not found):
            ask(kind)
        why_not(BEGUN)
        if is_beginning(BEGUN):
            begins(st.session_state[BEGUN])
        if not found:
            st.info(
                "Nothing of this kind is stored yet. The form above asks, and so does "
                f"`workbench probe {inner.KINDS[kind][0]} --model REF`."
            )
            return
        show(kind, found)


def ask(kind: str) -> None:
    """A model, an instrument, what is to be different of it, and a button."""
    ref = which_model(looks.models())
    left, right = st.columns(2)
    tools = inner.tools(kind)
    tool = left.selectbox("Instrument", list(tools), format_func=tools.__getitem__, key="tool")
    settings = right.text_input("Settings, as after --set, with spaces between them", placeholder="seed=1", key="settings")
    st.caption(
        "A model of a generated world is asked about its own; for others, `inputs.labels=ud-english-ewt` takes a treebank's words. It runs "
        "in the background and is kept as a run."
    )
    if st.button("Ask in the background", key="begin", disabled=not ref or is_beginning(BEGUN)) and ref:
        with told():
            began(BEGUN, inner.begin(tool, ref, settings))


@st.fragment(run_every=EVERY_S)
def begins(folder: str) -> None:
    """A look this page began, until its result is there."""
    watch_beginning(BEGUN, inner.begun(folder), "of", "Asking.", "It found nothing:")


def show(kind: str, found: tuple[inner.Found, ...]) -> None:
    known = {f"{one.run}/{one.name}": one for one in found}
    asked = st.query_params.get("of", "")
    if asked and asked not in known:  # a run is named, or a result that is gone
        run = shelf.run(asked.partition("/")[0]).id
        st.query_params["of"] = next((name for name, one in known.items() if one.run == run), "")
        if not st.query_params["of"]:
            st.info(plain(f"Run {run} holds no result of this kind; the newest that does is shown."))
    words = {name: f"{one.name} of {one.ref}, run {one.run}, {shelf.when(one.created)}" for name, one in known.items()}
    one = known[kept(st.container(), "of", "Result", list(known), words=words)]
    result = inner.stored(one)
    st.header(plain(f"{one.instrument} of {one.ref}"))
    if (drawing := reads.plot(result)) is not None:
        chart(drawing, result.summary())
    for line in result.summary().splitlines():
        st.markdown(plain(line))
    with st.expander("The numbers as a table"):
        st.dataframe(reads.table(result), hide_index=True, alt=f"The numbers of {one.name}")
    if one.instrument == "concept-direction":
        direction(one, result)
    elif one.instrument == "sparse-dictionary":
        features(one, result)
    link("runs.py", f"Run {one.run}", {"run": one.run})


@st.fragment
def direction(one: inner.Found, result: Result) -> None:
    """One direction, and the model pushed along it."""
    st.header("Push along a direction")
    with told():
        names = inner.choices(result)
        titles = {"site": "Site", "labels": "Concept", "way": "Found as"}
        places = st.columns(3)
        chosen = {name: kept(place, name, titles[name], names[name]) for name, place in zip(titles, places, strict=True)}
        push(one, **chosen)


@st.fragment
def features(one: inner.Found, result: Result) -> None:
    """The features shown, one of them with its examples, and the model pushed along it."""
    st.header("Features")
    with told():
        table = inner.feature_table(result)
        st.dataframe(
            table, hide_index=True, alt="The features that add most, with their strongest example and the answers they raise and lower"
        )
        feature = int(kept(st.container(), "feature", "Feature", [int(number) for number in table["feature"]]))
        st.subheader(f"Where feature {feature} is strongest")
        st.dataframe(inner.examples(result, feature), hide_index=True, alt=f"The strongest examples of feature {feature}")
        st.header("Push along it")
        push(one, feature=feature)


def push(one: inner.Found, **where: Any) -> None:
    """A prompt, a dose, and the answers before and after."""
    if one.ref.startswith("endpoint:") or not one.ref:
        st.caption("This model cannot be opened from here, so it cannot be pushed.")
        return
    text = written(st, "Prompt", PROMPT, "prompt")
    dose = st.slider(
        "How far: 1 is as far as the model itself goes (towards less away)", -8.0, 8.0, 0.0, 0.5, key="dose", bind="query-params"
    )
    if dose == 0:
        st.caption("At dose 0 nothing is changed. Move the slider: then the answers before and after stand here.")
        return
    with told():
        changed = inner.pushed(one.run, one.name, reads.fingerprint(one.ref), one.ref, text, float(dose), 12, **where)
        chart_of(changed.plot().to_dict(), changed.summary())
        st.markdown(plain(changed.summary()))
        if "written" in changed.values:
            for side, when, ending in zip(st.columns(2), ("before", "after"), changed.values.written.values.tolist(), strict=True):
                side.markdown(f"**Written {when}**")
                side.code(f"{text}{ending}", language=None, wrap_lines=True)


page()
