"""The parts of the model lab: each asks about one model and one prompt (or row), by itself, so that a change in one runs only that one."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboards import looks, reads
from dashboards.elements import chart_of, pick, plain, told
from dashboards.grid import press
from dashboards.pattern import pattern
from workbench.core.charts.heat import shown
from workbench.lab import heads, live, pokes

NO_FOIL = "no foil"
TABLED, MOST_WORDS = 128, 512
"""Tokens up to which a pattern is also a table, and up to which what one position reads is drawn."""
ROLLOUT = "attention-rollout"


# --- attention --------------------------------------------------------------------------------------------------


@st.fragment
def attention(ref: str, what: looks.What) -> None:
    """All heads small, one large, and what one position reads."""
    with told():
        fingerprint, found = reads.fingerprint(ref), looks.stacks(ref)
        stack = 0
        if len(found) > 1:
            stack = st.selectbox("Stack", range(len(found)), format_func=lambda i: found[i].words, key="stack", bind="query-params")
        views = looks.all_heads(ref, fingerprint, what, stack)
        layers = views.stack.layers
        left, right = st.columns([2, 3], gap="large")
        with left:
            across, down = st.columns(2)
            layer = across.selectbox("Layer", layers, key="layer", bind="query-params")
            number = down.selectbox("Head", range(views.heads), key="head", bind="query-params")

            def chosen(row: int, column: int) -> None:
                st.session_state["layer"], st.session_state["head"] = layers[row], column

            press(views.grid(), f"heads-{stack}", (layers.index(layer), number), chosen, side=small(views.heads))
            st.caption("One picture a head: rows read, columns are read from; press one to see it large.")
        with right:
            one_head(ref, fingerprint, what, stack, (layer, number), views.width)
        with told():
            rollout(ref, fingerprint, what)


def small(count: int) -> int:
    """Pixels of a small picture, so that a row of them is no wider than its column."""
    return max(24, min(56, 220 // max(1, count)))


def one_head(ref: str, fingerprint: str, what: looks.What, stack: int, place: tuple[int, int], width: int) -> None:
    if looks.over_picture(ref, fingerprint, what, stack, place):
        chart_of(looks.head_drawn(ref, fingerprint, what, stack, place), f"Attention of layer {place[0]}, head {place[1]}.")
        one_position(ref, fingerprint, what, stack, place, width)
    else:
        pattern(looks.head_view(ref, fingerprint, what, stack, place), f"pattern-{stack}")
    st.caption(
        "Each row is a token and says how much it reads from each; a row adds up to one. A weight says where a head reads, not what it "
        "does with it."
    )
    if isinstance(what, str) and width <= TABLED:
        unfolded = st.expander("Attention as a table", key="attention-table", on_change="rerun")
        if unfolded.open:  # closed, it is neither made nor sent
            table = live.attention_table(looks.head(ref, fingerprint, what, stack, place))
            unfolded.dataframe(table, alt="Attention weights: a row a reading token, a column a token read from")


def one_position(ref: str, fingerprint: str, what: looks.What, stack: int, place: tuple[int, int], width: int) -> None:
    if width > MOST_WORDS:
        st.caption(f"What one position reads is drawn for up to {MOST_WORDS} of them.")
        return
    query = st.number_input("Position that reads", 0, width - 1, width - 1, key=f"query-{width}")
    chart_of(looks.reading(ref, fingerprint, what, stack, place, int(query)), f"What position {query} reads")


def rollout(ref: str, fingerprint: str, what: looks.What) -> None:
    if not st.toggle("Follow attention back through all layers (rollout)", key="rollout", bind="query-params"):
        return
    if isinstance(what, str) and looks.all_heads(ref, fingerprint, what, 0).width > heads.MAPPED:
        st.caption(f"Rollout is drawn for up to {heads.MAPPED} tokens.")
        return
    result = looks.look(ref, fingerprint, ROLLOUT, what)
    chart_of(looks.drawn(ref, fingerprint, ROLLOUT, what), result.summary())
    st.caption("Rollout multiplies the heads' averages layer by layer: where attention can carry something from, not what it carries.")


# --- attribution ------------------------------------------------------------------------------------------------


def target_of(ref: str, what: looks.What, *, foil: bool = True) -> dict[str, str] | None:
    """Target and foil, chosen or typed; {} for a row, which is asked about its own answer; None where nothing is chosen."""
    if not isinstance(what, str):
        return {}
    model = reads.model(ref)
    found = looks.answers(ref, reads.fingerprint(ref), what, min(10, reads.vocabulary(model)))
    # tokens are passed as they are shown: a token with a space would come back from the browser without it
    listed = [shown(answer) for answer in live.answers(model, what, found)]
    left, right = st.columns(2) if foil else (st.container(), st.container())
    target = pick(left, "target", "Target: the token asked about", listed, about=(ref, what))
    foils = [NO_FOIL, *(one for one in listed if one != target)]
    against = pick(right, "foil", "Foil: what it is contrasted with", foils, about=(ref, what), first=1) if foil else ""
    if not target:
        st.info("No listed token can follow the prompt as text. Type a target.")
        return None
    contrast = against not in ("", NO_FOIL)
    words = {"target": live.typed_token(target), "foil": live.typed_token(against) if contrast else ""}
    return {**words, "quantity": "logit-difference" if contrast else "logit"}


@st.fragment
def attribution(ref: str, what: looks.What) -> None:
    """Integrated gradients, whether they add up, and what they are worth beside random ones."""
    st.caption(
        "Integrated gradients: how much each token moved the answer, on the way from a baseline to the prompt. "
        "Target and foil are chosen or typed; a dot at an end stands for a space."
    )
    with told():
        asked = target_of(ref, what)
        if asked is None:
            return
        if isinstance(what, str):
            ways = list(reads.BASELINES)
            words = "Baseline: where the way begins"
            asked["baseline"] = st.selectbox(words, ways, format_func=reads.BASELINES.__getitem__, key="baseline", bind="query-params")
        fingerprint = reads.fingerprint(ref)
        result = looks.look(ref, fingerprint, live.ATTRIBUTION, what, **asked)
        chart_of(looks.drawn(ref, fingerprint, live.ATTRIBUTION, what, **asked), result.summary())
        for sentence in live.completeness(result):
            st.markdown(plain(sentence))
        with st.expander("Attribution as a table"):
            st.dataframe(live.attribution_table(result), hide_index=True, alt="Attribution of each token")
        worth(ref, what, asked)
        if isinstance(what, str):
            st.caption("Nothing on this page is kept. This command asks the same and keeps the answer as a run:")
            st.code(live.again(live.ATTRIBUTION, ref, what, **asked), language=None, wrap_lines=True)


def worth(ref: str, what: looks.What, asked: dict[str, str]) -> None:
    """The attribution's quality, once it is asked for: it takes many runs."""
    if not st.toggle("What this attribution is worth, beside random ones", key="worth", bind="query-params"):
        return
    with told():
        own = {name: asked[name] for name in ("target", "foil", "quantity") if name in asked}
        settings = {"baseline": asked["baseline"]} if "baseline" in asked else {}
        told_to = {**own, "method": live.ATTRIBUTION, "settings": settings, "randomise": "whole"}
        result = looks.look(ref, reads.fingerprint(ref), looks.QUALITY, what, **told_to)
        alt = "Each measure of this attribution beside random ones"
        st.dataframe(reads.quality_table(result), hide_index=True, alt=alt)
        st.caption("Random ones are its own numbers dealt to other tokens. A measure that random ones reach as well says nothing.")


