"""What the pages of suites and comparisons read: samples, groups, the worst of them, and pairs. Each is kept while it is looked at.

A finished run's samples never change; those of a running one are read again.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st
from pandas import DataFrame as DataFrame

from dashboards import shelf
from workbench.core.finding import Finding
from workbench.lab import compare, curves, samples
from workbench.lab.compare import Comparison as Comparison
from workbench.lab.compare import Difference as Difference
from workbench.store.records import RunRecord

KINDS = ("eval", "audit")
FIXED = samples.FIXED


def evaluations() -> tuple[RunRecord, ...]:
    """The runs that hold samples of suites, newest first."""
    return tuple(one for one in shelf.runs() if one.kind in KINDS and shelf.store().sample_counts(one.id))


def suites_of(run: str) -> dict[str, int]:
    """The suites of a run with how many samples are committed."""
    return shelf.store().sample_counts(run)


def table(record: RunRecord, suite: str) -> pd.DataFrame:
    """All samples of a suite."""
    count = suites_of(record.id).get(suite, 0)
    return _table(record.id, suite, count, shelf.store().where)


@st.cache_resource(show_spinner="Reading the samples …", max_entries=8)
def _table(run: str, suite: str, count: int, where: str) -> pd.DataFrame:
    del count, where
    return samples.sample_table(shelf.store(), run, suite)


def numbers(found: pd.DataFrame) -> list[str]:
    """Its columns of numbers."""
    return samples.numbers(found)


def lost(found: pd.DataFrame) -> dict[str, int]:
    """How many samples have no score, by reason."""
    reasons = [str(reason) for reason in found["unscored"] if reason]
    return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}


def group_names(found: pd.DataFrame) -> list[str]:
    """The groups that samples are in."""
    return sorted({str(group) for group in found["group"] if group})


def in_group(found: pd.DataFrame, group: str) -> pd.DataFrame:
    """The samples of one group ('' for all)."""
    return found if not group else found.loc[found["group"] == group]


def groups(found: pd.DataFrame, value: str) -> pd.DataFrame:
    """The mean of each group with its interval."""
    return samples.by_group(found, value)


@st.cache_resource(show_spinner=False, max_entries=32)
def dots(run: str, suite: str, value: str, _found: pd.DataFrame, count: int) -> dict[str, Any]:
    """The same as a chart, written out; of a run that goes on drawn again when there are more."""
    del run, suite, count
    return samples.dots(_found, value).to_dict()


def worst(found: pd.DataFrame, value: str, *, lowest: bool) -> pd.DataFrame:
    """The samples at one end."""
    return samples.worst(found, value, lowest=lowest)


@st.cache_resource(show_spinner="Making the sample again …", max_entries=64)
def asked(run: str, suite: str, sample: str) -> samples.AskedOf:
    """What the model was asked about a sample."""
    return samples.asked_of(shelf.store(), run, suite, sample)


def warning(suite: str) -> str:
    """What a reader may meet in a suite's samples, or ''."""
    return samples.warning_of(suite)


def masked(text: str) -> str:
    """The length of a text, and nothing of what it says."""
    return samples.masked(text)


def findings_of(run: str, suite: str) -> tuple[Finding, ...]:
    """The findings that a suite gave."""
    named = samples.suite_named(suite)
    found = [one for one in shelf.findings(run) if one.source in (named, f"suite {named}")]
    subject = {"audited": 0, "reference": 1}.get(suite.rpartition(".")[2])
    subjects = list(dict.fromkeys(one.subject for one in found))
    if subject is None or len(subjects) < 2:
        return tuple(found)
    audited = shelf.run(run).ref
    return tuple(one for one in found if (one.subject == audited) == (subject == 0))


def has_ways(run: str, suite: str) -> bool:
    """Whether a run's suite can be scored in several reasonable ways."""
    return curves.can_be_scored(run, suite, store=shelf.store())


@st.cache_resource(show_spinner="Scoring in every way …", max_entries=8)
def ways(run: str, suite: str, digest: str) -> dict[str, curves.ShownCurve]:
    """The curve of each of the suite's questions."""
    del digest
    return {str(one.result.values.attrs["question"]): one for one in curves.curves_of(run, suite, store=shelf.store())}


def curve(run: str, suite: str) -> dict[str, curves.ShownCurve]:
    """The same, scored again where the stored result is another."""
    return ways(run, suite, shelf.store().result_digests(run)[suite])


@st.cache_resource(show_spinner="Comparing sample by sample …", max_entries=8)
def comparison(first: str, second: str, suite: str, counts: tuple[int, int]) -> compare.Comparison:
    """Two runs of one suite."""
    del counts  # a run that goes on is compared again
    return compare.compare(first, second, suite, store=shelf.store())


def meaning(found: compare.Difference) -> str:
    """A difference in a sentence."""
    return compare.means(found)


def differences_drawn(found: compare.Comparison) -> Any:
    """The differences as a forest plot."""
    return compare.drawn(found)


@st.cache_resource(show_spinner=False, max_entries=16)
def discordant(first: str, second: str, suite: str, value: str) -> pd.DataFrame:
    """The samples the two runs value differently."""
    return samples.discordant(shelf.store(), (first, second), suite, value)
