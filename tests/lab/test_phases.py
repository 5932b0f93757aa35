"""A model that learns in parts: each phase in its order, with the recipe's seed, and cut off and continued to the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workbench.core.errors import BadValue
from workbench.lab import run as lab
from workbench.lab.expect import digest_without_seed
from workbench.lab.recipe import TaskRecipe, read
from workbench.lab.refs import checkpoint_of
from workbench.lab.run import PHASES, train
from workbench.store.runs import Store
from workbench.training.checkpoint import load_model

STEPS = {"batch_rows": 4, "lr": 1e-2, "min_lr": 1e-3, "warmup": 1, "threads": 1}
PAINTER: dict[str, Any] = {
    "name": "small-painter", "task": "painting", "data": {"rows": 16, "held_out": 16, "size": 8},
    "model": {"n_layers": 1, "d_model": 8, "n_heads": 2, "patch": 4, "n_codes": 8, "d_code": 4, "d_coder": 8},
    "phases": [{"learn": "coder", "train": {"steps": 6, **STEPS}}],
    "train": {"steps": 4, "seed": 3, **STEPS},
}  # fmt: skip


def test_the_coder_learns_first_and_stays_as_it_is_while_the_decoder_does(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    done = train(PAINTER, store=store)
    after = done.model.state_dict()
    first = load_model(checkpoint_of(store, done.run) / PHASES / "coder" / "final").state_dict()
    same = {name for name, value in after.items() if value.equal(first[name])}
    assert {name for name in after if name.startswith("coder.")} <= same
    assert not {name for name in same if name.endswith("attn.q.weight")}
    assert [part for part, _ in read(PAINTER).trainings()] == ["coder", ""]  # type: ignore[union-attr]  # a task's recipe
    assert {spec.seed for _, spec in read(PAINTER).trainings()} == {3}  # type: ignore[union-attr]  # a task's recipe


def test_a_recipe_cut_off_in_its_second_phase_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(PAINTER, store=Store.open(tmp_path / "whole"))
    real, calls = lab.train_model, []

    def cut(*given: Any, **named: Any) -> Any:
        calls.append(named["out"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given, **named)

    store = Store.open(tmp_path / "cut")
    with monkeypatch.context() as patched:
        patched.setattr(lab, "train_model", cut)
        with pytest.raises(KeyboardInterrupt):
            train(PAINTER, store=store)
    assert train(PAINTER, store=store, resume="auto").model.digest() == whole.model.digest()


def test_phases_that_are_not_the_familys_are_refused() -> None:
    for phases in ([], [{"learn": "decoder", "train": {}}], [*PAINTER["phases"], *PAINTER["phases"]]):
        with pytest.raises(BadValue, match="phases that learn coder first, and they learn"):
            read({**PAINTER, "phases": phases})
    with pytest.raises(BadValue, match="phases that learn nothing first"):
        read("vit-digits", {"phases": PAINTER["phases"]})


def test_a_recipe_without_phases_has_the_digest_it_had_before_there_were_any() -> None:
    recipe = read("vit-digits")
    assert isinstance(recipe, TaskRecipe)
    painter = read(PAINTER)
    assert isinstance(painter, TaskRecipe)
    longer = read({**PAINTER, "phases": [{"learn": "coder", "train": {"steps": 7, **STEPS}}]})
    assert isinstance(longer, TaskRecipe)
    assert digest_without_seed(painter) != digest_without_seed(longer)
