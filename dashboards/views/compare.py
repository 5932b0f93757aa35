"""Compare: two runs on the same samples; how they differ, what that means, and the samples on which they part."""

from __future__ import annotations

import streamlit as st

from dashboards import bound, scores, shelf
from dashboards.elements import chart, is_beginning, kept, plain, told, why_not
from dashboards.sample import show_sample
from workbench.core.errors import StoreError
from workbench.store.records import RunRecord

NONE = "Two runs of one suite are needed. `workbench eval occupation-pronoun --model REF`, for each of two models, makes them."


def page() -> None:
    st.set_page_config(page_title="Compare · Assay", layout="wide")
    st.title("Compare")
    try:
        records = scores.evaluations()
    except StoreError as error:
        if "there is none" not in str(error):
            st.error(plain(str(error)))
        else:
            st.info(plain(str(error)) + " " + NONE)
        return
    pairs = comparable(records)
    with told():
        for name in ("first", "second"):
            if asked := st.query_params.get(name, ""):
                st.query_params[name] = shelf.run(asked).id  # says so where there is no such run
        if pairs:
            choose(records, pairs)
        else:
            st.info(NONE)
    reports([record for record in records if pairs and record.status == "done"])


def comparable(records: tuple[RunRecord, ...]) -> dict[str, dict[str, list[str]]]:
    """For each run, the others that share suites with it, and which."""
    suites = {record.id: scores.suites_of(record.id) for record in records}
    out: dict[str, dict[str, list[str]]] = {}
    for a in suites:
        for b in suites:
            if a != b and (shared := [name for name in suites[a] if name in suites[b]]):
                out.setdefault(a, {})[b] = shared
    return out


def choose(records: tuple[RunRecord, ...], pairs: dict[str, dict[str, list[str]]]) -> None:
    known = {record.id: record for record in records}
    words = {one.id: shelf.entry(one) for one in records}
    ids = list(pairs)
    first = kept(st.container(), "first", "First run, which is compared with", ids, first=len(ids) - 1, words=words)
    second = kept(st.container(), "second", "Second run", list(pairs[first]), words=words)
    suite = kept(st.container(), "suite", "Suite", pairs[first][second])
    counts = (scores.suites_of(first)[suite], scores.suites_of(second)[suite])
    found = scores.comparison(first, second, suite, counts)
    denominators(found)
    st.header("Differences")
    st.caption("Second run less first, sample by sample. Each value has its own unit, so the sizes of two rows do not compare.")
    if found.differences:
        chart(scores.differences_drawn(found), "Differences with their intervals")
        for one in found.differences:
            st.markdown(f"- {plain(scores.meaning(one))}")
        if len(found.differences) > 1:
            st.caption(f"{len(found.differences)} values were compared: at 95 %, one in twenty differs by chance alone.")
    else:
        st.caption("The samples of this suite hold no plain number to compare; the suite's own findings stand below.")
    against(found)
    parted(found, known[second].ref)


def denominators(found: scores.Comparison) -> None:
    counts = found.denominators
    lost = "; ".join(f"{count:,} {reason}" for reason, count in counts.unscored.items())
    st.markdown(plain(f"{counts.scored:,} of {counts.run:,} samples are pairs" + (f"; left out: {lost}." if lost else ".")))


def against(found: scores.Comparison) -> None:
    """The suite's own findings on the second run against the first."""
    if not found.findings:
        return
    st.header("What the suite says of the second against the first")
    st.markdown(plain(shelf.verdict_counts(found.findings)))
    columns = ("verdict", "claim", "effect", "interval", "unit", "null", "scored", "of")
    alt = "The suite's findings on the second run with the first as reference"
    st.dataframe(shelf.table_of(found.findings), hide_index=True, column_order=columns, alt=alt)


@st.fragment
def parted(found: scores.Comparison, ref: str) -> None:
    """The samples on which the two runs part."""
    st.header("Where they part")
    values = [one.value for one in found.differences]
    if not values:
        st.caption("There is no plain value to part on.")
        return
    with told():
        value = kept(st.container(), "value", "Value", values)
        frame = scores.discordant(found.first, found.second, found.suite, value)
        if frame.empty:
            st.caption("Both runs value every sample alike.")
            return
        st.dataframe(frame, hide_index=True, height=300, alt=f"The samples on which the runs differ most in {value}")
        sample = kept(st.container(), "sample", "Sample", list(frame["sample"]))
        show_sample(found.second, ref, found.suite, sample)


def reports(finished: list[RunRecord]) -> None:
    """Reports of several runs: side by side, and a training over its checkpoints."""
    st.header("Reports of several runs")
    with told():
        left, right = st.columns(2, gap="large")
        with left, st.expander("Runs side by side"):
            side_by_side(finished)
        with right, st.expander("A training over its checkpoints"):
            over_checkpoints()
        why_not(bound.BEGUN)
        if is_beginning(bound.BEGUN):
            bound.watch(st.session_state[bound.BEGUN])
        known = {one.id: shelf.entry(one) for one in bound.written()}
        if not known:
            st.caption("None is written yet.")
            return
        if (asked := st.query_params.get("report", "")) and asked not in known:
            st.info(plain(f"There is no report {asked}; the newest is shown."))
        bound.show(kept(st.container(), "report", "Report", list(known), words=known))


def side_by_side(finished: list[RunRecord]) -> None:
    words = {one.id: shelf.entry(one) for one in finished}
    chosen = st.multiselect("Finished runs, the first is compared with", list(words), format_func=words.__getitem__, key="beside")
    if st.button("Write their report", key="begin-comparison", disabled=len(chosen) < 2 or is_beginning(bound.BEGUN)):
        with told():
            bound.begin_comparison(chosen)


def over_checkpoints() -> None:
    trainings = {one.id: f"{one.id}: {one.ref.removeprefix('recipe:')}, {shelf.when(one.created)}" for one in bound.trainings()}
    if not trainings:
        st.caption("There is no training yet. `train.keep=N` with `train.save_every` keeps checkpoints to look back at.")
        return
    suites = bound.suites()
    training = st.selectbox("Training", list(trainings), format_func=trainings.__getitem__, key="training")
    suite = st.selectbox("Suite asked of each checkpoint", list(suites), format_func=suites.__getitem__, key="asked")
    settings = st.text_input("Settings of the suite, as after --set", placeholder="contexts=2", key="settings")
    if st.button("Write its trend", key="begin-trend", disabled=is_beginning(bound.BEGUN)):
        with told():
            bound.begin_trend(training, suite, settings)


page()
