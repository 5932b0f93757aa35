"""The training behind a reference, made again for instruments that ask about it; and pairs of the town's sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probes import INSTRUMENTS
from probes.data_rows import Trained
from workbench.core.batch import TokenBatch
from workbench.core.errors import BadValue, UsageError
from workbench.core.protocol import Inputs
from workbench.data.worlds.town import Town
from workbench.lab import traced
from workbench.lab.inputs import InputsSpec, default_inputs, digest_of_inputs, make_inputs, pronoun_items
from workbench.lab.recompute import recompute
from workbench.lab.refs import checkpoint_of, load
from workbench.lab.run import probe
from workbench.lab.traced import first_read, trained_of
from workbench.store.runs import Store
from workbench.training.checkpoint import load_model
from workbench.training.order import row_order
from workbench.training.spec import TrainSpec

QUESTION = {"texts": ["the baker said"], "targets": [" she"]}


def test_a_trainings_rows_checkpoints_rates_and_order_are_what_the_run_says(store: Store, trained: str) -> None:
    model = load(trained, store=store)
    found = trained_of(model, trained, store)
    folder = checkpoint_of(store, store.runs.get(trained.removeprefix("run:")).id)
    spec = TrainSpec.parse(store.runs.get(trained.removeprefix("run:")).spec["made"]["train"])
    assert [one.digest() for one, _ in found.checkpoints] == [load_model(folder / "step-00000006").digest()]
    assert [rate for _, rate in found.checkpoints] == [spec.lr_at(6)]
    assert found.rate == spec.lr_at(11)
    assert found.checkpoints[0][0].digest() != model.digest()
    read = [row for step in range(12) for row in row_order(spec.seed, step, 4, len(found.rows))]
    assert sorted(found.steps) == sorted(set(read))
    assert all(read.index(row) // 4 == step for row, step in found.steps.items())


def test_what_is_given_ready_made_has_a_digest_of_all_of_it() -> None:
    """Two long inputs that differ in the middle alone, which a printed form leaves out."""
    ids = torch.arange(4000).reshape(400, 10) % 50
    other = ids.clone()
    other[200, 5] += 1
    marks = np.arange(4000) == 7
    digests = {
        digest_of_inputs(Inputs(ids, reference=reference, labels=labels))
        for reference in (None, Inputs(ids), Inputs(other), Trained(ids), Trained(other), Trained(Inputs(ids), rate=0.5))
        for labels in (None, marks, np.roll(marks, 1900))
    }
    assert len(digests) == 18
    assert Trained(ids).digest() == Trained(ids.clone()).digest()
    batch = TokenBatch(ids, other)
    assert Trained(batch).digest() != Trained(TokenBatch(other, ids)).digest()


def test_every_row_of_several_epochs_is_read_first_in_the_first() -> None:
    spec = TrainSpec.parse({"steps": 40, "batch_rows": 3})
    found = first_read(spec, 10)
    assert sorted(found) == list(range(10))
    assert max(found.values()) == 3


@pytest.mark.slow
def test_a_run_is_asked_which_rows_gave_an_answer_and_says_the_same_again(store: Store, trained: str) -> None:
    found = probe("data-attribution", trained, QUESTION, store=store, rows=30)
    assert found.values.sizes["row"] == 30
    assert np.isfinite(found.values["score"]).all()
    assert (found.values["step"] >= -1).all()
    assert "1 checkpoints and the final model" in found.summary()
    again = recompute(found.provenance.volatile["run"], "data-attribution", store=store)
    assert not again.differs


def test_without_a_training_the_error_says_what_to_give(store: Store, trained: str) -> None:
    model = load(trained, store=store)
    for ref in ("organism:town", "", "memory:abc"):
        with pytest.raises(UsageError, match="does not say what it was trained on. Name a training as run:ID"):
            trained_of(model, ref, store)


def test_rows_that_changed_since_are_refused(store: Store, trained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def digest(self) -> str:
            return "0" * 64

    monkeypatch.setattr(traced, "_rows", lambda *_: Other())
    with pytest.raises(BadValue, match="training data of 'run:.*as when it was trained"):
        trained_of(load(trained, store=store), trained, store)


# --- interchange on the town ---------------------------------------------------------------------------------------


def test_the_towns_sentences_are_paired_with_the_next_ones_lean(store: Store, trained: str) -> None:
    tool, model = INSTRUMENTS.load("interchange"), load(trained, store=store)
    words: Any = model.tokenizer
    spec = default_inputs(tool, trained, store)
    assert spec.count == 192
    spec = spec.model_copy(update={"count": 12})
    made: Any = make_inputs(tool, model, spec, tool.spec(), store)
    assert torch.equal(made.reference.batch, made.batch.roll(-1, 0))
    assert torch.equal(made.reference.lengths, made.lengths.roll(-1))
    assert spec.world is not None
    items = pronoun_items(Town(spec.world), count=12)
    for row, item in enumerate(items):
        source = items[(row + 1) % 12]
        text = words.decode(made.reference.batch[row, : int(made.reference.lengths[row])].tolist())
        assert text.endswith(source.text_before)
        assert source.occupation in text
        assert words.decode([int(made.targets[row])]) == (item.she if source.lean > 0 else item.he)
    assert not (made.targets == made.foils).any()
    with pytest.raises(BadValue, match="at least 2"):
        make_inputs(tool, model, spec.model_copy(update={"count": 1}), tool.spec(), store)


@pytest.mark.slow
def test_interchange_is_asked_with_texts_and_their_sources(store: Store, trained: str) -> None:
    texts = [f"the {one} said" for one in ("baker", "judge", "pilot", "nurse")]
    given = {"texts": texts, "targets": [" she", " he", " she", " he"]}
    with pytest.raises(UsageError, match="needs a source for each text"):
        probe("interchange", trained, given, store=store)
    found = probe("interchange", trained, {**given, "corrupt": [*texts[1:], texts[0]]}, store=store, steps=2, randoms=1)
    assert np.isfinite(found.values["accuracy"].sel(who="found")).all()
    assert not recompute(found.provenance.volatile["run"], "interchange", store=store).differs


@pytest.mark.slow
def test_a_planted_direction_is_asked_about_itself(store: Store) -> None:
    found = probe("interchange", "organism:planted-direction", store=store, steps=2, randoms=1)
    one = found.values.isel(site=0)
    assert one["site"].item() == "blocks.1.hook_resid_post"
    assert float(one["accuracy"].sel(who="given")) == 1.0
    assert float(one["accuracy"].sel(who="inert")) == float(one["accuracy"].sel(who="none"))
    twin = probe("interchange", "organism:planted-direction@dose=0", store=store, steps=2, randoms=1).values.isel(site=0)
    assert float(twin["accuracy"].sel(who="given")) < 0.7


def test_other_instruments_take_no_sources(store: Store, trained: str) -> None:
    tool, model = INSTRUMENTS.load("data-attribution"), load(trained, store=store)
    with pytest.raises(UsageError, match="compares no clean text with a corrupt one"):
        make_inputs(tool, model, replace_corrupt(), tool.spec(), store)


def replace_corrupt() -> InputsSpec:
    return InputsSpec.of({**QUESTION, "corrupt": ["the judge said"]})
