"""What the page of data sets reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from workbench.lab import datasets, samples

Facts = dict[str, Any]


def listed() -> list[Facts]:
    """Every registered set."""
    return datasets.listed()


def table(found: Sequence[Facts], states: Mapping[str, str]) -> pd.DataFrame:
    """One row a set."""
    rows = [
        (one["name"], states[one["state"]], one["items"], one["licence"], one["warning"] or "none", f"{one['bytes'] / 1e6:,.1f} MB")
        for one in found
    ]
    return pd.DataFrame(rows, columns=pd.Index(["set", "state", "content", "licence", "warning", "size"]))


@st.cache_data(show_spinner="Reading the set …", max_entries=8)
def first_lines(name: str) -> list[tuple[str, str]]:
    """The beginning of each text file of a set."""
    return datasets.first_lines(name)


def masked(text: str) -> str:
    """The length of each line, and nothing of what it says."""
    return "\n".join(samples.masked(line) for line in text.splitlines())
