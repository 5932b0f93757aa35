"""The dashboard's entry: who may see it, which pages there are, and nothing else."""

from pathlib import Path

import streamlit as st

from dashboards.gate import pass_or_stop

PAGES = Path(__file__).parent / "views"
PARTS = {
    "": {"home": "Home"},
    "Look": {"lab": "Model lab", "causal": "Causal lab", "representations": "Representations", "instruments": "Instruments"},
    "Results": {"runs": "Runs", "suites": "Suites", "compare": "Compare"},
    "Work": {"audit": "Audit", "own_task": "Own task", "training": "Training"},
    "Ground": {"calibration": "Calibration", "data": "Data"},
}

st.html(PAGES.parent / "page.css")
st.html(f"<script>{(PAGES.parent / 'page.js').read_text()}</script>", unsafe_allow_javascript=True)
pass_or_stop()
st.navigation(
    {
        part: [st.Page(PAGES / f"{name}.py", title=title, default=name == "home") for name, title in pages.items()]
        for part, pages in PARTS.items()
    },
    position="sidebar",
).run()
