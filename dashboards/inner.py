"""What the page of representations reads: stored results about a model's inner vectors, and the model pushed along one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dashboards import reads, shelf
from workbench.core.result import Result
from workbench.lab import catalogs, jobs, representations
from workbench.lab.allowed import check_reference, check_settings
from workbench.lab.pokes import Changed
from workbench.lab.representations import Found as Found
from workbench.lab.settings import read_settings
from workbench.lab.started import words_of
from workbench.store.runs import Store

KINDS = representations.KINDS
READ, DIRECTIONS, FEATURES = representations.READ, representations.DIRECTIONS, representations.FEATURES


def found(kind: str) -> tuple[Found, ...]:
    """The stored results of a kind, newest first."""
    return representations.found(shelf.store(), kind)


@st.cache_resource(show_spinner="Reading the result …", max_entries=16)
def result(run: str, name: str, where: str) -> Result:
    """One stored result, checked against its digest; a stored one never changes."""
    del where
    return reads.result(run, name)


def stored(one: Found) -> Result:
    """The result of what was found."""
    return result(one.run, one.name, shelf.store().where)


def feature_table(of: Result) -> pd.DataFrame:
    """The features shown, one row each."""
    return representations.feature_table(of)


def examples(of: Result, feature: int) -> pd.DataFrame:
    """Where one feature is strongest."""
    return representations.examples_of(of, feature)


def choices(of: Result) -> dict[str, list[str]]:
    """What a direction is named by."""
    return representations.choices_of(of)


@st.cache_resource(show_spinner="Running it pushed …", max_entries=32)
def pushed(run: str, name: str, fingerprint: str, ref: str, text: str, dose: float, write: int, **where: Any) -> Changed:
    """The model pushed along a feature or a direction of a stored result."""
    del fingerprint
    of, model = result(run, name, shelf.store().where), reads.model(ref)
    if "feature" in where:
        found_store = shelf.store_if_any()
        check_settings({"dictionary": of.spec["dictionary"]}, found_store.home if found_store is not None else None)
        return representations.along_feature(model, text, of, where["feature"], dose, write=write)
    return representations.along_direction(model, text, of, dose, write=write, **where)


def tools(kind: str) -> dict[str, str]:
    """The instruments of a kind with their words."""
    known = catalogs.instruments()
    return {name: f"{name}: {known[name].words}" for name in KINDS[kind]}


def begin(instrument: str, ref: str, settings: str) -> str:
    """Ask one in a process of its own; the folder of its job. Makes the store where there is none yet."""
    home = shelf.store_if_any()
    place = home.home if home is not None else None
    check_reference(ref, place)
    check_settings(read_settings(words_of(settings)), place)
    with Store.open() as made:
        return str(representations.begin(made, instrument, ref, settings))


def begun(folder: str) -> jobs.Status:
    """How a job that was started here stands."""
    return jobs.read_status(Path(folder))
