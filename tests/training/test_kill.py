"""SIGKILL to the real process at random moments: the final files are those of an unbroken run, to the byte."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workbench.training.checkpoint import load_model, pointed

ROOT = Path(__file__).parents[2]
KILLS = 10
MOST = 100
"""Events (nearly all of them steps) that a process may live to tell: ten such lives, as they are drawn, end before the 700 steps do."""


def start(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.training.kill_driver", str(out)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def digest_of(process: subprocess.Popen[str]) -> str:
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0
    return said.split()[-1]


@pytest.mark.full
def test_killed_ten_times_the_weights_are_the_same(tmp_path: Path) -> None:
    began = time.monotonic()
    digest = digest_of(start(tmp_path / "whole"))
    draw, steps = random.Random(0), []
    for _ in range(KILLS):
        with start(tmp_path / "cut") as process:
            assert process.stdout is not None
            for _ in range(draw.randint(1, MOST)):
                assert process.stdout.readline().strip(), f"the run ended by itself (steps {steps})"
            time.sleep(draw.uniform(0.0, 0.02))  # somewhere within a step, a validation or a checkpoint
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, f"the run is too short to be killed {KILLS} times (steps {steps})"
        folder = pointed(tmp_path / "cut", "latest")
        steps.append(int(folder.name[5:]) if folder is not None else 0)
        if folder is not None:
            load_model(folder)  # whole, whatever was being written
    assert digest_of(start(tmp_path / "cut")) == digest
    for name in ("model.safetensors", "train_state.json", "config.json", "MANIFEST.sha256"):
        assert (tmp_path / "cut" / "final" / name).read_bytes() == (tmp_path / "whole" / "final" / name).read_bytes()
    assert steps == sorted(steps)
    assert len(set(steps)) > KILLS // 2, f"the kills came at too few different places: {steps}"
    print(f"{KILLS} kills at steps {steps}, all {time.monotonic() - began:.1f} s")
