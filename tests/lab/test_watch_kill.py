"""SIGKILL at random moments of a real training that is watched: no look is lost, none doubled, and the curves are an unbroken one's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.lab.test_kill import TRAINING, _kill_until_done
from tests.lab.trained import SMALL
from workbench.lab import run as lab
from workbench.lab.watch.metrics import METRICS, read_metrics
from workbench.store.runs import Store

pytestmark = pytest.mark.full
WATCHED = {
    **SMALL, "train": {**SMALL["train"], "steps": 60, "save_every": 10, "validate_every": 20},
    "watch": {"measures": ["induction", "attention-entropy"], "every": 6, "rows": 4},
}  # fmt: skip


def test_a_watched_training_killed_again_and_again_has_the_curves_of_an_unbroken_one(store: Store) -> None:
    whole = lab.train("town-target", settings=WATCHED, store=store)
    assert _kill_until_done(TRAINING, json.dumps(WATCHED), seed=3, seconds=3.0, kills=3) >= 1
    newest = store.runs.get("last")
    assert newest.id != whole.run
    assert whole.watched is not None
    assert store.result(newest.id, "watched").result.canonical() == whole.watched.canonical()
    assert newest.provenance["model_digest"] == whole.model.digest()
    sequences = []
    for run in (whole.run, newest.id):
        lines = read_metrics(Path(store.folder(run)) / METRICS)
        sequences.append([(line["event"], line["step"], line.get("loss")) for line in lines if line["event"] != "begin"])
        said = [(event.name, event.details["step"]) for event in store.events(run) if event.name in ("watch", "validation")]
        assert len(said) == len(set(said)) == 11 + 3
    assert sequences[0] == sequences[1]
