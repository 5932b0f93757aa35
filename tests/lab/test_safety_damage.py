"""A run whose newest checkpoint is not whole: what is wrong is named, with the last good one, and nothing goes on by itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.process import digest, sentence, stopped, unbroken
from workbench.store.runs import Store
from workbench.training.checkpoint import MANIFEST
from workbench.training.recovery import is_whole


def flip(path: Path, place: float = 0.9) -> None:
    """Turn one bit, ``place`` of the way into the file (a tensor's values, in a file of tensors)."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 4
    path.write_bytes(content)


def add_to_manifest(folder: Path) -> None:
    with (folder / MANIFEST).open("a") as file:
        file.write(f"{'0' * 64}  more.safetensors\n")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit of a weight": (lambda f: flip(f / "model.safetensors"), "/model.safetensors' should be of sha256"),
    "a bit of a moment": (lambda f: flip(f / "optimizer.safetensors"), "/optimizer.safetensors' should be of sha256"),
    "a bit of the state": (lambda f: flip(f / "train_state.json", 0.5), "/train_state.json' should be of sha256"),
    "a missing file": (lambda f: (f / "optimizer.safetensors").unlink(), "/optimizer.safetensors' is missing"),
    "a missing manifest": (lambda f: (f / MANIFEST).unlink(), f"/{MANIFEST}' is missing"),
    "half a file": (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:999]), "should be of sha256"),
    "an empty file": (lambda f: (f / "config.json").write_bytes(b""), "/config.json' should be of sha256"),
    "a listed file that is not there": (add_to_manifest, "/more.safetensors' is missing"),
    "a file that is not listed": (lambda f: (f / "notes.txt").write_text("mine"), "/notes.txt' should be listed in its manifest"),
    "a manifest that is none": (lambda f: (f / MANIFEST).write_bytes(b"\xff\x00"), f"/{MANIFEST}' should be lines of a sha256"),
    "a pointer to nothing": (lambda f: (f.parent / "latest").write_text("step-00009999\n"), "/latest' should be the name of a checkpoint"),
    "the folder itself": (shutil.rmtree, "/latest' should be the name of a checkpoint"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named_with_the_last_good_checkpoint_and_the_way_on(tmp_path: Path, what: str) -> None:
    home = stopped().copy(tmp_path / "a")
    spoil, words = DAMAGE[what]
    newest, steps = home.checkpoints / (home.checkpoints / "latest").read_text().strip(), home.steps()
    spoil(newest)
    good = steps[-1] if what == "a pointer to nothing" else steps[-2]
    there = sorted(str(path) for path in home.checkpoints.rglob("*"))
    said = sentence(home.train("--resume", home.run()))
    assert words in said
    assert f"The last whole checkpoint is '{home.step(good)}': restore the damaged one, or go on from step {good} " in said
    assert said.endswith(f"with the same command and `--resume {home.run()} --from {good}`.")
    assert sorted(str(path) for path in home.checkpoints.rglob("*")) == there, "nothing was written, moved or taken away"
    assert not is_whole(newest) or what == "a pointer to nothing"


@pytest.mark.slow
def test_going_back_when_told_to_ends_in_the_same_weights(tmp_path: Path) -> None:
    home = stopped().copy(tmp_path / "a")
    steps, run = home.steps(), home.run()
    flip(home.step(steps[-1]) / "optimizer.safetensors")
    assert "must be a step with a whole checkpoint" in home.train("--resume", run, "--from", "7").err
    refused = home.train("--resume", run, "--from", str(steps[-1]))
    assert (refused.code, refused.err.count("\n")) == (64, 1), "a damaged one is not gone back to"
    assert digest(home.train("--resume", run, "--from", str(steps[-2]))) == unbroken()[1]
    assert home.state() == unbroken()[0].state()
    assert (home.checkpoints / f"aside-step-{steps[-1]:08d}" / "optimizer.safetensors").is_file(), "the damaged one is kept"
    with Store.open(home.folder / "home") as store:
        (said,) = [event.details for event in store.events(run) if event.name == "rewound"]
    assert said == {"step": steps[-2], "aside": [f"step-{steps[-1]:08d}"], "of": ""}


@pytest.mark.slow
def test_where_nothing_is_whole_it_says_so(tmp_path: Path) -> None:
    home = stopped().copy(tmp_path / "a")
    for step in home.steps():
        flip(home.step(step) / "model.safetensors")
    said = sentence(home.train("--resume", home.run()))
    assert "No other checkpoint of this run is whole: restore that one, or begin again with the same command and" in said
    assert said.endswith(f"`--resume {home.run()} --from 0`.")
    assert "--resume" in home.train("--from", "0").err


@pytest.mark.slow
def test_a_finished_model_that_is_damaged_is_made_again_from_its_last_steps(tmp_path: Path) -> None:
    whole, wanted = unbroken()
    home = whole.copy(tmp_path / "a")
    flip(home.checkpoints / "final" / "model.safetensors")
    assert "a run that is not finished" in home.train("--resume", home.run()).err
    last = home.steps()[-1]
    assert digest(home.train("--resume", home.run(), "--from", str(home.steps()[-2]))) == wanted
    assert is_whole(home.checkpoints / "final")
    assert (home.checkpoints / f"aside-step-{last:08d}").is_dir()
    assert (home.checkpoints / "aside-final").is_dir()
