"""Audit: choose a plan, carry it out in the background, watch it, read the report and take it along."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboards import audits, reads, shelf
from dashboards.elements import began, did_not_begin, is_beginning, kept, link, plain, progress_of, told, why_not
from dashboards.taken import taken
from workbench.core.errors import StoreError
from workbench.core.finding import Plan
from workbench.store.records import RunRecord

EVERY_S, BEGUN = 2, "begun audit"
NO_REFERENCE = "none: no comparison"
NO_POLICY = "none"
GATES = {
    "pass": "passed: every bound lies inside what is allowed.",
    "fail": "failed: a bound lies outside what is allowed.",
    "inconclusive": "undecided: there is not enough evidence for either.",
}
WORDS = {"running": "running", "done": "finished", "interrupted": "stopped", "failed": "failed"}


def page() -> None:
    st.set_page_config(page_title="Audit · Assay", layout="wide")
    st.title("Audit")
    try:
        records = audits.runs()
    except StoreError as error:
        if "there is none" not in str(error):
            st.error(plain(str(error)))
            return
        records = ()
    with st.expander("A new audit", expanded=not records):
        new()
    why_not(BEGUN)
    if is_beginning(BEGUN):
        begins(st.session_state[BEGUN])
    if not records:
        st.info("There is no audit yet. The form above begins one, and so does `workbench audit` at the command line.")
        return
    with told():
        if asked := st.query_params.get("run", ""):
            record = shelf.run(asked)
            if record.kind != "audit":
                st.info(plain(f"Run {record.id} is no audit but of kind {record.kind}; the newest audit is shown."))
                st.query_params.pop("run")
            else:
                st.query_params["run"] = record.id
        known = {record.id: record for record in records}
        words = {one.id: f"{one.id}: {one.ref}, {WORDS[one.status]}, begun {shelf.when(one.created)}" for one in records}
        show(known[kept(st.container(), "run", "Audit", list(known), words=words)].id)


# --- a new one ------------------------------------------------------------------------------------------------


def new() -> None:
    """The choices, the plan they make, and a button."""
    with told():
        left, right = st.columns(2)
        shipped = left.selectbox("Plan to begin from", audits.plans(), key="plan", bind="query-params")
        base = audits.planned(shipped, {})
        suites, instruments = audits.offered()
        models = audits.models()
        model = right.selectbox("Model to audit: choose one, or type a reference", models, index=models.index(base.model),
                                accept_new_options=True, key=f"audited-{shipped}")  # fmt: skip
        beside = [NO_REFERENCE, *models]
        first = beside.index(base.reference) if base.reference in beside else 0
        words = "Reference it is compared with: choose one, or type a reference"
        reference = left.selectbox(words, beside, index=first, accept_new_options=True, key=f"beside-{shipped}")
        level = right.number_input("Level of the intervals", 0.8, 0.999, base.level, 0.01, format="%.3f", key=f"level-{shipped}")
        asked = st.multiselect("Suites", list(suites), base.suites, format_func=suites.__getitem__, key=f"suites-{shipped}")
        tools = st.multiselect(
            "Instruments", list(instruments), base.instruments, format_func=instruments.__getitem__, key=f"instruments-{shipped}"
        )
        settings = st.text_input("Settings, as after --set, with spaces between them", placeholder="trigger.count=50", key="settings")
        none = (reference or "").strip().lower() in ("", "none", NO_REFERENCE)
        changes: dict[str, Any] = {
            "model": model or "", "reference": None if none else reference, "suites": asked, "instruments": tools, "level": level,
        }  # fmt: skip
        # only what differs: a plan that was changed says so in its report
        plan = audits.planned(shipped, {name: value for name, value in changes.items() if value != audits.field(base, name)}, settings)
        offer(plan)


def offer(plan: Plan) -> None:
    if not plan.suites and not plan.instruments:
        st.warning("Nothing would be asked. Choose at least one suite or instrument.")
        return
    if plan.model.startswith("organism:"):
        st.caption("An organism that was never used here is trained first, which takes minutes. You can close the page meanwhile.")
    with st.expander("The plan, whole"):
        st.code(audits.written(plan), language="yaml")
    if st.button("Begin the audit", type="primary", key="begin", disabled=is_beginning(BEGUN)):
        with told():
            began(BEGUN, audits.begin(plan))


@st.fragment(run_every=EVERY_S)
def begins(folder: str) -> None:
    """An audit this page began or took up again, until its run is there to be looked at."""
    with told():
        status, run = audits.begun(folder)
        if run:
            del st.session_state[BEGUN]
            st.session_state.pop("run", None)
            st.query_params["run"] = run
            st.rerun()
        elif status.over:
            did_not_begin(BEGUN, f"It did not begin: {status.words}")
        else:
            st.info("It is starting: its libraries are loaded and its plan is checked.")


# --- one audit --------------------------------------------------------------------------------------------------


def show(name: str) -> None:
    record = shelf.run(name)
    st.header(plain(f"Audit of {record.ref}"))
    if record.status == "running":
        follow(name)
        return
    if record.status != "done":
        stopped(record)
    results(record)


@st.fragment(run_every=EVERY_S)
def follow(name: str) -> None:
    """How a running audit stands, read again every two seconds; the whole page is read again once it is over."""
    with told():
        record = shelf.run(name)
        if record.status != "running":
            st.rerun()
        now = shelf.standing(name)
        st.info("It runs in the background. You can close this page and come back.")
        progress_of(now)
        if audits.can_stop(record) and st.button("Stop it; what it has done is kept", key="stop"):
            audits.stop(record)
            st.toast("It was asked to stop. It ends after the step it is in.")


def stopped(record: RunRecord) -> None:
    words = "This audit failed" if record.status == "failed" else "This audit was stopped"
    st.warning(plain(f"{words}. {record.note} What it has asked is kept.".replace(".  ", ". ")))
    st.code(audits.again(record), language=None)
    if st.button("Go on with it", key="resume"):
        with told():
            began(BEGUN, audits.go_on(record))


def results(record: RunRecord) -> None:
    found = shelf.findings(record.id)
    if found:
        st.markdown(plain(shelf.verdict_counts(found)))
        link("runs.py", "Its findings one by one", {"run": record.id})
        link("suites.py", "Its suites and their samples", {"run": record.id})
    files = reads.report(record.id)
    if files is None:
        st.caption("The report is written at the end.")
        return
    held(record.id)
    st.header("Report")
    taken(record.id, files)
    if st.toggle("Read it here", value=True, key="read"):
        # in a frame of its own origin: what stands in a report reaches nothing of this page
        st.iframe(files.framed, height=900, alt=f"The report of audit {record.id}")


@st.fragment
def held(run: str) -> None:
    """The audit held against a policy."""
    st.header("Gate")
    chosen = st.selectbox("Policy it is held against", [NO_POLICY, *audits.policies()], key="policy", bind="query-params")
    if chosen == NO_POLICY:
        st.caption(
            "A policy says what a model may show, as limits on confidence bounds. `workbench gate RUN --policy FILE` takes your own."
        )
        return
    with told():
        found = audits.held(run, chosen)
        {"pass": st.success, "fail": st.error}.get(found.state, st.warning)(plain(f"Policy {found.policy}: {GATES[found.state]}"))
        for one in found.decisions:
            st.markdown(f"- **{plain(one.state)}**: {plain(one.text())}")
        with st.expander("Decisions as a table"):
            st.dataframe(audits.decisions(found), hide_index=True, alt="Each rule of the policy with what was seen and what is allowed")
        for place, (name, (content, kind)) in zip(st.columns(2, width=420), audits.gate_files(found).items(), strict=True):
            place.download_button(f"Download {name}", content, f"{run}-{name}", kind, key=name, on_click="ignore")


page()
