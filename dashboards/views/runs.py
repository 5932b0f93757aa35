"""Runs: which there are, how they stand, what they found, and the report."""

from __future__ import annotations

import streamlit as st

from dashboards import reads, shelf
from dashboards.elements import chart, plain, progress_of, told
from dashboards.taken import taken
from workbench.core.errors import StoreError
from workbench.core.finding import Finding
from workbench.reports import phrases
from workbench.store.records import RunRecord

EVERY_S = 2
ORDER = ("verdict", "claim", "subject", "effect", "interval", "unit", "null", "scored", "of", "planted", "measure", "calibration")


def page() -> None:
    st.set_page_config(page_title="Runs · Assay", layout="wide")
    st.title("Runs")
    try:
        records = reads.runs()
    except StoreError as error:
        if "there is none" not in str(error):
            st.error(plain(str(error)))
        else:
            st.info(plain(str(error)) + " `workbench audit` makes it.")
        return
    if not records:
        st.info("There are no runs yet. `workbench audit` makes the first.")
        return
    st.dataframe(reads.run_table(records), hide_index=True, height=min(38 + 35 * len(records), 300), alt="All runs, newest first")
    with told():
        asked = st.query_params.get("run", "")  # a link to one run; the choice below writes it back
        place = [record.id for record in records].index(reads.run(asked).id) if asked else 0
        st.query_params["run"] = st.selectbox("Run", records, index=place, format_func=shelf.entry, key="run").id
        show(reads.run(st.query_params["run"]))


def show(record: RunRecord) -> None:
    st.header(plain(shelf.named(record)))
    if record.status == "running":
        follow(record.id)
    elif record.status != "done":
        st.warning(plain(f"This run was {record.status}. {record.note}".strip()))
    facts(record)
    found = reads.findings(record.id)
    if found:
        show_findings(found)
    else:
        st.caption("No findings yet." if record.status == "running" else "This run has no findings.")
    show_results(record)
    show_report(record)


def facts(record: RunRecord) -> None:
    ended = f", ended {shelf.when(record.finished)}" if record.finished else ""
    times = f"Begun {shelf.when(record.created)}{ended}"
    st.caption(plain(f"Run {record.id}, {record.status}. {times}. sha256 of what was asked: {record.spec_digest[:16]}…"))


@st.fragment(run_every=EVERY_S)
def follow(name: str) -> None:
    """How a running run stands, read again every two seconds; the whole page is read again once it is over."""
    if reads.run(name).status != "running":
        st.rerun()
    now = reads.standing(name)
    progress_of(now)
    if not (now.jobs or now.samples or now.events):
        st.caption("Running; nothing is committed yet.")


def show_findings(found: tuple[Finding, ...]) -> None:
    st.subheader("Findings")
    st.markdown(plain(reads.verdict_counts(found)))
    right = {name: st.column_config.TextColumn(alignment="right") for name in ("effect", "interval", "planted")}
    alt = "All findings of this run, passed and failed alike"
    st.dataframe(reads.table_of(found), hide_index=True, column_order=ORDER, column_config=right, alt=alt)
    plots = reads.forests_of(found)
    if plots:
        picked = st.selectbox("Effects measured as", range(len(plots)), format_func=lambda i: plots[i].title, key="measure")
        plot = plots[picked]
        chart(plot.chart, f"Forest plot: {plot.title}")
        with st.expander("Numbers of the plot"):
            st.dataframe(plot.frame, hide_index=True, alt=f"Numbers of the plot: {plot.title}")
    number = st.selectbox("One finding in full", range(len(found)), format_func=lambda i: f"{i + 1}. {found[i].claim}", key="finding")
    in_full(found[number])


def in_full(finding: Finding) -> None:
    places = phrases.places_of(finding)
    said = {
        "Verdict": f"{phrases.verdict_words(finding.verdict)}, because {finding.because}"
        if finding.because
        else phrases.verdict_words(finding.verdict),
        "Subject": finding.subject,
        "Measured by": f"{finding.source}, as {finding.measure}",
        "Effect": phrases.effect_words(finding),
        "Interval": phrases.interval_words(finding.interval, places),
        "Null": phrases.null_words(finding.null, places),
        "Planted truth": phrases.planted_words(finding) or "nothing is known to be planted",
        "Items": phrases.denominator_words(finding.denominators),
        "Detectable": phrases.detectable_words(finding),
        "Calibration": phrases.card_words(finding),
    }
    st.markdown("\n\n".join(f"**{name}:** {plain(words)}" for name, words in said.items()))
    if finding.rederive:
        st.code(finding.rederive, language=None, wrap_lines=True)


def show_results(record: RunRecord) -> None:
    digests = reads.results(record.id)
    if not digests:
        return
    st.subheader("Results")
    name = st.selectbox("Result", list(digests), key="result")
    with told():
        result = reads.result(record.id, name)
        st.text(result.summary())
        if (drawing := reads.plot(result)) is None:
            st.caption("This result has no chart of its own.")
        else:
            chart(drawing, result.summary())
        with st.expander("The result as a table"):
            st.dataframe(result.to_frame(), hide_index=True, alt=f"The result {name} as a table")
        st.caption(f"sha256 {digests[name]}")


def show_report(record: RunRecord) -> None:
    st.subheader("Report")
    with told():
        files = reads.report(record.id)
        if files is None:
            st.caption(
                "The report comes at the end."
                if record.kind == "audit"
                else "Audits, comparisons and trends have a report; this run is none of these."
            )
            return
        taken(record.id, files)


page()
