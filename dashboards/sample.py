"""One sample of a suite on a page: what was asked, masked where the set warns, and a link that opens the lab with it."""

from __future__ import annotations

import streamlit as st

from dashboards import scores
from dashboards.elements import link, plain, told

MOST_LETTERS, MOST_PARTS = 4000, 8


def show_sample(run: str, ref: str, suite: str, sample: str) -> None:
    """The sample's parts. What a warned set holds is masked until it is asked for, and never stands in the address."""
    with told():
        warning = scores.warning(suite)
        found = scores.asked(run, suite, sample)
        shown = not warning
        if warning:
            st.warning(plain(f"Texts of this set hold {warning}. They are masked."))
            shown = st.toggle("Show the text", key=f"unmask-{run}-{suite}")
        for what, text in found.parts[:MOST_PARTS]:
            st.markdown(f"**{plain(what[:1].upper() + what[1:])}**")
            st.code(text[:MOST_LETTERS] if shown else scores.masked(text), language=None, wrap_lines=True)
        if len(found.parts) > MOST_PARTS:
            st.caption(f"And {len(found.parts) - MOST_PARTS:,} more that were asked about this sample.")
        if ref.startswith("endpoint:"):
            st.caption("The model answers through a server and shows no insides, so there is no lab for it.")
        elif shown and not warning:
            link("lab.py", "Open this sample in the model lab", {"model": ref, "prompt": found.prompt[:MOST_LETTERS]})
        elif shown:
            st.caption("Copy the text into the model lab to look inside: a warned text is not put into an address.")
