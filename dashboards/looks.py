"""What the two lab pages ask of a model, each answer kept while it is looked at: a head, a layer or a token changed asks nothing twice.

``what`` is a prompt, or the number of a row for models that nobody can type to, or a file or texts of one's own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from dashboards import reads
from dashboards.elements import told
from workbench.core.charts.heat import token_heat
from workbench.core.protocol import Inputs
from workbench.core.result import Result
from workbench.lab import heads, lens, live, pokes, rows, swaps, uploads, wires


@dataclass(frozen=True)
class Own:
    """What was given on the page: a file by its content's sha256 and its name ('' for none), texts, and the id a decoder begins with."""

    digest: str
    name: str
    texts: tuple[str, ...] = ()
    begin: int | None = None


What = str | int | Own
Takes = uploads.Takes
QUALITY = "explanation-quality"
PATCHING, COMPONENTS = swaps.PATCHING, swaps.COMPONENTS


def models() -> tuple[live.Choice, ...]:
    """The models that can be opened now; a store that cannot be opened is said on the page, and a folder can still be typed."""
    with told():
        return reads.models()
    return ()


def typed(ref: str) -> bool:
    """Whether a model can be given words."""
    model = reads.model(ref)
    return model.tokenizer is not None and getattr(model, "reads", "tokens") == "tokens"


@st.cache_resource(show_spinner="Drawing held-out rows …", max_entries=8)
def rows_of(ref: str, fingerprint: str) -> rows.Rows | None:
    """The rows behind a reference, or None."""
    del fingerprint
    return rows.rows_of(ref, reads.store_if_any())


def row_text(ref: str, row: int) -> tuple[str, list[int]]:
    """The text that stands in a row ('' where none can be read); and its ids, where the model's figures can name its tokens by no more."""
    found, model = rows_of(ref, reads.fingerprint(ref)), reads.model(ref)
    if found is None:
        return "", []
    return rows.text_of(model, found, row), rows.ids_of(found, row) if model.tokenizer is None else []


def takes(ref: str) -> uploads.Takes | None:
    """What of one's own the model can be given."""
    return uploads.takes(reads.model(ref))


def words_for(ref: str) -> str:
    """In what a text is given to the model."""
    return uploads.words_for(reads.model(ref))


def prepared(ref: str) -> str:
    """How what is given is made into what the model reads."""
    return uploads.prepared(reads.model(ref))


def keep(name: str, content: bytes, texts: str = "", begin: int | None = None) -> Own:
    """Keep what was given while it is looked at, a file in memory alone; ``texts`` has one a line."""
    digest = hashlib.sha256(content).hexdigest()
    if content_of(digest, content) != content:  # forgotten meanwhile
        content_of.clear(digest)
        content_of(digest, content)
    return Own(digest, name, uploads.lines_of(texts), begin)


@st.cache_resource(show_spinner=False, max_entries=16)
def content_of(digest: str, _content: bytes = b"") -> bytes:
    """A file that was kept; empty once it was not looked at for long."""
    del digest
    return _content


@st.cache_resource(show_spinner=False, max_entries=64)
def given(ref: str, fingerprint: str, what: What) -> str | Inputs:
    """A prompt as it is, or a row's inputs. Raises as ``uploads.own_inputs`` does."""
    if isinstance(what, str):
        return what
    found = rows_of(ref, fingerprint)
    if isinstance(what, Own):
        own = uploads.Own(content_of(what.digest), what.name, what.texts, what.begin)
        return uploads.own_inputs(reads.model(ref), own, found)
    assert found is not None, "a row was chosen from those there are"
    return rows.row_inputs(reads.model(ref), found, what)


@st.cache_resource(show_spinner=False, max_entries=64)
def answers(ref: str, fingerprint: str, what: What, most: int) -> live.NextTokens:
    """What the model answers."""
    asked = given(ref, fingerprint, what)
    model = reads.model(ref)
    return live.next_tokens(model, asked, most=most) if isinstance(asked, str) else rows.top_answers(model, asked, most)


@st.cache_resource(show_spinner="Asking the model …", max_entries=64)
def look(ref: str, fingerprint: str, instrument: str, what: What, **asked: Any) -> Result:
    """One instrument on a prompt or a row (``lab.live.ask``)."""
    return live.ask(reads.model(ref), instrument, given(ref, fingerprint, what), **asked)


@st.cache_resource(show_spinner=False, max_entries=128)
def drawn(ref: str, fingerprint: str, instrument: str, what: What, **asked: Any) -> dict[str, Any]:
    """Its chart, written out."""
    return look(ref, fingerprint, instrument, what, **asked).plot().to_dict()


def stacks(ref: str) -> tuple[heads.Stack, ...]:
    """The stacks with attention."""
    return heads.stacks(reads.model(ref))


@st.cache_resource(show_spinner="Reading all heads …", max_entries=3)  # of a long text 160 MB each
def all_heads(ref: str, fingerprint: str, what: What, stack: int) -> heads.HeadViews:
    """Every head of a stack."""
    return heads.head_views(reads.model(ref), given(ref, fingerprint, what), stacks(ref)[stack])


def head(ref: str, fingerprint: str, what: What, stack: int, place: tuple[int, int]) -> Result:
    """One head's pattern; ``place`` is its layer and number."""
    return look(ref, fingerprint, live.ATTENTION, what, **_asked(ref, what, stack, place))


