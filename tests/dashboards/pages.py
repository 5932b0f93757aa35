"""Opening a page without a browser, and reading what is on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamlit.proto.WidgetStates_pb2 import WidgetState
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Selectbox

import dashboards

FOLDER = Path(dashboards.__file__).parent / "views"
WIDGETS = ("selectbox", "text_area", "text_input", "slider", "button", "download_button", "expander")


def opened(name: str, **query: str) -> AppTest:
    """The page after its first run, with an address. Fails if the page raised."""
    page = AppTest.from_file(str(FOLDER / name), default_timeout=60)
    for key, value in query.items():
        if value:
            page.query_params[key] = value
    return settled(page.run())


def settled(page: AppTest) -> AppTest:
    """The page, which has not raised."""
    assert not page.exception, [one.message for one in page.exception]
    return page


def box(page: AppTest, label: str) -> Selectbox[Any]:
    """The one select box whose label begins with ``label``."""
    (found,) = [one for one in page.selectbox if one.label.startswith(label)]
    return found


def typed(page: AppTest, label: str, text: str) -> AppTest:
    """The page after ``text`` was typed into a select box that takes new options, which the test tool cannot do by itself.

    Every box sends what it shows, as a browser does, also where that is no longer among its options.
    """
    chosen = box(page, label)
    for one in page.selectbox:
        said = text if one is chosen else one.format_func(one.value) if one.value is not None else ""
        state = WidgetState(id=one.id, string_value=str(said))
        one.__class__ = type("Typed", (Selectbox,), {"_widget_state": property(lambda self, state=state: state)})
    return settled(page.run())


def texts(page: AppTest) -> str:
    """All its sentences."""
    return "\n".join(one.value for one in (*page.markdown, *page.caption, *page.text, *page.info))


def unlabelled(page: AppTest) -> list[str]:
    """The widgets without a label."""
    return [kind for kind in WIDGETS for one in page.get(kind) if not getattr(one, "label", "").strip()]
