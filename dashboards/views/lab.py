"""Lab: one model, one prompt; its tokens, what it expects next, where its heads look, and what moved the answer."""

from __future__ import annotations

import streamlit as st

from dashboards import reads
from dashboards.elements import NO_MODEL, chart, pick, plain, told, which_model
from workbench.core.charts.heat import shown
from workbench.core.protocol import HookedModel
from workbench.lab import live

PROMPT = "the nurse visited the visitor by the big market because"  # a sentence of the town, which the shipped models know
NO_FOIL = "no foil"


def page() -> None:
    st.set_page_config(page_title="Lab · Assay", layout="wide")
    st.title("Lab")
    ref = which_model(reads.models())
    text = st.text_area("Prompt", PROMPT, key="prompt", height=80)
    if not ref:
        st.info(NO_MODEL)
        return
    with told():
        model = reads.model(ref)
        shape = live.shape_of(model)
        left, right = st.columns([2, 3], gap="large")
        with left:
            show_tokens(model, text)
        with right:
            answers = show_next(ref, model, text)
        with told():
            show_attention(ref, shape, text)
        with told():
            show_attribution(ref, text, answers)


def show_tokens(model: HookedModel, text: str) -> None:
    st.header("Tokens")
    tokens = live.tokens_of(model, text)
    st.caption(f"{len(tokens.ids)} tokens. A dot stands for a space; ids are those of this model's vocabulary.")
    st.dataframe(tokens.frame(), hide_index=True, height=min(38 + 35 * len(tokens.ids), 320), alt="The prompt's tokens with their ids")


def show_next(ref: str, model: HookedModel, text: str) -> tuple[str, ...]:
    st.header("Next token")
    most = st.slider("How many tokens to list", 2, min(40, reads.vocabulary(model)), 10, key="most")
    found = reads.next_tokens(ref, reads.fingerprint(ref), text, most)
    chart(found.plot(), found.summary())
    st.caption(plain(found.summary()))
    with st.expander("Next tokens as a table"):
        st.dataframe(found.to_frame(), hide_index=True, alt="Next tokens with their probabilities")
    return live.answers(model, text, found)


def show_attention(ref: str, shape: live.Shape, text: str) -> None:
    st.header("Attention")
    left, right = st.columns(2, width=420)
    layer = left.selectbox("Layer", shape.layers, key="layer")
    head = right.selectbox("Head", range(shape.heads), key="head")
    result = reads.look(ref, reads.fingerprint(ref), live.ATTENTION, text, layers=(layer,), heads=(head,))
    chart(result.plot(), f"Attention of layer {layer}, head {head}. {result.summary()}")
    st.caption(
        "Each row is a token and says how much it reads from each earlier one; a row adds up to one. "
        "A weight says where a head reads, not what it does with it."
    )
    with st.expander("Attention as a table"):
        st.dataframe(live.attention_table(result), alt="Attention weights: a row a reading token, a column a token read from")


def show_attribution(ref: str, text: str, answers: tuple[str, ...]) -> None:
    st.header("Attribution")
    st.caption(
        "Integrated gradients: how much each token moved the answer, on the way from a baseline to the prompt. "
        "Target and foil are chosen or typed; a dot at an end stands for a space."
    )
    left, middle, right = st.columns(3)
    # tokens are passed as they are shown: a token with a space would come back from the browser without it
    listed = [shown(answer) for answer in answers]
    target = pick(left, "target", "Target: the token asked about", listed, about=(ref, text))
    foils = [NO_FOIL, *(one for one in listed if one != target)]
    foil = pick(middle, "foil", "Foil: what it is contrasted with", foils, about=(ref, text), first=1)
    baseline = right.selectbox(
        "Baseline: where the way begins", list(reads.BASELINES), format_func=reads.BASELINES.__getitem__, key="baseline"
    )
    if not target:
        st.info("No listed token can follow the prompt as text. Type a target.")
        return
    contrast = foil not in ("", NO_FOIL)
    words = {"target": live.typed_token(target), "foil": live.typed_token(foil) if contrast else ""}
    asked = {**words, "baseline": baseline, "quantity": "logit-difference" if contrast else "logit"}
    result = reads.look(ref, reads.fingerprint(ref), live.ATTRIBUTION, text, **asked)
    chart(result.plot(), result.summary())
    for sentence in live.completeness(result):
        st.markdown(plain(sentence))
    with st.expander("Attribution as a table"):
        st.dataframe(live.attribution_table(result), hide_index=True, alt="Attribution of each token")
    st.caption("Nothing on this page is kept. This command asks the same and keeps the answer as a run:")
    st.code(live.again(live.ATTRIBUTION, ref, text, **asked), language=None, wrap_lines=True)


page()