# --- the stream ---------------------------------------------------------------------------------------------------


@st.fragment
def logit_lens(ref: str, what: looks.What) -> None:
    """What the model would answer if it stopped at each place."""
    st.caption(
        "The model's own read-out at every place of its stream. No layer was trained to be read so: it may hold more than this says."
    )
    with told():
        fingerprint = reads.fingerprint(ref)
        grid = looks.lens_grid(ref, fingerprint, what)
        held = st.session_state.get("place")
        inside = held is not None and held[0] < len(grid["rows"]) and held[1] < len(grid["columns"])
        row, column = held if held is not None and inside else (0, len(grid["columns"]) - 1)

        def chosen(row: int, column: int) -> None:
            st.session_state["place"] = (row, column)

        press(grid, "lens", (row, column), chosen)
        words, frame = reads.lens_place(looks.look(ref, fingerprint, reads.LENS, what), row, column)
        st.markdown(plain(words))
        st.dataframe(frame, hide_index=True, alt="The likeliest answers at the chosen place")


@st.fragment
def direct(ref: str, what: looks.What) -> None:
    """How much each part writes straight into the answer."""
    with told():
        asked = target_of(ref, what)
        if asked is None:
            return
        fingerprint = reads.fingerprint(ref)
        result = looks.look(ref, fingerprint, reads.DIRECT, what, **asked)
        chart_of(looks.drawn(ref, fingerprint, reads.DIRECT, what, **asked), result.summary())
        st.text(result.summary())
        st.caption("What a part does through later parts is not in its share.")


