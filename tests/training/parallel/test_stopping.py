"""Ctrl-C to a training by several processes, on the real command: all finish the same step, save it together, and say how to go on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.training.parallel.launch import ranks, started
from tests.training.parallel.test_lost import recipe
from workbench.core.errors import EXIT_INTERRUPTED
from workbench.store.runs import Store
from workbench.training.checkpoint import pointed, read
from workbench.training.recovery import is_whole

STEPS, EVERY = 120, 30


def command(folder: Path, kind: str, *words: str) -> subprocess.Popen[str]:
    path = folder / "small.yaml" if words else recipe(folder, STEPS)
    settings = ["--set", f"train.parallel.kind={kind}", "--set", f"train.save_every={EVERY}", "--set", "train.accumulate=2"]
    return started(2, "workbench.cli", "train", str(path), *settings, "--set", "train.batch_rows=4", *words)


def weights(said: str) -> str:
    """The digest of the model, as the command says it."""
    return re.findall(r"digest  (\w+)", said)[0]


def interrupted(folder: Path, kind: str, number: signal.Signals, whom: str) -> str:
    """Start a training, signal ``whom`` after its first checkpoint, check what is left and said, and return its run's id."""
    launcher = command(folder, kind)
    runs = folder / "home" / "runs"
    while launcher.poll() is None and not list(runs.glob(f"*/checkpoints/step-*{EVERY}/MANIFEST.sha256")):
        time.sleep(0.01)
    if whom == "group":
        os.killpg(launcher.pid, number)
    elif whom == "launcher":
        launcher.send_signal(number)
    else:
        os.kill(ranks(launcher)[int(whom)], number)
    said, err = launcher.communicate(timeout=60)
    assert (launcher.returncode != 0, said) == (True, ""), err
    with Store.open() as store:
        (run,) = store.runs.list(kind="train")
        assert run.status == "interrupted", err
    last = pointed(runs / run.id / "checkpoints", "latest")
    assert last is not None, err
    assert is_whole(last)
    step = read(last).train_state["step"]
    assert EVERY < step < STEPS
    assert step % EVERY, "it did not wait for the step at which a checkpoint was due"
    told = f"Interrupted after step {step}, whose checkpoint is '{last}'. Go on with the same command and `--resume {run.id}`."
    assert err.count(told) == 1, err
    assert err.count("Interrupted") == 1, "the first process alone says it"
    assert "is gone" not in err
    if whom.isdigit():  # then torchrun waits for its processes and reports how they ended
        codes = dict(re.findall(r"rank\s*: (\d) .*\n\s*exitcode\s*: (-?\d+)", err))
        assert codes.pop("0") == str(EXIT_INTERRUPTED), err
        # torchrun sends SIGTERM as soon as one has ended, and may meet the other while its interpreter closes
        assert set(codes.values()) <= {str(EXIT_INTERRUPTED), str(-signal.SIGTERM)}, err
    return run.id


@pytest.mark.full
def test_ctrl_c_at_the_launcher_ends_all_after_one_step(tmp_path: Path) -> None:
    interrupted(tmp_path, "fsdp", signal.SIGINT, "launcher")


@pytest.mark.full
@pytest.mark.parametrize(
    ("kind", "number", "whom"),
    [
        ("ddp", signal.SIGINT, "group"),
        ("fsdp", signal.SIGINT, "launcher"),
        ("tp", signal.SIGINT, "1"),
        ("pipeline", signal.SIGTERM, "launcher"),
    ],
)
def test_what_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, kind: str, number: signal.Signals, whom: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = interrupted(tmp_path, kind, number, whom)
    said, err = command(tmp_path, kind, "--resume", run).communicate(timeout=400)
    assert said, err
    whole = tmp_path / "whole"
    whole.mkdir()
    monkeypatch.setenv("WORKBENCH_HOME", str(whole / "home"))
    unbroken, err = command(whole, kind).communicate(timeout=400)
    assert unbroken, err
    assert weights(said) == weights(unbroken)
