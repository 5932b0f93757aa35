"""Instruments: any of the catalogue, asked about one prompt; every field of its spec can be set, and nothing is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboards import looks, reads
from dashboards.elements import NO_MODEL, chart, pick, plain, told, which_model
from workbench.core.charts.heat import shown
from workbench.core.measure import Instrument
from workbench.lab import asking, live

PROMPT, TWIN = "the nurse visited the visitor by the big market because", "the judge visited the visitor by the big market because"
FIRST = "activation-patching"


def page() -> None:
    st.set_page_config(page_title="Instruments · Assay", layout="wide")
    st.title("Instruments")
    ref = which_model(looks.models())
    if not ref:
        st.info(NO_MODEL)
        return
    with told():
        name = which_instrument(reads.offers(ref, reads.fingerprint(ref)))
        left, right = st.columns([2, 3], gap="large")
        with left:
            asked = ask_for(ref, name, reads.instrument(name))
        with right, told():
            show(ref, name, asked)


def which_instrument(offers: Sequence[asking.Offer]) -> str:
    said = {one.name: f"{one.name} ({one.status}): {one.words}" + (" [not this model]" if one.against else "") for one in offers}
    names = list(said)
    name = st.selectbox("Instrument", names, format_func=said.__getitem__, index=names.index(FIRST), key="instrument")
    against = next(one.against for one in offers if one.name == name)
    if against:
        st.warning(plain(f"This model cannot be asked: {against}."))
    return name


def ask_for(ref: str, name: str, tool: Instrument) -> dict[str, Any]:
    """What the instrument is to be told: texts and tokens where it reads any, and its changed fields."""
    asked: dict[str, Any] = {}
    if tool.needs.inputs:
        asked["text"] = st.text_area("Prompt", PROMPT, key="prompt", height=80)
        if "replacement" in tool.spec.model_fields:
            asked["corrupt"] = st.text_area("Corrupt prompt, of as many tokens (where one is needed)", TWIN, key="corrupt", height=80)
    typed = settings(name, tool)
    fields = asking.changed(tool, typed)
    if fields.get("replacement", "counterfactual") == "zero":
        asked.pop("corrupt", None)
    if "targets" in tool.needs.inputs:
        asked |= answers(ref, asked["text"], contrast=typed.get("quantity") == "logit-difference")
    return {**asked, **fields}


def answers(ref: str, text: str, *, contrast: bool) -> dict[str, str]:
    """Target and, where two are contrasted, foil: from what the model expects next, or typed."""
    found = reads.next_tokens(ref, reads.fingerprint(ref), text, min(10, reads.vocabulary(reads.model(ref))))
    listed = [shown(one) for one in live.answers(reads.model(ref), text, found)]
    left, right = st.columns(2)
    target = pick(left, "target", "Target: the token asked about", listed, about=(ref, text))
    out = {"target": live.typed_token(target)}
    if contrast:
        foils = [one for one in listed if one != target]
        out["foil"] = live.typed_token(pick(right, "foil", "Foil: what it is contrasted with", foils, about=(ref, text)))
    return out


def settings(name: str, tool: Instrument) -> dict[str, Any]:
    """A widget a field; those that are seldom changed behind a fold."""
    fields = asking.fields_of(tool)
    typed = {field.name: widget(name, field) for field in fields if field.name not in asking.ASIDE}
    with st.expander("Further settings"):
        typed |= {field.name: widget(name, field) for field in fields if field.name in asking.ASIDE}
    return typed


def widget(name: str, field: asking.Asked) -> Any:
    key, words = f"{name}.{field.name}", field.name.replace("_", " ")
    if field.kind == "choice":
        index = field.choices.index(field.default) if field.default in field.choices else 0
        return st.selectbox(words, field.choices, index=index, help=field.words, key=key)
    if field.kind == "flag":
        return st.checkbox(words, bool(field.default), help=field.words, key=key)
    if field.kind == "count":
        return st.number_input(words, value=int(field.default), step=1, help=field.words, key=key)
    if field.kind == "number":
        return st.number_input(words, value=float(field.default), format="%g", help=field.words, key=key)
    return st.text_input(words, field.shown(), help=field.words, placeholder="left out", key=key)


def show(ref: str, name: str, asked: dict[str, Any]) -> None:
    """The answer, once it was asked for; touching a field asks nothing by itself."""
    told_to, question = {"text": "", **asked}, (ref, name, repr(sorted(asked.items())))
    if st.button("Ask the model", type="primary", key="ask"):
        st.session_state["asked"] = question
    if st.session_state.get("asked") != question:
        st.caption("Nothing is computed until you ask.")
        return
    text = told_to.pop("text")
    result = reads.look(ref, reads.fingerprint(ref), name, text, **told_to)
    drawing = reads.plot(result)
    if drawing is not None:
        chart(drawing, result.summary())
    st.markdown(plain(result.summary()))
    for note in result.notes:
        st.caption(plain(note))
    with st.expander("As a table"):
        st.dataframe(reads.table(result), hide_index=True, alt=f"All numbers of {name}")
    st.caption("Nothing on this page is kept. This command asks the same and keeps the answer as a run:")
    st.code(live.again(name, ref, text, **told_to), language=None, wrap_lines=True)


page()
