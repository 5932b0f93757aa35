"""The dashboard's entry: which pages there are, and nothing else."""

from pathlib import Path

import streamlit as st

PAGES = Path(__file__).parent / "views"

st.navigation(
    [
        st.Page(PAGES / "runs.py", title="Runs", default=True),
        st.Page(PAGES / "training.py", title="Training"),
        st.Page(PAGES / "lab.py", title="Lab"),
        st.Page(PAGES / "instruments.py", title="Instruments"),
        st.Page(PAGES / "calibration.py", title="Calibration"),
    ],
    position="top",
).run()
