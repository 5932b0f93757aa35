"""SIGKILL at random moments of a real evaluation and a real training: what is resumed ends in the bytes of an unbroken run."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.lab.trained import SMALL
from workbench.lab import run as lab
from workbench.store.runs import Store

KILLS = 6

EVALUATION = """
import sys
from workbench.lab.run import evaluate
evaluate("occupation-pronoun", sys.argv[1], batch=4, resume="auto", contexts=10, progress=lambda d, *_: print(d, flush=True))
"""

TRAINING = """
import json, sys
from workbench.lab.run import train
train("town-target", settings=json.loads(sys.argv[1]), resume="auto", progress=lambda d, *_: print(d, flush=True))
"""


def _kill_until_done(script: str, argument: str, seed: int, seconds: float, kills: int) -> int:
    """Start the script again and again, killing it at a random moment after its first word, then let it end. Returns the kills."""
    chance, killed = random.Random(seed), 0
    while True:
        process = subprocess.Popen([sys.executable, "-c", script, argument], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        if killed < kills:
            time.sleep(chance.uniform(0, seconds))
            process.kill()
        process.communicate(timeout=300)
        if process.returncode == 0:
            return killed
        assert process.returncode == -signal.SIGKILL
        killed += 1


@pytest.mark.full
def test_an_evaluation_killed_again_and_again_equals_an_unbroken_one(store: Store, trained: str) -> None:
    whole = lab.evaluate("occupation-pronoun", trained, store=store, batch=4, contexts=10)
    assert _kill_until_done(EVALUATION, trained, seed=1, seconds=0.8, kills=KILLS) >= KILLS // 2
    # one run, taken up again each time, unless a kill met a process that had just finished: then the next start is a new run
    others = [record for record in store.runs.list(kind="eval") if record.id != whole.run]
    assert others
    for record in others:
        assert record.status == "done"
        assert store.sample_counts(record.id) == {"occupation-pronoun": 240}
        assert store.result(record.id, "occupation-pronoun").result.canonical() == whole.results["occupation-pronoun"].canonical()


@pytest.mark.full
def test_a_training_killed_again_and_again_ends_in_the_same_weights(store: Store) -> None:
    settings: dict[str, Any] = {**SMALL, "train": {**SMALL["train"], "steps": 60, "save_every": 10}}
    whole = lab.train("town-target", settings=settings, store=store)

    assert _kill_until_done(TRAINING, json.dumps(settings), seed=2, seconds=1.5, kills=KILLS) >= 1
    newest = store.runs.get("last")
    assert newest.id != whole.run
    assert newest.provenance["model_digest"] == whole.model.digest()
    assert store.result(newest.id, "training").result.canonical() == whole.history.canonical()
