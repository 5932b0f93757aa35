"""One head to look at: what was kept of all heads is what the instrument says of that one, on every family that has heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.dashboards.conftest import tiny
from tests.families.test_every_family import tiny as tiny_of
from workbench.core.batch import EncoderBatch
from workbench.core.protocol import Inputs
from workbench.lab import heads, live, rows
from workbench.lab.refs import load

PROMPT = "The nurse said that"
FULL = [pytest.param(name, marks=pytest.mark.full) for name in ("bert", "seq2seq", "whisper", "clip", "dalle", "imagen")]


def test_what_was_kept_is_what_the_instrument_says(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    (stack,) = heads.stacks(model)
    views = heads.head_views(model, PROMPT, stack)
    tokens = live.tokens_of(model, PROMPT).pieces
    for layer, head in ((0, 0), (1, 1)):
        kept = heads.kept_head(views, layer, head, tokens)
        asked = heads.one_head(live.ask(model, live.ATTENTION, PROMPT, layers=(layer,), heads=(head,)))
        assert kept == asked
        assert kept is not None
        assert kept["title"] == f"Layer {layer}, head {head}"
    assert heads.kept_head(views, 0, 0, tokens) != heads.kept_head(views, 0, 1, tokens), "heads differ, or this test could not fail"
    monkeypatch.setattr(heads, "KEPT", 99)
    few = heads.head_views(model, PROMPT, stack)
    assert few.patterns is None
    assert heads.kept_head(few, 0, 0, tokens) is None, "of a long text each head is asked for by itself"


@pytest.mark.parametrize(("items", "padded"), [(3, 0), (3, 2), (1, 0), (1, 2)])
def test_what_is_kept_holds_no_more_than_the_first_item(items: int, padded: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view would keep the patterns of the whole batch, so that what is kept could not be counted by its own size."""
    model, _ = tiny_of("bert", torch.float32)
    mask = torch.ones(items, 6, dtype=torch.bool)
    mask[0, 6 - padded :] = False
    batch = EncoderBatch(torch.arange(6 * items).reshape(items, 6) % 9, mask=mask)
    (stack,) = heads.stacks(model)
    made: list[np.ndarray] = []
    run = model.run

    def watched(*given: Any, **asked: Any) -> Any:
        trace = run(*given, **asked)
        made.extend(trace[site].detach().numpy() for site in heads.sites_of(model, stack))
        return trace

    monkeypatch.setattr(model, "run", watched)
    views = heads.head_views(model, Inputs(batch), stack)
    assert views.width == 6 - padded
    assert views.patterns is not None
    for pattern, whole in zip(views.patterns, made, strict=True):
        np.testing.assert_array_equal(pattern, whole[0, :, : views.width, : views.width])
        assert np.shares_memory(pattern, whole) == (pattern.nbytes == whole.nbytes), "what is all kept is kept as it was made, else a copy"


@pytest.mark.parametrize("family", ["vit", *FULL])
def test_every_family_has_a_view_of_a_head(family: str) -> None:
    model, drawn = load(f"family:{family}"), rows.rows_of(f"family:{family}")
    assert drawn is not None
    asked = rows.row_inputs(model, drawn, 0)
    for stack in heads.stacks(model):
        told = {"layers": stack.layers[:1], "heads": (0,), "stack": stack.name, "cross": stack.cross}
        view = heads.one_head(live.ask(model, live.ATTENTION, asked, **told))
        assert len(view["queries"]) == heads.head_views(model, asked, stack).width
        assert view["picture"].startswith("data:image/png;base64,")
        assert view["keys"] == view["queries"] or stack.cross
