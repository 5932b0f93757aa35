"""A model changed while it runs, and one activation put from one prompt's run into another's: against runs made by hand."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from tests.dashboards.conftest import tiny
from workbench.core.charts.multiples import pooled
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import Add, Edit, Zero
from workbench.families.gpt import GPT
from workbench.lab import heads, lens, live, pokes, rows, swaps
from workbench.lab.refs import load

PROMPT, OTHER = "The nurse said that", "The pilot said that"


def shares(model: GPT, text: str, edit: Sequence[Edit] = ()) -> np.ndarray:
    logits = model.run(torch.tensor([live.tokens_of(model, text).ids]), edit=edit).logits
    assert logits is not None
    return logits[0, -1].detach().double().softmax(-1).numpy()


def test_before_and_after_are_the_model_s_own() -> None:
    model = tiny()
    parts = pokes.parts_of(model, ["L0H1", "l1n3", "L0H1"])
    assert [str(part) for part in parts] == ["L0H1", "L1N3"], "named twice, taken out once"
    found = pokes.changed(model, PROMPT, [part.edit() for part in parts], "without two")
    by_hand = [Zero("blocks.0.attn.hook_z", at={"head": 1}), Zero("blocks.1.mlp.hook_post", at={"d_mlp": 3})]
    for name, wanted in (("before", shares(model, PROMPT)), ("after", shares(model, PROMPT, by_hand))):
        np.testing.assert_allclose(found.values[name].values, wanted[found.values.answer_id.values], rtol=1e-5)
    before, after = shares(model, PROMPT), shares(model, PROMPT, by_hand)
    assert float(found.values.kl) == pytest.approx(float((before * np.log(before / after)).sum()), rel=1e-3, abs=1e-9)
    assert found.plot().to_dict()["description"].startswith("Before and after")


def test_a_push_moves_towards_its_text_and_dose_0_not_at_all() -> None:
    model = tiny()
    edit, length = pokes.push_edit(model, pokes.Push(0, "The nurse", "The pilot", 0.0))
    np.testing.assert_allclose(shares(model, PROMPT, [edit]), shares(model, PROMPT), rtol=1e-6)
    assert length > 0
    edit, _ = pokes.push_edit(model, pokes.Push(1, "The nurse", "The pilot", 3.0))
    ends = [model.run(torch.tensor([live.tokens_of(model, t).ids]), capture="blocks.1.hook_resid_post")["blocks.1.hook_resid_post"][0, -1]
            for t in ("The nurse", "The pilot")]  # fmt: skip
    assert isinstance(edit, Add)
    torch.testing.assert_close(edit.value, (3.0 * (ends[0] - ends[1])).detach())


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("L9H0", "of a layer that is there"),
        ("head 1", "written as L1H0"),
        ("L0", "written as"),
        ("L0H9", "L0H0 to L0H1"),
        ("L1N999", "L1N0 to L1N127"),
    ],
)
def test_parts_that_are_not_there(part: str, words: str) -> None:
    model = tiny()
    with pytest.raises(BadValue, match=words):
        pokes.changed(model, PROMPT, [one.edit() for one in pokes.parts_of(model, [part])], "x")


def test_pushes_that_cannot_be_meant() -> None:
    model = tiny()
    for push, words in (
        (pokes.Push(0, "The nurse", "The nurse", 1.0), "differ at the last token"),
        (pokes.Push(7, "The nurse", "The pilot", 1.0), "the layer"),
        (pokes.Push(0, "The nurse", "The pilot", float("nan")), "the dose"),
    ):
        with pytest.raises(BadValue, match=words):
            pokes.push_edit(model, push)
    with pytest.raises(BadValue, match="the tokens to be written"):
        pokes.changed(model, PROMPT, [], "x", write=10_000)


def test_a_swap_of_all_that_differs_gives_the_other_run() -> None:
    """At the only position that differs, before the first layer, nothing is left of the corrupt prompt."""
    model = tiny()
    assert swaps.aligned(model, PROMPT, OTHER).differing == (2,)
    whole = swaps.swapped(model, PROMPT, OTHER, component="resid_pre", layer=0, pos=2)
    np.testing.assert_allclose(whole.values.patched.values, whole.values.source.values, rtol=1e-5)
    np.testing.assert_allclose(whole.values.plain.values, shares(model, OTHER)[whole.values.answer_id.values], rtol=1e-5)
    idle = swaps.swapped(model, PROMPT, OTHER, component="resid_pre", layer=0, pos=1)
    np.testing.assert_allclose(idle.values.patched.values, idle.values.plain.values, rtol=1e-6)
    assert float(idle.values.kl) == pytest.approx(0.0, abs=1e-9)
    other_way = swaps.swapped(model, PROMPT, OTHER, component="resid_pre", layer=0, pos=2, direction="noising")
    np.testing.assert_allclose(other_way.values.patched.values, shares(model, OTHER)[other_way.values.answer_id.values], rtol=1e-5)


def test_the_grid_s_cell_is_the_swap_s_own_number() -> None:
    model = tiny()
    asked = {"target": " that", "corrupt": OTHER}
    result = live.ask(model, swaps.PATCHING, PROMPT, **asked)
    grid = swaps.grid_of(result)
    assert grid["rows"] == ["layer 1", "layer 0"], "the stream grows upward"
    assert grid["cells"][1][2]["said"].endswith("+1")
    assert len(grid["cells"][0]) == 5


def test_prompts_of_unequal_length_say_where_they_part() -> None:
    model = tiny()
    both = swaps.aligned(model, PROMPT, "The nurse has said that")
    assert not both.equal
    assert "so they must have equally many" in both.words()
    frame = both.frame()
    assert "".join(frame["clean"]) == "".join(live.tokens_of(model, PROMPT).frame()["token"])
    with pytest.raises(BadValue, match="of equally many tokens"):
        swaps.swapped(model, PROMPT, "The nurse has said that", component="resid_pre", layer=0, pos=0)
    assert "nothing to trace" in swaps.aligned(model, PROMPT, PROMPT).words()
    wrongs: tuple[dict[str, Any], ...] = ({"component": "z"}, {"layer": 9}, {"pos": 99})
    for wrong in wrongs:
        with pytest.raises(BadValue):
            swaps.swapped(model, PROMPT, OTHER, **{"component": "resid_pre", "layer": 0, "pos": 0, **wrong})


def test_two_who_poke_one_model_do_not_meet() -> None:
    """Many threads, half of them with a head taken out: each sees what it would see alone."""
    model = tiny()
    edit = [part.edit() for part in pokes.parts_of(model, ["L0H0", "L1H1"])]
    alone = {False: shares(model, PROMPT), True: shares(model, PROMPT, edit)}
    assert np.abs(alone[True] - alone[False]).max() > 1e-7, "the edit must do something, or this test could not fail"
    seen: list[tuple[bool, np.ndarray]] = []

    def session(edited: bool) -> None:
        seen.extend((edited, shares(model, PROMPT, edit if edited else ())) for _ in range(8))

    threads = [threading.Thread(target=session, args=(i % 2 == 0,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 48
    for edited, found in seen:
        np.testing.assert_allclose(found, alone[edited], rtol=1e-6, atol=1e-12)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


FULL = [pytest.param(name, marks=pytest.mark.full) for name in ("gpt", "bert", "seq2seq", "whisper", "clip", "dalle", "imagen")]


@pytest.mark.parametrize("family", ["vit", *FULL])
def test_every_family_shows_its_heads_and_says_what_it_has_not(family: str) -> None:
    model, drawn = load(f"family:{family}"), rows.rows_of(f"family:{family}")
    assert drawn is not None
    asked = rows.row_inputs(model, drawn, 0)
    for stack in heads.stacks(model):
        views = heads.head_views(model, asked, stack)
        assert len(views.sources) == len(stack.layers)
        assert all(source.startswith("data:image/png;base64,") for layer in views.sources for source in layer)
        assert views.grid()["columns"] == [f"head {i}" for i in range(views.heads)]
    edits = [part.edit() for part in pokes.parts_of(model, ["L0H0"])]
    if family == "imagen":
        with pytest.raises(Incompatible, match="values of a predicted picture"):
            pokes.changed(model, asked, edits, "x")
        return
    found = rows.top_answers(model, asked)
    assert found.values.token_id.values[0] == pokes.changed(model, asked, edits, "x").values.sortby("before").answer_id.values[-1]
    place = lens.lens_grid(live.ask(model, lens.LENS, asked))
    assert lens.lens_place(live.ask(model, lens.LENS, asked), 0, 0)[1]["probability"].is_monotonic_decreasing
    assert len(place["rows"]) == 3


def test_small_pictures_hold_the_largest_weight_of_each_square() -> None:
    draw = np.random.default_rng(0).random((2, 7, 10))
    found = pooled(draw, 3)
    rows_, columns = [(i * 7) // 3 for i in range(4)], [(i * 10) // 3 for i in range(4)]
    slow = [[[draw[k, rows_[i] : rows_[i + 1], columns[j] : columns[j + 1]].max() for j in range(3)] for i in range(3)] for k in range(2)]
    np.testing.assert_array_equal(found, np.array(slow))
    np.testing.assert_array_equal(pooled(draw, 64), draw)
