"""What both pages put on the screen in one way: charts in the page's theme, text without markup, errors as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import streamlit as st

from workbench.core.charts.frame import theme, themed
from workbench.core.errors import AssayError
from workbench.reports.phrases import visible


def plain(text: str) -> str:
    """``text`` for a place that reads Markdown: every sign escaped, so that no name becomes a link, a picture or a heading."""
    return "".join(f"\\{c}" if c.isascii() and not c.isalnum() and not c.isspace() else c for c in visible(text))


@contextmanager
def told() -> Iterator[None]:
    """A user's error as its own sentence, in its own place; the rest of the page goes on."""
    try:
        yield
    except AssayError as error:
        st.error(plain(str(error)))


def chart(drawing: Any, alt: str) -> None:
    """``drawing`` in the theme of the page it stands on, described by its own description or else by ``alt``."""
    described = bool(drawing.to_dict().get("description"))
    picture = themed(drawing, dark=st.context.theme.type == "dark")
    picture.autosize = "pad"  # its own size: fitted, title and legend would be taken out of the plot
    st.altair_chart(picture, theme=None, width="content", alt=None if described else alt)


def chart_of(drawn: Mapping[str, Any], alt: str) -> None:
    """A chart that was written out before, as ``chart`` shows one: what is shown again and again need not be built each time."""
    picture = {**drawn, "config": theme(dark=st.context.theme.type == "dark"), "autosize": "pad"}
    st.vega_lite_chart(picture, theme=None, width="content", alt=None if drawn.get("description") else alt)
