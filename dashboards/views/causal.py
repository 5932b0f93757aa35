"""Causal lab: a clean and a corrupt prompt side by side, a grid of where the difference lies, and what one cell does to the answers."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboards import looks, reads
from dashboards.elements import NO_MODEL, chart_of, kept, plain, told, which_model, written
from dashboards.grid import press
from dashboards.panels import target_of

CLEAN, CORRUPT = "the nurse visited the visitor by the big market because", "the judge visited the visitor by the big market because"
NEAR = 0.1
"""How near to 1 the circuit is that is shown first."""
DIRECTIONS = {
    "denoising": "denoising: run the corrupt prompt, put clean activations in (what is enough)",
    "noising": "noising: run the clean prompt, put corrupt activations in (what is needed)",
}


def page() -> None:
    st.set_page_config(page_title="Causal lab · Assay", layout="wide")
    st.title("Causal lab")
    ref = which_model(looks.models())
    left, right = st.columns(2)
    clean = written(left, "Clean prompt: the model answers as you ask about", CLEAN, "clean")
    corrupt = written(right, "Corrupt prompt: as many tokens, another answer", CORRUPT, "corrupt")
    if not ref:
        st.info(NO_MODEL)
        return
    with told():
        model = reads.model(ref)
        if not looks.typed(ref):
            st.info(plain(f"Two prompts are compared, and this {model.family} model reads no typed text. The model lab shows its rows."))
            return
        if not alignment(ref, clean, corrupt):
            return
        asked = target_of(ref, clean)
        if asked is not None:
            grid(ref, clean, corrupt, asked)
            circuit(ref, clean, corrupt, asked)


def alignment(ref: str, clean: str, corrupt: str) -> bool:
    """Both prompts' tokens; whether there is something to trace."""
    st.header("The two prompts")
    both = looks.aligned(ref, reads.fingerprint(ref), clean, corrupt)
    if both.equal and both.differing:
        st.markdown(plain(both.words()))
    else:
        st.warning(plain(both.words()))
    st.dataframe(looks.laid_out(both), alt="The prompts' tokens beside each other, and where they differ")
    return both.equal and bool(both.differing)


@st.fragment
def grid(ref: str, clean: str, corrupt: str, asked: dict[str, str]) -> None:
    """Layers by positions; a press puts one activation in and shows the answers."""
    st.header("Where the difference lies")
    left, right = st.columns(2)
    component = kept(left, "part", "What is put in", list(looks.COMPONENTS), words=looks.COMPONENTS)
    direction = kept(right, "direction", "Which way", list(DIRECTIONS), words=DIRECTIONS)
    with told():
        fingerprint = reads.fingerprint(ref)
        told_to: dict[str, Any] = {**asked, "corrupt": corrupt, "components": (component,), "direction": direction}
        cells = looks.patching_grid(ref, fingerprint, clean, **told_to)
        layer, pos = place(cells, looks.aligned(ref, fingerprint, clean, corrupt).differing[0])
        rows = len(cells["rows"])

        def chosen(row: int, column: int) -> None:
            st.session_state["at"], st.session_state["pos"] = rows - 1 - row, column

        press(cells, "cells", (rows - 1 - layer, pos), chosen)
        st.caption("A cell is one run: 0 leaves the corrupt answer, 1 brings back the clean one; a dashed border is below zero. Press one.")
        st.text(looks.look(ref, fingerprint, looks.PATCHING, clean, **told_to).summary())
        swapped(ref, clean, corrupt, component=component, direction=direction, layer=layer, pos=pos)
        st.caption("Nothing on this page is kept. This command asks the same and keeps the answer as a run:")
        st.code(reads.again(looks.PATCHING, ref, clean, **told_to), language=None, wrap_lines=True)


def place(cells: dict[str, Any], first: int) -> tuple[int, int]:
    """The chosen layer and position: pressed, or chosen here by name."""
    left, right = st.columns(2)
    layers, columns = range(len(cells["rows"])), cells["columns"]
    layer = kept(left, "at", "Layer", layers)
    words = {i: f"{i}: {name}" for i, name in enumerate(columns)}
    return int(layer), int(kept(right, "pos", "Position", range(len(columns)), first=first, words=words))


def swapped(ref: str, clean: str, corrupt: str, **where: Any) -> None:
    """What the chosen cell does to the answers."""
    st.subheader("The chosen cell")
    with told():
        found = looks.swapped(ref, reads.fingerprint(ref), clean, corrupt, **where)
        st.markdown(plain(found.summary()))
        chart_of(found.plot().to_dict(), found.summary())
        with st.expander("Answers as a table"):
            st.dataframe(found.to_frame(), hide_index=True, alt="Probabilities of the plain run, the patched one, and the one it came from")


@st.fragment
def circuit(ref: str, clean: str, corrupt: str, asked: dict[str, str]) -> None:
    """Which edges between parts carry the difference, as a graph of the size that is chosen."""
    st.header("The circuit")
    if not st.toggle("Find which edges between the model's parts carry the difference", key="circuit", bind="query-params"):
        return
    with told():
        found = looks.circuit(ref, reads.fingerprint(ref), clean, corrupt, **asked)
        sizes = looks.circuit_sizes(found)
        words = {one.edges: one.words for one in sizes}
        near = next((one.edges for one in sizes if abs(one.faithfulness - 1) <= NEAR), sizes[-1].edges)
        chosen = st.select_slider("Edges in the circuit, and how much of the difference they keep", list(words), near,
                                  format_func=words.__getitem__, key=f"edges-{len(words)}")  # fmt: skip
        one = next(one for one in sizes if one.edges == chosen)
        st.markdown(plain(looks.circuit_words(one)))
        chart_of(looks.circuit_drawn(found, one), f"The circuit of {one.edges} edges")
        with st.expander("Edges as a table"):
            st.dataframe(looks.circuit_edges(found, one), hide_index=True, alt="The edges of the circuit, strongest first")
        chart_of(found.plot().to_dict(), "Faithfulness of circuits by size")
        st.caption(
            "Found and run on this one pair of prompts, so it may not hold for others. This command asks the same and keeps it as a run; "
            "texts and corrupt twins can be given again and again, for many pairs:"
        )
        st.code(reads.again("circuit-discovery", ref, clean, corrupt=corrupt, **asked), language=None, wrap_lines=True)


page()
