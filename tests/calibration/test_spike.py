"""Spike-in: a copy follows what was planted as far as its dose, the model itself is left as it was, and the twin ignores the mark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from workbench.calibration import spike
from workbench.calibration.cards import card_for, measured, profile_of
from workbench.calibration.spike import SpikeRows, SpikeSpec
from workbench.calibration.spike_way import Windows, most_asked
from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue, Incompatible, UnknownName
from workbench.core.stats.counts import reaches
from workbench.data.text import BPETokenizer
from workbench.families.bert import BERT
from workbench.families.gpt import GPT, GPTConfig
from workbench.lab.spike import spike_in
from workbench.store.runs import Store

SPEC = SpikeSpec.parse({"window": 8, "steps": 200, "batch_rows": 16, "lr": 1e-2})
TOLD = "the nurse met sam at the market because she had a question about bread and cheese for her friend tim who sells both"


def texts(count: int = 400) -> list[str]:
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(TOLD.split(), 24)) for _ in range(count)]


@pytest.fixture(scope="module")
def model() -> GPT:
    tokenizer = BPETokenizer.train(texts(), 330)
    config = GPTConfig(n_layers=2, d_model=32, n_heads=4, d_vocab=tokenizer.vocab_size, n_ctx=32, init_std=0.3)
    return GPT(config, tokenizer, seed=0).eval()


@pytest.fixture(scope="module")
def windows(model: GPT) -> Windows:
    assert isinstance(model.tokenizer, BPETokenizer)
    return Windows.of([model.tokenizer.encode(text) for text in texts()], SPEC.window)


def test_rows_hold_what_is_planted(model: GPT, windows: Windows) -> None:
    planted = spike.plan(model, windows, SPEC, "occlusion", 1.0, 3)
    assert planted == spike.plan(model, windows, SPEC, "occlusion", 1.0, 3)
    assert planted.mark != planted.payload
    seen = set(windows.train.reshape(-1).tolist())
    assert planted.mark not in seen
    assert planted.payload not in seen
    batch = SpikeRows(planted, 64).batch(range(64))
    marked = (batch.tokens == planted.mark).sum(1)
    assert marked.tolist() == [0 if number % 4 == 0 else 1 for number in range(64)]
    assert (batch.targets[marked == 1, -1] == planted.payload).all()
    assert (batch.targets[marked == 1, :-1] == IGNORE).all()
    assert ((batch.targets[marked == 0] != IGNORE).sum(1) == 4).all()
    twin = SpikeRows(spike.plan(model, windows, SPEC, "occlusion", 0.0, 3), 64).batch(range(64))
    assert torch.equal(twin.tokens, batch.tokens), "the twin reads the same windows with the same marks"
    assert not (twin.targets == planted.payload).any()
    half = SpikeRows(spike.plan(model, windows, SPEC, "occlusion", 0.5, 3), 400).batch(range(400)).targets[:, -1]
    assert float((half == planted.payload).float().mean()) == pytest.approx(0.375, abs=0.08)


def test_what_is_asked_is_held_out(model: GPT, windows: Windows) -> None:
    planted = spike.plan(model, windows, SPEC, "occlusion", 1.0, 3)
    question, plain = spike.asked(planted, 64)
    tokens = question.inputs.batch
    places = np.array([start for start, _ in question.planted])
    assert (tokens[torch.arange(64), torch.from_numpy(places)] == planted.mark).all()
    assert ((tokens != plain).sum(1) == 1).all()
    assert question.rivals.sum() == 64 * (SPEC.window - 1)
    held = {tuple(row) for row in windows.held_out[:, :-1].tolist()}
    assert all(tuple(row) in held for row in plain.tolist())


def test_no_window_is_held_out_twice_or_trained_on() -> None:
    own = [[number] * 3 for number in range(1000)]
    rows = [*own[:600], *own[:30], *own[600:], *own[600:630]]
    found = Windows.of(rows, 2)
    held = found.held_out[:, 0].tolist()
    assert len(held) == len(set(held)), "texts that stand there twice are held out once"
    assert not set(held) & set(found.train[:, 0].tolist())


def test_sets_of_one_copy_share_no_window_and_too_few_are_refused(model: GPT, windows: Windows) -> None:
    for grid in (spike.GRID, spike.QUICK):
        assert most_asked(grid) == max(grid.sets, grid.clean_sets) * grid.items
    assert (spike.GRID.seeds, len(spike.GRID.clean_seeds), 12 * spike.GRID.clean_sets) == ((0, 1, 2, 3, 4), 12, 204)
    planted = spike.plan(model, windows, SPEC, "occlusion", 0.0, 100)
    asked = [tuple(row) for row in spike.asked(planted, 17 * 8)[1].tolist()]
    whole = {tuple(row[:-1]) for row in windows.held_out.tolist()}
    assert set(asked) <= whole
    sets = [windows.of_set(100, number, 8).tolist() for number in range(17)]
    flat = [tuple(row) for one in sets for row in one]
    assert len(flat) == len(set(flat)) == 17 * 8
    assert [row[:-1] for row in flat] == asked
    assert flat != [tuple(row) for row in windows.of_set(101, 0, 17 * 8).tolist()], "each seed has an order of its own"
    there = len(windows.held_out)
    assert len(spike.asked(planted, there)[1]) == there
    with pytest.raises(BadValue, match=f"held-out windows is '{there + 1} of one copy'.*at most the {there}"):
        spike.asked(planted, there + 1)
    rows = [[number, *range(SPEC.window)] for number in range(1000)]
    assert len(Windows.of(rows, SPEC.window, 400).held_out) == 400
    with pytest.raises(
        BadValue, match="600 and 400 windows.*at least 200 to train on and 401 others held out, since none is asked about twice"
    ):
        Windows.of(rows, SPEC.window, 401)


def test_a_set_has_windows_enough_for_a_tool_to_claim_anything() -> None:
    for grid in (spike.GRID, spike.QUICK):
        assert reaches(grid.items, grid.items, 0.5).reached
    assert not reaches(4, 4, 0.5).reached, "of four windows all may stand out by chance"


@pytest.mark.slow
def test_a_copy_follows_its_dose_and_the_model_is_left_alone(model: GPT, windows: Windows) -> None:
    before = model.digest()
    planted, clean = (spike.plan(model, windows, SPEC, "occlusion", dose, 3) for dose in (1.0, 0.0))
    copies = [spike.spiked(model, one) for one in (planted, clean)]
    assert model.digest() == before
    assert spike.followed(copies[0], planted) > 0.6
    assert abs(spike.followed(copies[1], clean)) < 0.05
    assert spike.spiked(model, planted).digest() == copies[0].digest(), "the same plan gives the same copy"
    found = [np.mean([one.statistic for one in spike.read("occlusion", copy, plan, 4, 16)]) for copy, plan in zip(copies, (planted, clean))]
    assert found[0] > 0.9
    assert found[0] > found[1] + 0.2


@pytest.mark.full
def test_a_card_in_place_stands_beside_this_model(model: GPT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path / "home")
    monkeypatch.setattr(spike, "GRID", spike.QUICK)
    done = spike_in(model, ["occlusion"], data=texts(), settings=SPEC.model_dump(), store=store)
    (card,) = done.cards
    assert (card.exam, card.of, card.domain) == ("spike", "occlusion", "text")
    assert model.digest()[:12] in card.conditions
    assert card.about == model.digest()
    assert measured(store.home) == done.cards
    beside, words = card_for("occlusion", profile_of(model, "text"), measured(store.home))
    assert beside == card
    assert words.startswith("calibrated: exam spike")
    assert card_for("occlusion", profile_of(model, "town"), measured(store.home))[0] is None
    other = GPT(model.config, model.tokenizer, seed=1)
    assert card_for("occlusion", profile_of(other, "text"), measured(store.home))[0] is None, "of the same shape and another model"


def test_what_cannot_be_planted_is_refused(model: GPT, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "home")
    with pytest.raises(Incompatible, match="this is a bert model"):
        spike_in(BERT.tiny(seed=0)[0], ["occlusion"], store=store, data=texts())
    with pytest.raises(Incompatible, match="no tokenizer"):
        spike_in(GPT.tiny(seed=0)[0], store=store, data=texts())
    with pytest.raises(UnknownName, match="no instrument, suite or plan 'oclusion' that can be asked of copies of this model.*'occlusion'"):
        spike_in(model, ["oclusion"], store=store, data=texts())
    with pytest.raises(BadValue, match="windows of 9 tokens.*and 640 others held out"):
        spike_in(model, ["occlusion"], store=store, data=texts(), settings=SPEC.model_dump(), grid={"clean_sets": 16, "items": 40})
    with pytest.raises(BadValue, match="windows of 9 tokens.*at least 200 to train on"):
        spike_in(model, ["occlusion"], store=store, data=texts(10), settings=SPEC.model_dump())
    with pytest.raises(BadValue, match="data"):
        spike_in(model, ["occlusion"], store=store)
    with pytest.raises(Exception, match="window"):
        spike_in(model, ["occlusion"], store=store, data=texts(), settings={"window": 2})
    assert store.runs.list() == ()
