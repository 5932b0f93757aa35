"""What the pages put on the screen in one way: charts in the page's theme, text without markup, errors as sentences, a model chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.errors import StreamlitAPIException

from workbench.core.charts.frame import theme
from workbench.core.errors import AssayError, Incompatible
from workbench.core.spec import digest_of
from workbench.reports.phrases import visible

if TYPE_CHECKING:  # it would import torch, which the first page has no use for
    from dashboards.shelf import Standing
    from workbench.lab.jobs import Status
    from workbench.lab.live import Choice

MOST_LINKED = 20_000
"""Letters of a text in an address at most: a server refuses an address that is far longer."""
NO_MODEL = "There is no trained model in this store yet. `workbench audit` or `workbench train` makes one; a folder can be typed above."


def plain(text: str) -> str:
    """``text`` for a place that reads Markdown: every sign escaped, so that no name becomes a link, a picture or a heading."""
    return "".join(f"\\{c}" if c.isascii() and not c.isalnum() and not c.isspace() else c for c in visible(text))


@contextmanager
def told() -> Iterator[None]:
    """A user's error as its own sentence, in its own place; the rest of the page goes on."""
    try:
        yield
    except Incompatible as error:  # nobody's mistake: the model has no such thing
        st.info(plain(str(error)))
    except AssayError as error:
        st.error(plain(str(error)))


def link(page: str, label: str, query: Mapping[str, str] | None = None) -> None:
    """A link to another page, such as ``lab.py``, with an address. A page that runs by itself has no others: there the address is shown."""
    try:
        st.page_link(f"views/{page}", label=plain(label), query_params=dict(query) if query else None)
    except StreamlitAPIException:
        st.caption(plain(f"{label}: /{page.removesuffix('.py')}" + (f"?{urlencode(query)}" if query else "")))


def chart(drawing: Any, alt: str) -> None:
    """``drawing`` in the theme of the page it stands on, described by its own description or else by ``alt``."""
    chart_of(drawing.to_dict(), alt)


def chart_of(drawn: Mapping[str, Any], alt: str) -> None:
    """A chart that was written out before, as ``chart`` shows one: what is shown again and again need not be built each time.

    Its description speaks for it, and a table stands beside it; its marks one by one are kept from a screen reader.
    """
    config = theme(dark=st.context.theme.type == "dark")
    config["mark"] = {**config.get("mark", {}), "aria": False}
    # its own size: fitted, title and legend would be taken out of the plot
    # Streamlit's own padding is below alone: the first label of a legend, which is centred on its end, was cut
    picture = {**drawn, "config": config, "autosize": "pad", "padding": {"left": 6, "right": 6, "top": 4, "bottom": 12}}
    st.vega_lite_chart(picture, theme=None, width="content", alt=None if drawn.get("description") else alt)


def progress_of(now: Standing) -> None:
    """How what runs stands: its jobs with their shares, the samples so far, what happened last."""
    for job, status in now.jobs.items():
        share = status.done / status.total if status.total else 0.0
        st.progress(min(share, 1.0), text=plain(f"{job}: {status.state}, {status.done:,} of {status.total:,}. {status.words}"))
    if now.samples:
        st.caption(plain("Samples so far: " + ", ".join(f"{suite} {count:,}" for suite, count in now.samples.items())))
    for event in now.events:
        st.caption(plain(f"{event.time} {event.name} " + ", ".join(f"{k} {v}" for k, v in event.details.items())))


def began(name: str, folder: str) -> None:
    """Note a job that this session began, and run the page again to watch it."""
    st.session_state[name] = folder
    st.session_state.pop(f"{name}: why not", None)
    st.rerun()


def is_beginning(name: str) -> bool:
    """Whether such a job was begun and is not there yet: a second press would begin another."""
    return name in st.session_state


def did_not_begin(name: str, words: str) -> None:
    """Forget a job that came to nothing, so that another can be begun; why is said on the page until then."""
    st.session_state.pop(name, None)
    st.session_state[f"{name}: why not"] = words
    st.rerun()


def watch_beginning(name: str, status: Status, key: str, doing: str, failed: str) -> None:
    """A job that this session began: how far it is (``doing``), then the run it left, as ``key`` in the address; or why there is none."""
    if status.state == "done":
        del st.session_state[name]
        st.session_state.pop(key, None)
        st.query_params[key] = str(status.value["run"])
        st.rerun()
    elif status.over:
        did_not_begin(name, f"{failed} {status.words}")
    else:
        share = min(status.done / status.total, 1.0) if status.total else 0.0
        st.progress(share, text=plain(f"{doing} {status.words}"))


def why_not(name: str) -> None:
    """Why the last such job came to nothing, where it did."""
    if words := st.session_state.get(f"{name}: why not", ""):
        st.error(plain(words))


def which_model(choices: Sequence[Choice]) -> str | None:
    """A model, chosen or typed, and named in the address; None where nothing is."""
    words = {choice.ref: choice.words for choice in choices}
    asked = st.query_params.get("model")
    options = [*words] if asked is None or asked in words else [asked, *words]
    chosen = st.selectbox(
        "Model: choose one, or type a checkpoint folder or another reference",
        options,
        format_func=lambda one: f"{one} ({words[one]})" if one in words else one,
        index=options.index(asked) if asked is not None else 0 if options else None,
        accept_new_options=True,
        placeholder="path/to/checkpoint, run:ID or family:gpt",
        key="model",
    )
    if chosen:
        st.query_params["model"] = chosen  # by hand: bound, the address would hold the words and leave the first model out
    return chosen


def written(place: Any, label: str, first: str, key: str) -> str:
    """A text that stands in the address, as long as an address with it can still be opened."""
    long = len(st.session_state.get(key, "")) > MOST_LINKED
    if long:
        st.query_params.pop(key, None)
    return str(place.text_area(label, first, key=key, height=80, bind=None if long else "query-params") or "")


def pick(place: DeltaGenerator, name: str, label: str, options: list[str], *, about: tuple[str, str], first: int = 0) -> str:
    """A token, chosen or typed. What the user chose stays through prompts and models and stands in the address; a default follows what is
    listed."""
    chosen = st.session_state.get(f"chosen-{name}", st.query_params.get(name))
    offered = options if chosen is None or chosen in options else [chosen, *options]
    index = offered.index(chosen) if chosen is not None else min(first, len(offered) - 1) if offered else None
    key = f"{name}-{digest_of(list(about))}"

    def keep() -> None:
        st.session_state[f"chosen-{name}"] = st.session_state[key]
        st.query_params[name] = st.session_state[key] or ""

    return place.selectbox(label, offered, index=index, accept_new_options=True, key=key, on_change=keep) or ""


def kept(
    place: DeltaGenerator, name: str, label: str, options: Sequence[Any], *, first: int = 0, words: Mapping[Any, str] | None = None
) -> Any:  # fmt: skip
    """One of ``options``, which stands in the address as itself, whatever ``words`` it is shown in; ``first`` is taken where the address
    names none of them."""
    names = [str(one) for one in options]
    asked = st.query_params.get(name)
    index = names.index(asked) if asked in names else min(first, len(names) - 1)
    shown = (lambda one: words[one]) if words is not None else str
    chosen = place.selectbox(label, options, index=index, format_func=shown, key=name)
    st.query_params[name] = str(chosen)
    return chosen
