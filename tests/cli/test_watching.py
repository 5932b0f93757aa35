"""``workbench train`` with a watch, what is drawn of it, and a run that goes on by its own recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Call
from workbench.core.errors import EXIT_ERROR, EXIT_USAGE
from workbench.lab.trainings import course, recipe_of
from workbench.store.runs import Store

RECIPE = {
    "name": "letters", "text": {"file": "text.txt", "length": 16}, "model": {"n_layers": 1, "d_model": 8, "n_heads": 2, "n_ctx": 16},
    "train": {"steps": 6, "batch_rows": 2, "warmup": 1, "save_every": 3, "threads": 1},
}  # fmt: skip


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "letters-home"))
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog; " * 20)
    (tmp_path / "letters.yaml").write_text(yaml.safe_dump(RECIPE))
    return tmp_path / "letters.yaml"


@pytest.mark.slow
def test_a_training_is_watched_by_setting_and_drawn(call: Call, recipe: Path) -> None:
    words = ["train", str(recipe), "--set", "watch.measures=[induction, attention-entropy]", "--set", "watch.every=2"]
    said = call(*words)
    assert said.code == 0
    assert "watched: 4 looks at steps 0, 2, 4, 6" in said.out
    assert "induction (attention): L0H" in said.out
    document = call(*words, "--json").document
    assert document["watched"][0] == "watched: 4 looks at steps 0, 2, 4, 6"
    assert call("runs", "plot", "last", "a.svg", "--result", "watched").code == 0
    drawn = Path("a.svg").read_text()
    assert "attention-entropy" in drawn
    assert "an even head" in drawn
    assert "has 2 results (training, watched)" in call("runs", "plot", "last", "b.svg").err


def test_a_misspelt_watch_and_one_that_cannot_be_asked_are_refused(call: Call, recipe: Path, tmp_path: Path) -> None:
    said = call("train", str(recipe), "--set", "watch.measures=[inductions]")
    assert said.code == EXIT_USAGE
    assert "There is no watch 'inductions'. Did you mean 'induction'" in said.err
    said = call("train", str(recipe), "--set", "watch.measures=[bias-gap]")
    assert said.code == EXIT_ERROR
    assert "it asks about the people of the generated town" in said.err
    with Store.open(tmp_path / "letters-home") as store:
        assert store.runs.list() == ()


@pytest.mark.slow
def test_a_stopped_run_goes_on_by_its_own_recipe(call: Call, recipe: Path, tmp_path: Path) -> None:
    whole = call("train", str(recipe), "--set", "train.seed=5", "--json").document
    home = tmp_path / "letters-home"
    with Store.open(home) as store:
        plan = recipe_of(whole["run"], store)
        assert plan["train"]["seed"] == 5
        run = store.runs.create("train", plan, "recipe:letters")
        store.runs.finish(run, "interrupted")
    recipe.unlink()
    said = call("train", "--resume", run, "--json").document
    assert (said["run"], said["digest"]) == (run, whole["digest"])
    with Store.open(home) as store:
        assert course(store, run).record.status == "done"
    said = call("train")
    assert said.code == EXIT_USAGE
    assert "--resume RUN alone goes on with that run by its own recipe" in said.err
    assert "There is no run 'nonsense'" in call("train", "--resume", "nonsense").err
