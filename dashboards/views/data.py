"""Data: the public sets with licence, warning and presence, and how to get one."""

from __future__ import annotations

import streamlit as st

from dashboards import sets
from dashboards.elements import kept, plain, told

STATES = {"here": "✓ here", "not here": "– not here", "wrong": "✗ there, but not what it must be"}


def page() -> None:
    st.set_page_config(page_title="Data · Assay", layout="wide")
    st.title("Data")
    st.markdown(
        "Public sets that suites and tasks read. None is part of the program: each is fetched once, and its content is checked against its "
        "hash. Generated worlds need none of them."
    )
    with told():
        found = sets.listed()
        here = sum(one["state"] == "here" for one in found)
        st.caption(f"{here} of {len(found)} sets are here.")
        st.dataframe(sets.table(found, STATES), hide_index=True, alt="All sets with licence, content, warning and presence")
        names = {one["name"]: one for one in found}
        show(names[kept(st.container(), "set", "Set", list(names))])


def show(one: sets.Facts) -> None:
    st.header(plain(one["name"]))
    if one["warning"]:
        st.warning(plain(f"This set holds {one['warning']}."))
    said = {
        "State": STATES[one["state"]],
        "Content": one["items"],
        "Licence": one["licence"],
        "Source": one["citation"],
        "Page": one["page"],
    }
    st.markdown("\n\n".join(f"**{name}:** {plain(words)}" for name, words in said.items()))
    if one["state"] != "here":
        st.markdown("Where there is a network, this fetches it; else copy it into a folder that `WORKBENCH_DATA_MIRROR` names.")
        st.code(f"workbench data fetch {one['name']}", language=None)
        return
    samples(one)


def samples(one: sets.Facts) -> None:
    """The beginning of a set's files, masked where it warns."""
    st.subheader("Samples")
    with told():
        lines = sets.first_lines(one["name"])
        shown = not one["warning"] or st.toggle("Show the text", key=f"unmask-{one['name']}")
        if not shown:
            st.caption("Masked until asked for: each block is a word.")
        for name, text in lines:
            st.markdown(f"**{plain(name)}**")
            st.code(text if shown else sets.masked(text), language=None, wrap_lines=True)
        if not lines:
            st.caption("Its files are not text that could be shown here.")


page()
