"""A run that would go on with something else than it was started with, and one that leaves the numbers."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.lab.process import TEXT, Home, digest, sentence, stopped, unbroken
from workbench.store.runs import Store


@pytest.mark.slow
def test_a_text_that_changed_meanwhile(tmp_path: Path) -> None:
    home = stopped().copy(tmp_path / "a")
    last = home.step(home.steps()[-1])
    for changed, what in (
        (TEXT.replace("cat", "tac", 1), "training data"),
        (TEXT + "the cat sat on a mat", "training data"),
        (TEXT.replace("the", "THE", 1), "training data"),
        (TEXT[:-9] + TEXT[-9:].replace("s", "a"), "validation data"),
    ):
        home.text.write_text(changed)
        said = sentence(home.train("--resume", home.run()))
        assert f"The run in '{home.checkpoints}' was started with another {what} (" in said
        assert f"Put back what it was to go on from '{last}', or start a new run." in said
    home.text.unlink()
    said = sentence(home.train("--resume", home.run()))
    assert said == f"No text file to train on at 'text.txt'. Then go on from '{last}' with the same command and `--resume {home.run()}`."


@pytest.mark.slow
def test_a_spec_that_is_another(tmp_path: Path) -> None:
    home = stopped().copy(tmp_path / "a")
    said = sentence(home.train("--resume", home.run(), "--set", "train.lr=0.1"), 64)
    assert said.endswith("They differ in train.lr (0.0015 then, 0.1 now).")
    said = home.train("--resume", home.run(), "--set", "train.lr=0.1", "--set", "model.d_model=32").err
    assert "They differ in model.d_head, model.d_mlp, model.d_model, train.lr." in said
    run = home.run()
    new = home.train("--resume", "auto", "--set", "train.steps=2")
    assert (new.code, new.err) == (0, "No unfinished run has exactly this spec: this is a new run.\n")
    assert run not in new.out


@pytest.mark.slow
def test_other_versions_and_threads(tmp_path: Path) -> None:
    """It goes on, since its spec and data are the same; it says so, and the history and its digest say so too."""
    home = stopped().copy(tmp_path / "a")
    step, run = home.steps()[-1], home.run()
    began = home.state(f"step-{step:08d}")["made_with"]
    ended = home.train("--resume", run, versions={"torch": "9.9", "assay-workbench": "9.9.9"}, threads=2)
    assert digest(ended) == unbroken()[1], "it was the same code after all, and the threads were those it began with"
    own, torch = began["assay-workbench"], began["torch"]
    said = f"From step {step} on under assay-workbench {own} before and 9.9.9 now, torch {torch} before and 9.9 now"
    assert ended.err.startswith(said)
    assert ended.err.count("\n") == 1
    state = home.state()
    assert state["changes"] == [{"step": step, "changed": {"assay-workbench": [own, "9.9.9"], "torch": [torch, "9.9"]}}]
    assert state["made_with"] | {"torch": "", "assay-workbench": ""} == began | {"torch": "", "assay-workbench": ""}
    assert state["threads"] == 1
    with Store.open(home.folder / "home") as store:
        (event,) = [event for event in store.events(run) if event.name == "changed"]
        history = store.result(run, "training").result
    assert event.details["words"].startswith(said)
    assert history.notes == (event.details["words"],)


@pytest.mark.slow
def test_a_loss_that_leaves_the_numbers(tmp_path: Path) -> None:
    """Decay by fifty times the weight each step: weights grow 49-fold until a float32 holds them no more."""
    home = Home(tmp_path / "a")
    home.recipe["train"] = {
        "steps": 100, "batch_rows": 2, "warmup": 0, "save_every": 2, "lr": 1.0, "min_lr": 1.0, "weight_decay": 50.0, "clip": 0.0,
    }  # fmt: skip
    said = sentence(home.train())
    step = home.steps()[-1]
    assert "Training stopped at step " in said
    assert f"The last checkpoint, '{home.step(step)}', is whole, but to go on would end here again." in said
    assert said.endswith("Lower `lr`, lengthen `warmup` or look at the data of that step, in a new run.")
    assert home.train("--resume", home.run()).err.strip() == said, "the same steps end the same way"
    assert not (home.checkpoints / "final").exists()


@pytest.mark.slow
def test_weights_that_a_step_spoilt_are_not_kept(tmp_path: Path) -> None:
    """The loss of the first step is that of the first weights, which are sound: only what it left is not."""
    home = Home(tmp_path / "a")
    home.recipe["train"] = {"steps": 1, "batch_rows": 2, "warmup": 0, "lr": 1e39, "min_lr": 1e39}
    said = sentence(home.train())
    assert "Training stopped at step 1: the validation loss is nan. No checkpoint had been written." in said
    said = sentence(home.train("--set", "train.save_every=1"))
    assert "Training stopped at step 1: '" in said
    assert "' is not finite. No checkpoint had been written." in said
    assert not list(home.folder.glob("home/runs/*/checkpoints/final"))
    assert not home.steps()


@pytest.mark.full
def test_a_mirror_that_changed_meanwhile(tmp_path: Path) -> None:
    """A registered text is checked against its sha256 whenever it is read."""
    source = Path(os.environ.get("WORKBENCH_DATA_MIRROR", "")) / "tinyshakespeare"
    if not source.is_dir():
        pytest.skip("no mirror of public data holds tinyshakespeare here")
    shutil.copytree(source, tmp_path / "mirror" / "tinyshakespeare")
    home = Home(tmp_path / "a")
    home.recipe["text"] = {"source": "tinyshakespeare", "length": 16}
    env = {"WORKBENCH_DATA_MIRROR": str(tmp_path / "mirror")}
    running = home.start(env=env)
    running.until(lambda: home.steps())
    running.send(signal.SIGTERM)
    assert running.wait().code == 130
    (file,) = [path for path in (tmp_path / "mirror" / "tinyshakespeare").rglob("*") if path.is_file() and path.stat().st_size > 10**6]
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)
    ended = home.train("--resume", home.run(), env=env)
    assert ended.code == 3, ended.err
    assert "should be of sha256" in ended.err
    assert ended.err.endswith(f"Then go on from '{home.step(home.steps()[-1])}' with the same command and `--resume {home.run()}`.\n")
