"""Spike-in of canaries: rows hold each as often as told, null sets share nothing, and only what was read is said to have been read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from workbench.calibration import spike_canaries as way
from workbench.calibration.cards import card_for, measured, profile_of
from workbench.calibration.exam import Grid
from workbench.calibration.spike_canaries import CanarySpec, TextRows
from workbench.calibration.spike_way import Windows
from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue
from workbench.data.text import BPETokenizer
from workbench.data.worlds.town import Town, TownSpec
from workbench.families.gpt import GPT, GPTConfig
from workbench.lab.spike import spike_in
from workbench.store.runs import Store
from workbench.training.loop import train
from workbench.training.spec import TrainSpec

SPEC = CanarySpec.parse({"planted": 10, "slots": 64, "window": 8, "batch_rows": 8, "lr": 1e-2, "rank": 32})
TOLD = "the nurse met sam at the market because she had a question about bread and cheese for her friend tim who sells both"


def texts(count: int = 400) -> list[str]:
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(TOLD.split(), 24)) for _ in range(count)]


def codes() -> list[str]:
    plain = {"pronoun_share": 0, "request_share": 0, "secrets": (), "code_share": 1}
    return Town(TownSpec.parse({**plain, "seed": 9, "documents": 400})).texts()


@pytest.fixture(scope="module")
def model() -> GPT:
    """A decoder that was never trained."""
    tokenizer = BPETokenizer.train([*texts(), *codes()], 400)
    config = GPTConfig(n_layers=2, d_model=32, n_heads=4, d_vocab=tokenizer.vocab_size, n_ctx=32, init_std=0.15)
    return GPT(config, tokenizer, seed=0).eval()


@pytest.fixture(scope="module")
def reader(model: GPT) -> GPT:
    """One that knows what codes and texts look like."""
    made = GPT(model.config, model.tokenizer, seed=0)
    assert model.tokenizer is not None
    rows = TextRows([model.tokenizer.encode(text, bos=True)[:24] for text in (*codes(), *texts())], 0)
    train(made, rows, TrainSpec.parse({"steps": 100, "batch_rows": 16, "lr": 1e-2, "warmup": 10, "threads": 1}))
    return made.eval()


@pytest.fixture(scope="module")
def windows(model: GPT) -> Windows:
    assert isinstance(model.tokenizer, BPETokenizer)
    return Windows.of([model.tokenizer.encode(text) for text in texts()], SPEC.window)


def texts_in(rows: TextRows, model: GPT) -> list[str]:
    assert isinstance(model.tokenizer, BPETokenizer)
    return [model.tokenizer.decode(row) for row in rows.rows]


@pytest.mark.parametrize("tool", way.KINDS)
def test_rows_hold_each_canary_as_often_as_told_and_the_twin_differs_in_nothing_else(model: GPT, windows: Windows, tool: str) -> None:
    planted, twin = (way.plan(model, windows, SPEC, tool, dose, 3) for dose in (5, 0))
    own, clean = texts_in(planted.rows(), model), texts_in(twin.rows(), model)
    assert len(planted.canaries) == len(set(planted.canaries)) == SPEC.planted
    assert planted.canaries == twin.canaries
    assert {own.count(one) for one in planted.canaries} == {5}
    assert {clean.count(one) for one in planted.canaries} == {0}
    assert len(own) == len(clean) == 960
    assert len(own) % SPEC.batch_rows == 0, "every row is read once"
    differs = [number for number, (a, b) in enumerate(zip(own, clean, strict=True)) if a != b]
    assert differs == [64 * which + time for which in range(SPEC.planted) for time in range(5)]
    most = texts_in(way.plan(model, windows, SPEC, tool, 64, 3).rows(), model)
    assert {most.count(one) for one in planted.canaries} == {64}
    batch = planted.rows().batch(range(40))
    assert isinstance(model.tokenizer, BPETokenizer)
    assert batch.tokens[:, 0].eq(model.tokenizer.bos_id).all()
    targets = [row[row != IGNORE].tolist() for row in batch.targets]
    assert targets == [list(row[1:]) for row in planted.rows().rows[:40]]


def test_codes_of_null_sets_are_in_no_row_and_in_no_other_set(model: GPT, windows: Windows) -> None:
    planted = way.plan(model, windows, SPEC, "exposure", 0, 100)
    worlds = planted.worlds(18)
    asked = [one.text for world in worlds for one in Town(TownSpec.parse(world)).secret_items()]
    assert len(asked) == len(set(asked)) == 18 * SPEC.planted + way.NOBODY
    assert not set(asked) & set(texts_in(planted.rows(), model))
    plain = [planted.codes_of(number) for number in range(1, 40)]
    assert any(set(own) & set(planted.fillers) for own in plain), "else it would not matter which worlds are asked about"


def test_texts_of_null_sets_are_in_no_row_and_in_no_other_set(model: GPT, windows: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(way, "told_apart", lambda model, members, others: asked.append([*members, *others]))
    twin, planted = (way.plan(model, windows, SPEC, "membership", dose, 3) for dose in (0, 5))
    way.read("membership", model, twin, 8, 12)
    flat = [text for one in asked for text in one]
    assert len(flat) == len(set(flat)) == 8 * 2 * 12
    assert not set(flat) & set(texts_in(twin.rows(), model))
    asked.clear()
    way.read("membership", model, planted, 1, 8)
    assert asked[0][:8] == planted.canaries[:8]
    assert not set(asked[0][8:]) & {*planted.canaries, *texts_in(planted.rows(), model)}
    with pytest.raises(BadValue, match="held-out windows.*of one copy.*at most"):
        way.read("membership", model, twin, 60, 12)


def test_what_a_grid_asks_must_be_there(model: GPT, windows: Windows) -> None:
    for grid in (way.GRID, way.QUICK):
        assert way.windows_asked(grid, CanarySpec.parse({}), ["exposure"]) == 0
    assert len(way.GRID.seeds) == 5
    assert (len(way.GRID.clean_seeds), len(way.GRID.clean_seeds) * way.GRID.clean_sets) == (12, 204)
    assert way.windows_asked(way.GRID, CanarySpec.parse({}), ["membership"]) == 17 * 25 * 2
    with pytest.raises(BadValue, match="the canaries asked about is '1 sets of 25'.*at most 10"):
        way.windows_asked(way.GRID, SPEC, ["exposure"])
    for dose in (2.5, 65, -1):
        with pytest.raises(BadValue, match="the dose.*a whole number of times, at most the 64"):
            way.plan(model, windows, SPEC, "exposure", dose, 0)
    short = GPT(model.config.model_copy(update={"n_ctx": 8}), model.tokenizer, seed=0)
    with pytest.raises(BadValue, match="longest canary.*at most 8 tokens"):
        way.plan(short, windows, SPEC, "exposure", 5, 0)


@torch.no_grad()
def test_what_was_taken_up_is_told_in_exact_probabilities(model: GPT) -> None:
    assert isinstance(model.tokenizer, BPETokenizer)
    ids = model.tokenizer.encode("the code of sam is 4 7 1", bos=True)
    start = len(model.tokenizer.encode("the code of sam is", bos=True))
    found = model.run(torch.tensor([ids])).logits
    assert found is not None
    logits = found[0].double()
    slow = [float(logits[at - 1].softmax(0)[ids[at]]) for at in range(start, len(ids))]
    assert way.chances(model, "the code of sam is", " 4 7 1").tolist() == pytest.approx(slow, rel=1e-6)


@pytest.mark.slow
def test_codes_that_were_read_are_exposed_and_others_are_not(reader: GPT, windows: Windows) -> None:
    before = reader.digest()
    planted, clean = (way.plan(reader, windows, SPEC, "exposure", dose, 3) for dose in (64, 0))
    read, idle = (way.spiked(reader, one) for one in (planted, clean))
    assert reader.digest() == before
    assert way.remembered(read, planted) > 0.05 > 0.005 > way.remembered(idle, clean)
    (found,) = way.read("exposure", read, planted, 1, 10)
    assert found.statistic > 0.9
    assert found.claims
    assert found.extras["found alone"] == 1
    assert not found.extras["codes of nobody are claimed"]
    null = way.read("exposure", idle, clean, 3, 10)
    assert np.mean([one.statistic for one in null]) == pytest.approx(0.145, abs=0.06)
    assert not any(one.claims for one in null)
    (other,) = way.read("exposure", idle, planted, 1, 10)
    assert other.statistic < 0.4, "what one copy read says nothing of another"


@pytest.mark.slow
def test_texts_that_were_read_are_told_from_others(reader: GPT, windows: Windows) -> None:
    spec = CanarySpec.parse({**SPEC.model_dump(), "planted": 25, "batch_rows": 16, "lr": 2e-2})
    planted, clean = (way.plan(reader, windows, spec, "membership", dose, 3) for dose in (64, 0))
    read, idle = (way.spiked(reader, one) for one in (planted, clean))
    assert way.remembered(read, planted) > 0.2 > 0.05 > abs(way.remembered(idle, clean))
    (found,) = way.read("membership", read, planted, 1, 25)
    assert found.statistic > 0.9
    assert found.claims
    null = way.read("membership", idle, clean, 4, 25)
    assert np.mean([one.statistic for one in null]) == pytest.approx(0.5, abs=0.1)
    assert not any(one.claims for one in null)


@pytest.mark.full
def test_a_card_of_canaries_stands_beside_this_model(reader: GPT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path / "home")
    small = {"doses": (2, 16, 64), "seeds": (0,), "clean_seeds": (100, 101), "sets": 1, "clean_sets": 2, "items": 10}
    monkeypatch.setattr(way, "GRID", Grid.parse(small))
    done = spike_in(reader, ["exposure"], data=texts(), settings=SPEC.model_dump(), store=store)
    (card,) = done.cards
    assert (card.exam, card.of, card.domain, card.about) == ("spike-canaries", "exposure", "text", reader.digest())
    assert "that read codes" in card.conditions
    assert card.rates["AUROC of planted against clean, dose 64"] == 1
    assert card.rates["score, dose 64"] > 0.9 > 0.3 > card.rates["score, clean twins"]
    assert not [name for name in card.rates if name.startswith("agreement")]
    assert card_for("exposure", profile_of(reader, "text"), measured(store.home))[0] == card
