"""A process that is gone: the job ends at once and says which and what is left, and the run goes on from there."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import yaml

from tests.training.parallel.launch import kill, started
from workbench.lab.run import train
from workbench.store.runs import Store
from workbench.training.checkpoint import pointed, read

EVERY = 10


def recipe(folder: Path, steps: int) -> Path:
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    values = {
        "name": "small", "text": {"file": str(folder / "text.txt"), "length": 16},
        "model": {"n_layers": 2, "d_model": 16, "n_heads": 2, "n_ctx": 16},
        "train": {"steps": steps, "batch_rows": 5, "warmup": 5, "save_every": EVERY, "threads": 1, "lr": 1e-3},
    }  # fmt: skip
    (folder / "small.yaml").write_text(yaml.safe_dump(values))
    return folder / "small.yaml"


def killed(tmp_path: Path, processes: int, kind: str, rank: int) -> None:
    """Start the real command, kill a rank after some checkpoints, and go on with one process."""
    path = recipe(tmp_path, steps=100_000)
    launcher = started(processes, "workbench.cli", "train", str(path), "--set", f"train.parallel.kind={kind}")
    runs = tmp_path / "home" / "runs"
    while launcher.poll() is None and not list(runs.glob("*/checkpoints/step-*[1-9]0/MANIFEST.sha256")):
        time.sleep(0.02)
    (out,) = runs.glob("*/checkpoints")
    time.sleep(0.1)
    kill(launcher, rank)
    began = time.monotonic()
    said, err = launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    assert time.monotonic() - began < 20
    assert said == ""
    words = re.findall(rf"Rank {rank} of {processes} is gone: .*? Training stopped after step (\d+)\. .*?step-(\d+)', is whole", err)
    assert len(words) == 1, err
    step, last = map(int, words[0])
    assert 0 <= step - last <= EVERY  # at most the last interval is lost
    folder = pointed(out, "latest")
    assert folder is not None
    assert (folder.name, read(folder).train_state["step"]) == (f"step-{last:08d}", last)
    with Store.open() as store:
        (run,) = store.runs.list(kind="train")
        assert run.status in ("failed", "interrupted")


@pytest.mark.full
def test_a_killed_process_ends_the_job_with_a_word(tmp_path: Path) -> None:
    killed(tmp_path, 2, "fsdp", 1)


@pytest.mark.full
@pytest.mark.parametrize(("name", "processes", "kind"), [("seq2seq-copying", 2, "fsdp"), ("clip-shapes", 4, "ddp")])
def test_the_real_command_trains_the_same(tmp_path: Path, name: str, processes: int, kind: str) -> None:
    """A task's recipe in float32: the curve, and one run in the store, which rank 0 alone wrote."""
    settings = ["--set", "train.steps=6", "--set", "train.batch_rows=6", "--set", "train.lr=1e-4", "--set", "train.min_lr=1e-4"]
    launcher = started(processes, "workbench.cli", "train", name, *settings, "--set", f"train.parallel.kind={kind}")
    said, err = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, err
    assert said.count("model   run:") == 1
    with Store.open() as store:
        (run,) = store.runs.list(kind="train")
        assert (run.status, run.provenance["processes"], run.provenance["parallel"]["kind"]) == ("done", processes, kind)
        found = read(tmp_path / "home" / "runs" / run.id / "checkpoints" / "final").train_state
        alone = train(name, settings={"train": {"steps": 6, "batch_rows": 6, "lr": 1e-4, "min_lr": 1e-4}}, store=store)
    expected = read(alone.folder).train_state
    assert [one["loss"] for one in found["record"]] == pytest.approx([one["loss"] for one in expected["record"]], rel=1e-4)
    assert found["tokens"] == expected["tokens"]


@pytest.mark.full
@pytest.mark.parametrize(("processes", "kind", "rank"), [(2, "ddp", 0), (3, "ddp", 1), (2, "tp", 1)])
def test_whichever_it_is(tmp_path: Path, processes: int, kind: str, rank: int) -> None:
    killed(tmp_path, processes, kind, rank)


@pytest.mark.full
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("rows", [r"BadValue: a row is \[\d+", r"LostRank: Rank 1 of 2 ended with BadValue: a row is"]),
        (
            "data",
            [r"BadValue: the training data of rank 1 is .*that of rank 0", r"Rank 1 of 2 ended with BadValue: the training data of rank 1"],
        ),
    ],
)
def test_an_error_of_one_process_is_told_by_the_other(tmp_path: Path, fault: str, words: list[str]) -> None:
    job = {"family": "gpt", "dtype": "float64", "train": {"steps": 3, "parallel": {"kind": "ddp"}}, "fault": fault}
    (tmp_path / "jobs.json").write_text(json.dumps([job]))
    launcher = started(2, "tests.training.parallel.driver", str(tmp_path / "jobs.json"), str(tmp_path / "answers.json"))
    _, err = launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    for pattern in words:
        assert re.search(pattern, err), err


@pytest.mark.full
def test_a_run_that_lost_a_process_goes_on_alone(tmp_path: Path) -> None:
    """The spec of a run does not say how many processes there are: ``--resume`` with one goes on with what two began."""
    whole = train(recipe(tmp_path, steps=60)).model
    path = recipe(tmp_path, steps=60)
    launcher = started(2, "workbench.cli", "train", str(path), "--set", "train.parallel.kind=ddp")
    runs = tmp_path / "home" / "runs"
    while launcher.poll() is None and not list(runs.glob("*/checkpoints/step-*20/MANIFEST.sha256")):
        time.sleep(0.01)
    kill(launcher, 1)
    launcher.communicate(timeout=60)
    with Store.open() as store:
        resumed = train(path, store=store, resume="auto")
    for name, value in whole.state_dict().items():
        assert (value - resumed.model.state_dict()[name]).abs().max() < 1e-4
