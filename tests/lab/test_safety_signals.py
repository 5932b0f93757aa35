"""A training that is ended from outside, by real signals to the real process: what is kept and said, and the same weights in the end."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path

import pytest

from tests.lab.process import Home, Running, digest, sentence, stopped, unbroken
from workbench.training.recovery import is_whole

BIG = {"n_layers": 2, "d_model": 96, "n_heads": 2, "n_ctx": 16}
"""A model whose checkpoint takes long enough to be met while it is written."""


@pytest.mark.slow
def test_ctrl_c_ends_after_the_step_it_is_in_and_says_how_to_go_on(tmp_path: Path) -> None:
    home = Home(tmp_path / "a")
    running = home.start()
    running.until(lambda: home.steps())
    running.send(signal.SIGINT)
    said = sentence(running.wait(), 130)
    step = home.steps()[-1]
    assert f"Interrupted after step {step}, whose checkpoint is '{home.step(step)}'" in said
    assert said.endswith(f"Go on with the same command and `--resume {home.run()}`.")
    assert step % 40, "it did not wait for the step at which a checkpoint was due"
    assert is_whole(home.step(step))
    assert digest(home.train("--resume", home.run())) == unbroken()[1]
    assert home.state() == unbroken()[0].state()


@pytest.mark.slow
def test_sigterm_is_as_ctrl_c() -> None:
    said = (stopped().folder / "err-1").read_text()
    assert f"Interrupted after step {stopped().steps()[-1]}, whose checkpoint is" in said
    assert said.count("\n") == 1


@pytest.mark.slow
def test_sigkill_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    """The process is killed as soon as the next checkpoint's folder under its temporary name is seen, five times."""
    whole, cut = Home(tmp_path / "whole"), Home(tmp_path / "cut")
    for home in (whole, cut):
        home.recipe["model"] = BIG
        home.recipe["train"] = {"steps": 60, "save_every": 5, "keep": 2, "batch_rows": 2, "warmup": 2}
    wanted = digest(whole.train())
    met = 0
    running = cut.start()
    for kill in range(5):
        _kill_in_writing(running, cut, 5 * (kill + 1), files=kill % 4)
        left = list(cut.checkpoints.glob(".writing-step-*"))
        met += bool(left)
        latest = cut.checkpoints / "latest"
        assert not latest.exists() or is_whole(cut.checkpoints / latest.read_text().strip())
        assert not (cut.checkpoints / "final").exists()
        running = cut.start("--resume", cut.run())
    assert met >= 3, "the kills came at other moments"
    assert digest(running.wait()) == wanted
    assert not list(cut.checkpoints.glob(".writing-*")), "what was half written is gone"
    assert cut.state() == whole.state()


def _kill_in_writing(running: Running, home: Home, least: int, files: int) -> None:
    """SIGKILL once a checkpoint of ``least`` steps or more is being written, and has ``files`` files."""

    def writing() -> bool:
        return any(
            int(folder.name[-8:]) >= least and sum(1 for _ in folder.iterdir()) >= files
            for folder in home.folder.glob("home/runs/*/checkpoints/.writing-step-*")
        )

    with contextlib.suppress(FileNotFoundError):  # it was renamed between the two looks: as good a moment
        running.until(writing, pause=0.0)
    running.send(signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL


@pytest.mark.slow
def test_two_processes_do_not_train_one_run(tmp_path: Path) -> None:
    """The one that comes second is refused by the name of the first; of two that come at once one gets it; the dead hold nothing."""
    home = stopped().copy(tmp_path / "a")
    run = home.run()
    before = home.steps()[-1]
    first = home.start("--resume", run)
    first.until(lambda: home.steps()[-1] > before)
    said = sentence(home.train("--resume", run))
    assert f"Run {run} could not be resumed: another process is working on it: process {first.pid} on " in said
    first.send(signal.SIGKILL)
    assert first.wait().code == -signal.SIGKILL
    assert json.loads((home.checkpoints / ".lock").read_text())["pid"] == first.pid, "what a dead process left is there"
    pair = [home.start("--resume", run) for _ in range(2)]
    ended = [one.wait() for one in pair]
    assert sorted(one.code for one in ended) == [0, 3]
    won = ended[0].code != 0
    assert f"process {pair[won].pid} on " in ended[not won].err
    assert digest(ended[won]) == unbroken()[1]
