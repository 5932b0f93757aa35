"""What the pages put on the screen in one way: charts in the page's theme, text without markup, errors as sentences, a model chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from workbench.core.charts.frame import theme, themed
from workbench.core.errors import AssayError
from workbench.core.spec import digest_of
from workbench.lab.live import Choice
from workbench.reports.phrases import visible

NO_MODEL = "There is no trained model in this store yet. `workbench audit` or `workbench train` makes one; a folder can be typed above."


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


def which_model(choices: Sequence[Choice]) -> str | None:
    """A model, chosen or typed; None where nothing is."""
    words = {choice.ref: choice.words for choice in choices}
    return st.selectbox(
        "Model: choose one, or type a checkpoint folder or another reference",
        list(words),
        format_func=lambda one: f"{one} ({words[one]})" if one in words else one,
        index=0 if words else None,
        accept_new_options=True,
        placeholder="path/to/checkpoint or run:ID",
        key="model",
    )


def pick(place: DeltaGenerator, name: str, label: str, options: list[str], *, about: tuple[str, str], first: int = 0) -> str:
    """A token, chosen or typed. What the user chose stays through prompts and models; a default follows what is listed."""
    chosen = st.session_state.get(f"chosen-{name}")
    offered = options if chosen is None or chosen in options else [chosen, *options]
    index = offered.index(chosen) if chosen is not None else min(first, len(offered) - 1) if offered else None
    key = f"{name}-{digest_of(list(about))}"
    keep = lambda: st.session_state.update({f"chosen-{name}": st.session_state[key]})  # noqa: E731
    return place.selectbox(label, offered, index=index, accept_new_options=True, key=key, on_change=keep) or ""
