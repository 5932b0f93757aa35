"""A report as files to take along. What takes long to make is made when it is asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path

import streamlit as st

from dashboards import reads, shelf
from dashboards.elements import told
from workbench.lab.evidence import write_bundle
from workbench.lab.rendering import FORMS
from workbench.lab.reporting import stored_report


@st.fragment
def taken(run: str, files: reads.ReportFiles) -> None:
    """The downloads of a report: its page and values as they lie there, its PDF and its evidence bundle once they were made."""
    html, json, *places = st.columns(4)
    html.download_button("Download as HTML", files.html, f"report-{run}.html", "text/html", key="html", on_click="ignore")
    json.download_button("Download as JSON", files.json, f"report-{run}.json", "application/json", key="json", on_click="ignore")
    made = (("PDF", "pdf", "application/pdf", pdf), ("evidence bundle", "zip", "application/zip", bundle))
    for place, (what, ending, kind, make) in zip(places, made, strict=True):
        with place, told():
            known = st.session_state.get(f"made-{ending}") == files.digest
            if not known and not st.button(f"Make the {what}", key=f"make-{ending}"):
                continue
            content = make(run, files.digest)
            st.session_state[f"made-{ending}"] = files.digest  # what could not be made can be asked for again
            st.download_button(f"Download the {what}", content, f"report-{run}.{ending}", kind, key=ending, on_click="ignore")
    st.caption(
        f"sha256 of the content: {files.digest}. `workbench report {run}` copies HTML and JSON. The bundle from here is not signed, since "
        f"a page holds no key: `workbench report {run} --bundle out.zip --key NAME` signs, `workbench verify` checks either."
    )


@st.cache_data(show_spinner="Setting the pages …", max_entries=4)
def pdf(run: str, digest: str) -> bytes:
    """A report as a PDF. ``digest``: that of its content."""
    del digest
    made = FORMS["pdf"](stored_report(run, store=shelf.store()).report)
    assert isinstance(made, bytes)
    return made


@st.cache_data(show_spinner="Gathering the evidence …", max_entries=2)
def bundle(run: str, digest: str) -> bytes:
    """A report's evidence bundle, unsigned: a page holds no key. Raises as ``write_bundle``: MissingData where a suite's set is not here,
    AssayError where the report's pairs are others than its samples make."""
    del digest
    with tempfile.TemporaryDirectory(prefix="assay-bundle-") as folder:
        return write_bundle(run, Path(folder) / "bundle.zip", store=shelf.store()).place.read_bytes()
