"""Calibration: which instrument to trust for which question, how small a thing each can see, and how often it sees what is not there."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboards import reads
from dashboards.elements import chart, plain, told
from workbench.core.finding import Card


def page() -> None:
    st.set_page_config(page_title="Calibration · Assay", layout="wide")
    st.title("Calibration")
    st.markdown(
        "Every tool below was asked about models whose truth was planted, at several doses, and about clean twins in which the same thing "
        "stands and does nothing. A tool that names it there raises a false alarm."
    )
    with told():
        cards = reads.cards()
        exams = reads.exams(cards)
        names = list(exams)
        asked = st.query_params.get("exam", names[0])
        place = names.index(asked) if asked in names else 0
        chosen = st.selectbox("Question", names, index=place, format_func=lambda name: f"{name}: {exams[name]}", key="exam")
        st.query_params["exam"] = chosen
        show([card for card in cards if (card.exam or reads.TOWN) == chosen])
        without(cards)


def show(cards: list[Card]) -> None:
    table = reads.atlas(cards)
    st.header("At a glance")
    height = min(38 + 35 * len(table), 700)
    st.dataframe(table, hide_index=True, height=height, alt="One row a card: how well, how often wrongly, how small")
    if any(card.limit_of_detection is not None and card.limit_interval for card in cards):
        st.header("How small a thing is seen")
        chart(reads.limits_drawn(cards), "Limits of detection with their intervals, one row a tool and family")
    st.header("One card")
    labels = reads.card_labels(cards)
    asked = st.query_params.get("card", labels[0])
    place = labels.index(asked) if asked in labels else 0
    label = st.selectbox("Card", labels, index=place, key="card")
    st.query_params["card"] = label
    card = cards[labels.index(label)]  # no two labels are alike
    st.caption(plain(card.conditions))
    if card.curve:
        chart(reads.response_drawn(card), "The share of cases found at each dose")
    for line in reads.card_lines(card):
        st.markdown(f"- {plain(line)}")
    if card.of_one_model:
        st.code(f"workbench calibrate {card.of} --model REF", language="sh")
    elif card.exam:
        st.code(f"workbench calibrate {card.of} --exam {card.exam} --family {card.family} --again", language="sh")


def without(cards: Sequence[Card]) -> None:
    """What no card speaks of, whichever exam is looked at."""
    if lines := reads.uncarded(cards):
        st.header("Without a card")
        st.caption(plain(lines[0]))
        for line in lines[1:]:
            st.markdown(f"- {plain(line)}")


page()
