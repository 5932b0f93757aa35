"""Spike-in of a direction: the surgery moves what it says and nothing else, and probes see it where it is and not where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from workbench.calibration import spike_direction as way
from workbench.calibration.cards import card_for, measured, profile_of
from workbench.calibration.exam import Grid
from workbench.calibration.spike_direction import DirectionSpikeSpec
from workbench.calibration.spike_way import Windows, most_asked
from workbench.core.errors import BadValue, Incompatible
from workbench.data.text import BPETokenizer
from workbench.families.bert import BERT, BERTConfig
from workbench.families.vit import ViT
from workbench.lab.spike import spike_in
from workbench.store.runs import Store

SPEC = DirectionSpikeSpec.parse({"window": 5, "words": 80})


class Framed(BPETokenizer):
    """With control tokens around a text, as published encoders have them."""

    def framed(self, ids: Sequence[int]) -> tuple[list[int], list[int]]:
        assert self.bos_id is not None
        assert self.eos_id is not None
        return [self.bos_id, *ids, self.eos_id], [0] * (len(ids) + 2)


def texts(count: int = 400) -> list[str]:
    draw = np.random.default_rng(0)
    words = ["".join(draw.choice(list("abcdefghijklmnop"), 4)) for _ in range(150)]
    return [" ".join(draw.choice(words, 12)) for _ in range(count)]


@pytest.fixture(scope="module")
def model() -> BERT:
    tokenizer = Framed.train(texts(), 420)
    config = BERTConfig(n_layers=2, d_model=32, n_heads=4, d_vocab=tokenizer.vocab_size, n_ctx=16, init_std=0.1)
    return BERT(config, tokenizer, seed=0).eval()


@pytest.fixture(scope="module")
def windows(model: BERT) -> Windows:
    assert model.tokenizer is not None
    return Windows.of([model.tokenizer.encode(text) for text in texts()], SPEC.window)


def test_the_surgery_moves_the_words_along_the_direction_and_nothing_else(model: BERT, windows: Windows) -> None:
    before = model.digest()
    planted = way.plan(model, windows, SPEC, "probing", 3.0, 5)
    made = way.spiked(model, planted)
    assert model.digest() == before == way.spiked(model, way.plan(model, windows, SPEC, "probing", 0.0, 5)).digest()
    assert (len(planted.words.unique()), int(planted.classes.sum())) == (SPEC.words, 0)
    assert float(planted.direction.norm()) == pytest.approx(1)
    old, new = (one.weight("W_E").detach().double() for one in (model, made))
    spread = (old[planted.words] @ planted.direction).std()
    expected = old.clone()
    for word, sign in zip(planted.words.tolist(), planted.classes.tolist(), strict=True):
        expected[word] += sign * 1.5 * spread * planted.direction
    torch.testing.assert_close(new, expected, atol=1e-6, rtol=0)
    along = (new[planted.words] @ planted.direction, old[planted.words] @ planted.direction)
    gaps = [values[planted.classes > 0].mean() - values[planted.classes < 0].mean() for values in along]
    assert float((gaps[0] - gaps[1]) / spread) == pytest.approx(3.0, abs=1e-4)
    same, other = (way.plan(model, windows, SPEC, "probing", 3.0, seed) for seed in (5, 6))
    assert torch.equal(same.words, planted.words)
    assert torch.equal(same.direction, planted.direction)
    assert not torch.equal(other.direction, planted.direction)


def test_what_is_asked_are_held_out_windows_with_one_word_each(model: BERT, windows: Windows) -> None:
    planted = way.plan(model, windows, SPEC, "probing", 3.0, 5)
    ids, at = planted.asked(0, 120)
    assert ids.shape == (120, SPEC.window + 2)
    assert isinstance(model.tokenizer, Framed)
    assert (ids[:, 0] == model.tokenizer.bos_id).all()
    assert (ids[:, -1] == model.tokenizer.eos_id).all()
    assert torch.equal(ids[torch.arange(120), at], planted.words[torch.arange(120) % SPEC.words])
    held = windows.held_out[:, : SPEC.window]
    inner, place = ids[:, 1:-1], at - 1
    rest = torch.arange(SPEC.window) != place[:, None]
    assert all(bool(((held == row) | ~keep).all(1).any()) for row, keep in zip(inner, rest, strict=True))
    assert torch.equal(ids, planted.asked(0, 120)[0])
    assert not torch.equal(ids, planted.asked(1, 120)[0])


def test_sets_of_one_copy_share_no_window(model: BERT, windows: Windows) -> None:
    assert most_asked(way.GRID) == 17 * 160
    assert (way.GRID.seeds, len(way.GRID.clean_seeds), 12 * way.GRID.clean_sets) == ((0, 1, 2, 3, 4), 12, 204)
    planted = way.plan(model, windows, SPEC, "probing", 0.0, 100)
    inner = []
    for number in range(4):
        ids, at = planted.asked(number, SPEC.words)
        ids[torch.arange(SPEC.words), at] = -1  # the word itself stands in every set
        inner += [tuple(row) for row in ids.tolist()]
    whole = [tuple(row) for number in range(4) for row in windows.of_set(100, number, SPEC.words).tolist()]
    assert len(whole) == len(set(whole)) == 4 * SPEC.words
    assert all(
        row[1:-1] == tuple(-1 if token == -1 else own for token, own in zip(row[1:-1], one[:-1], strict=True))
        for row, one in zip(inner, whole, strict=True)
    )
    with pytest.raises(BadValue, match="held-out windows"):
        planted.asked(len(windows.held_out) // SPEC.words, SPEC.words)


def test_what_it_does_to_the_model_grows_with_the_dose(model: BERT, windows: Windows) -> None:
    plans = [way.plan(model, windows, SPEC, "probing", dose, 5) for dose in (0.0, 1.0, 4.0)]
    found = [way.moved(way.spiked(model, planted), planted) for planted in plans]
    assert found[0] == 0
    assert 0 < found[1] < found[2] < 2


@pytest.mark.slow
@pytest.mark.parametrize("tool", way.READERS)
def test_a_tool_reads_what_was_planted_and_nothing_of_a_class_drawn_by_chance(model: BERT, windows: Windows, tool: str) -> None:
    strong, none = (way.plan(model, windows, SPEC, "probing", dose, 5) for dose in (8.0, 0.0))
    found = way.read(tool, way.spiked(model, strong), strong, 2, SPEC.words)
    assert all(one.statistic > 0.9 and one.claims for one in found)
    idle = way.read(tool, model, none, 6, SPEC.words)
    assert np.mean([one.statistic for one in idle]) == pytest.approx(0.5, abs=0.15)
    assert sum(one.claims for one in idle) <= 2


@pytest.mark.full
def test_a_card_in_place_stands_beside_this_encoder(model: BERT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path / "home")
    small = Grid.parse({"doses": (1.0, 2.0, 4.0, 8.0), "seeds": (0,), "clean_seeds": (100, 101), "clean_sets": 4, "items": SPEC.words})
    monkeypatch.setattr(way, "GRID", small)
    done = spike_in(model, data=texts(), settings=SPEC.model_dump(), store=store)
    assert [card.of for card in done.cards] == list(way.READERS)
    for card in done.cards:
        assert (card.exam, card.family, card.domain) == ("spike-direction", "bert", "text")
        assert model.digest()[:12] in card.conditions
        assert card.about == model.digest()
        beside, words = card_for(card.of, profile_of(model, "text"), measured(store.home))
        assert beside == card
        assert words.startswith("calibrated: exam spike-direction")


def test_what_cannot_be_planted_is_refused(model: BERT, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "home")
    with pytest.raises(Incompatible, match="this is a vit model"):
        spike_in(ViT.tiny(seed=0)[0], ["probing"], store=store, data=texts())
    with pytest.raises(Incompatible, match="no tokenizer"):
        spike_in(BERT.tiny(seed=0)[0], store=store, data=texts())
    with pytest.raises(Incompatible, match="occlusion: a decoder of tokens is needed, and this is a bert model.*What can be asked"):
        spike_in(model, ["probing", "occlusion"], store=store, data=texts())
    with pytest.raises(BadValue, match="different tokens.*at least 4000"):
        spike_in(model, store=store, data=texts(2400), settings={"words": 4000})
    with pytest.raises(BadValue, match="windows of 7 tokens.*at least 200 to train on and 2720 others held out"):
        spike_in(model, store=store, data=texts())
    with pytest.raises(Exception, match="words"):
        spike_in(model, store=store, data=texts(), settings={"words": 2})
    assert store.runs.list() == ()
