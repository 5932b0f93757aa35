"""Suites: what a suite found in a run, in every way it can be scored, by group, the worst samples, and each with a way into the lab."""

from __future__ import annotations

import streamlit as st

from dashboards import scores, shelf
from dashboards.elements import chart, chart_of, kept, plain, told
from dashboards.sample import show_sample
from workbench.core.errors import StoreError
from workbench.store.records import RunRecord

MOST_OFFERED = 300
ENDS = {"lowest": "lowest first", "highest": "highest first"}
NONE = "There are no evaluated suites yet. `workbench eval occupation-pronoun --model REF` makes a run, and so does every audit."


def page() -> None:
    st.set_page_config(page_title="Suites · Assay", layout="wide")
    st.title("Suites")
    try:
        records = scores.evaluations()
    except StoreError as error:
        if "there is none" not in str(error):
            st.error(plain(str(error)))
        else:
            st.info(plain(str(error)) + " " + NONE)
        return
    if not records:
        st.info(NONE)
        return
    with told():
        asked = st.query_params.get("run", "")
        ids = [shelf.run(asked).id] if asked else []
        if ids and ids[0] not in [record.id for record in records]:
            st.info(plain(f"Run {ids[0]} holds no samples of a suite; the newest run that does is shown."))
            st.query_params.pop("run")
        known = {record.id: record for record in records}
        words = {one.id: shelf.entry(one) for one in records}
        run = known[kept(st.container(), "run", "Run", list(known), words=words)]
        counts = scores.suites_of(run.id)
        sized = {name: f"{name} ({count:,} samples)" for name, count in counts.items()}
        suite = kept(st.container(), "suite", "Suite", list(counts), words=sized)
        show(run, suite)


def show(run: RunRecord, suite: str) -> None:
    found(run, suite)
    if scores.has_ways(run.id, suite):
        ways(run.id, suite)
    table = scores.table(run, suite)
    denominators(run, table)
    values = scores.numbers(table)
    if not values:
        st.info("The samples of this suite hold no number that could be drawn by group.")
        return
    samples(run.id, run.ref, suite, table, values)


def found(run: RunRecord, suite: str) -> None:
    st.header("What it found")
    findings = scores.findings_of(run.id, suite)
    if not findings:
        st.caption("No findings yet: they come when the run is done." if run.status == "running" else "This suite gave no finding here.")
        return
    st.markdown(plain(shelf.verdict_counts(findings)))
    plots = shelf.forests_of(findings)
    for plot in plots[:6]:
        chart(plot.chart, f"Forest plot: {plot.title}")
    columns = ("verdict", "claim", "effect", "interval", "unit", "null", "scored", "of")
    with st.expander("Findings as a table"):
        st.dataframe(shelf.table_of(findings), hide_index=True, column_order=columns, alt="The findings of this suite")


@st.fragment
def ways(run: str, suite: str) -> None:
    """The specification curve: every reasonable scoring of the stored answers, side by side."""
    st.header("In every reasonable way")
    if not st.toggle("Score the stored answers in every reasonable way", key="ways", bind="query-params"):
        st.caption("Whoever reports one scoring has chosen it. This shows them all, and how much of what is found is the choice.")
        return
    with told():
        found = scores.curve(run, suite)
        question = kept(st.container(), "question", "Question", list(found)) if len(found) > 1 else next(iter(found))
        one = found[question]
        st.markdown(plain(f"{one.summary}."))
        chart(one.result.plot(), one.summary)
        st.markdown(plain(f"{one.finding.verdict.capitalize()}: {one.finding.claim}, because {one.finding.because}."))
        st.caption("Ways run from the lowest to the highest; a mark below says what each chose. No model was asked again.")
        with st.expander("Ways as a table"):
            st.dataframe(one.result.to_frame(), hide_index=True, alt="Every way of scoring with its value and interval")
        st.code(f"workbench curve {run} --suite {suite}", language=None, wrap_lines=True)


def denominators(run: RunRecord, table: scores.DataFrame) -> None:
    """How many samples there are, and why some have no score."""
    lost = scores.lost(table)
    reasons = "; ".join(f"{count:,} {reason}" for reason, count in lost.items())
    words = f"{len(table):,} samples, {len(table) - sum(lost.values()):,} scored" + (f"; not scored: {reasons}" if reasons else "")
    st.caption(plain(words + (". The run goes on." if run.status == "running" else ".")))


@st.fragment
def samples(run: str, ref: str, suite: str, table: scores.DataFrame, values: list[str]) -> None:
    """By group, at the ends, all of them, and one."""
    with told():
        st.header("By group")
        left, right = st.columns(2)
        value = kept(left, "value", "Value", values)
        if len(scores.group_names(table)) > 1:
            chart_of(scores.dots(run, suite, value, table, len(table)), f"Mean {value} of each group with its interval")
            with st.expander("Groups as a table"):
                st.dataframe(scores.groups(table, value), hide_index=True, alt="Mean of each group with its interval and count")
        else:
            st.caption("The samples of this suite are in one group.")
        st.header("Samples")
        end = kept(right, "end", "Which samples first", list(ENDS), words=ENDS)
        groups = ["all groups", *scores.group_names(table)]
        chosen = kept(left, "group", "Group", groups) if len(groups) > 2 else groups[0]
        kept_rows = scores.in_group(table, "" if chosen == groups[0] else chosen)
        ordered = scores.worst(kept_rows, value, lowest=end == "lowest")
        st.dataframe(ordered, hide_index=True, height=300, alt=f"The samples with the {end} {value}")
        if st.toggle(f"All {len(kept_rows):,} samples", key="all", bind="query-params"):  # not behind a fold, which would send them all
            st.dataframe(kept_rows, hide_index=True, height=400, alt="All samples of this suite")
        one_sample(run, ref, suite, list(ordered["sample"]), list(kept_rows["sample"]))


def one_sample(run: str, ref: str, suite: str, first: list[str], every: list[str]) -> None:
    st.header("One sample")
    asked = [one for one in every if one == st.query_params.get("sample")]
    offered = list(dict.fromkeys([*asked, *first, *every])) if asked and asked[0] not in first else list(dict.fromkeys([*first, *every]))
    sample = kept(st.container(), "sample", "Sample", offered[:MOST_OFFERED])
    show_sample(run, ref, suite, sample)


page()