def _asked(ref: str, what: What, stack: int, place: tuple[int, int]) -> dict[str, Any]:
    layer, number = place
    chosen = stacks(ref)[stack]
    asked: dict[str, Any] = {"layers": (layer,), "heads": (number,)}
    return asked if isinstance(what, str) else {**asked, "stack": chosen.name, "cross": chosen.cross}


@st.cache_resource(show_spinner=False, max_entries=256)
def head_view(ref: str, fingerprint: str, what: What, stack: int, place: tuple[int, int]) -> dict[str, Any]:
    """One head as plain values for ``pattern``: out of what was kept of all heads where the text is short, else asked for by itself."""
    if isinstance(what, str):
        tokens = live.tokens_of(reads.model(ref), what).pieces
        found = heads.kept_head(all_heads(ref, fingerprint, what, stack), *place, tokens)
        if found is not None:
            return found
        # of a long text the result is megabytes: not kept beside the view
        return heads.one_head(live.ask(reads.model(ref), live.ATTENTION, what, **_asked(ref, what, stack, place)))
    return heads.one_head(head(ref, fingerprint, what, stack, place))


def over_picture(ref: str, fingerprint: str, what: What, stack: int, place: tuple[int, int]) -> bool:
    """Whether a head's positions are parts of a picture, so that it is laid over that."""
    return not isinstance(what, str) and "picture" in head(ref, fingerprint, what, stack, place).values.attrs


@st.cache_resource(show_spinner=False, max_entries=256)
def head_drawn(ref: str, fingerprint: str, what: What, stack: int, place: tuple[int, int]) -> dict[str, Any]:
    """One head laid over the picture that its positions are parts of."""
    return head(ref, fingerprint, what, stack, place).plot().to_dict()


@st.cache_resource(show_spinner=False, max_entries=256)
def reading(ref: str, fingerprint: str, what: What, stack: int, place: tuple[int, int], query: int) -> dict[str, Any]:
    """What one position reads, over the tokens."""
    tokens, weights = heads.one_query(head(ref, fingerprint, what, stack, place), query)
    title = f"What position {query} reads through layer {place[0]}, head {place[1]}"
    return token_heat(tokens, weights, title=title, signed=False, unit="attention weight").to_dict()


@st.cache_resource(show_spinner=False, max_entries=32)
def lens_grid(ref: str, fingerprint: str, what: What) -> dict[str, Any]:
    """The logit lens as a grid."""
    return lens.lens_grid(look(ref, fingerprint, lens.LENS, what))


@st.cache_resource(show_spinner="Running it changed …", max_entries=64)
def changed(ref: str, fingerprint: str, what: What, parts: tuple[str, ...], push: pokes.Push | None, write: int) -> pokes.Changed:
    """The model with heads and neurons taken out, and pushed, beside itself."""
    model = reads.model(ref)
    edits = [part.edit() for part in pokes.parts_of(model, parts)]
    words = [f"Without {', '.join(parts)}"] if parts else []
    if push is not None:
        edits.append(pokes.push_edit(model, push)[0])
        words.append(f"{'pushed' if words else 'Pushed'} {push.dose:+g} times in layer {push.layer}")
    return pokes.changed(model, given(ref, fingerprint, what), edits, " and ".join(words), write=write)


@st.cache_resource(show_spinner=False, max_entries=64)
def aligned(ref: str, fingerprint: str, clean: str, corrupt: str) -> swaps.Alignment:
    """Two prompts' tokens beside each other."""
    del fingerprint
    return swaps.aligned(reads.model(ref), clean, corrupt)


def laid_out(both: swaps.Alignment) -> pd.DataFrame:
    """The tokens side by side: across where they fit on a screen, else down."""
    frame = both.frame().set_index("place")
    return frame.T if len(frame) <= 24 else frame


@st.cache_resource(show_spinner=False, max_entries=32)
def patching_grid(ref: str, fingerprint: str, clean: str, **asked: Any) -> dict[str, Any]:
    """A patching as a grid; ``asked`` as ``look`` takes it."""
    return swaps.grid_of(look(ref, fingerprint, PATCHING, clean, **asked))


@st.cache_resource(show_spinner=False, max_entries=128)
def swapped(ref: str, fingerprint: str, clean: str, corrupt: str, **place: Any) -> swaps.Swapped:
    """One activation put from one prompt's run into the other's."""
    del fingerprint
    return swaps.swapped(reads.model(ref), clean, corrupt, **place)


@st.cache_resource(show_spinner="Finding the circuit …", max_entries=16)
def circuit(ref: str, fingerprint: str, clean: str, corrupt: str, **asked: str) -> Result:
    """Circuits of several sizes between two prompts."""
    del fingerprint
    return wires.found(reads.model(ref), clean, corrupt, **asked)


def circuit_sizes(found: Result) -> tuple[wires.Size, ...]:
    """The circuits that were run, smallest first."""
    return wires.sizes_of(found)


def circuit_drawn(found: Result, one: wires.Size) -> dict[str, Any]:
    """One of them as a drawing."""
    return wires.drawn(found, one).to_dict()


def circuit_words(one: wires.Size) -> str:
    """What it keeps, in a sentence."""
    return wires.said(one)


def circuit_edges(found: Result, one: wires.Size) -> pd.DataFrame:
    """Its edges, strongest first."""
    return wires.edges_of(found, one.size)
