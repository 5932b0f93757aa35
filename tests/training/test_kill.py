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


def start(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.training.kill_driver", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.full
def test_killed_ten_times_the_weights_are_the_same(tmp_path: Path) -> None:
    began = time.monotonic()
    whole = start(tmp_path / "whole")
    ready = time.monotonic()
    digest = whole.communicate(timeout=300)[0].strip()
    seconds = time.monotonic() - ready
    draw, kills, steps = random.Random(0), 0, []
    while kills < KILLS:
        process = start(tmp_path / "cut")
        try:
            process.wait(timeout=draw.uniform(0.0, 0.08) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL
            kills += 1
            folder = pointed(tmp_path / "cut", "latest")
            steps.append(int(folder.name[5:]) if folder is not None else 0)
            if folder is not None:
                load_model(folder)  # whole, whatever was being written
        else:
            pytest.fail(f"the run ended after {kills} kills (steps {steps}): it is too short to be killed {KILLS} times")
    last = start(tmp_path / "cut")
    assert last.communicate(timeout=300)[0].strip() == digest
    for name in ("model.safetensors", "train_state.json", "config.json", "MANIFEST.sha256"):
        assert (tmp_path / "cut" / "final" / name).read_bytes() == (tmp_path / "whole" / "final" / name).read_bytes()
    assert steps == sorted(steps)
    assert len(set(steps)) > KILLS // 2, f"the kills came at too few different places: {steps}"
    print(f"{KILLS} kills at steps {steps}; unbroken {seconds:.1f} s, all {time.monotonic() - began:.1f} s")