# --- changes --------------------------------------------------------------------------------------------------------


@st.fragment
def change(ref: str, what: looks.What) -> None:
    """Heads and neurons taken out and the stream pushed, before and after."""
    with told():
        model, fingerprint = reads.model(ref), reads.fingerprint(ref)
        parts = st.multiselect(
            "Take out: heads such as L0H1, or type neurons such as L1N20", heads_of(ref), accept_new_options=True, key="out",
            bind="query-params", placeholder="nothing is taken out",
        )  # fmt: skip
        push = which_push(ref) if isinstance(what, str) and not len(looks.stacks(ref)) > 1 else None
        writes = isinstance(what, str) and "generate" in model.abilities
        write = st.slider("Tokens to write, before and after", 0, 48, 12, key="write", bind="query-params") if writes else 0
        if not parts and push is None:
            st.info("Choose something to take out, or a dose to push with: then the answers before and after stand here.")
            return
        found = looks.changed(ref, fingerprint, what, tuple(parts), push, write)
        chart_of(found.plot().to_dict(), found.summary())
        st.markdown(plain(found.summary()))
        if "written" in found.values:
            for side, when, text in zip(st.columns(2), ("before", "after"), found.values.written.values.tolist(), strict=True):
                side.markdown(f"**Written {when}**")
                side.code(f"{what}{text}", language=None, wrap_lines=True)
        elif writes is False:
            st.caption("Nothing is written: this model, or this input, does not go on as text.")


def heads_of(ref: str) -> list[str]:
    """All heads by name; of several stacks, those that write the answer."""
    stack = [one for one in looks.stacks(ref) if not one.cross][-1]
    prefix = f"{stack.name}." if stack.name else ""
    count = live.heads_in(reads.model(ref), stack.name)
    return [f"{prefix}L{layer}H{number}" for layer in stack.layers for number in range(count)]


def which_push(ref: str) -> pokes.Push | None:
    """A direction from two texts, and how far to go; None at dose 0."""
    stack = looks.stacks(ref)[0]
    dose = st.slider("Push the stream by so many times (towards less away)", -8.0, 8.0, 0.0, 0.5, key="dose", bind="query-params")
    if dose == 0:
        return None
    towards, away, layer = st.columns(3)
    first = towards.text_input("Towards", "the queen said that she", key="towards", bind="query-params")
    second = away.text_input("Away from", "the king said that he", key="away", bind="query-params")
    at = layer.selectbox("After layer", stack.layers, key="pushed", bind="query-params")
    return pokes.Push(int(at), first, second, float(dose))


PANELS: dict[str, Callable[[str, looks.What], None]] = {
    "Attention": attention,
    "Attribution": attribution,
    "Logit lens": logit_lens,
    "Direct contributions": direct,
    "Change it": change,
}
