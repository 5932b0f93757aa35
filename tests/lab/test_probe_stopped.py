"""A probe that is ended by Ctrl-C: what was found is kept, and its run is no finished one."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.lab.process import Ended, Home, Running, server
from workbench.core.errors import UsageError
from workbench.engine import sweep
from workbench.lab import run as lab
from workbench.lab.record import Interrupted
from workbench.store.runs import Store

MODEL = {"n_layers": 4, "d_model": 64, "n_heads": 2, "n_ctx": 64}
ASKED = {"components": ["neurons"], "quantity": "kl", "memory_mib": 32}
TEXTS = 24
"""A thousand neurons in each of these texts: long enough to be met on the way."""
CLEAN = "the cat sat on the mat and the dog saw it. the cat sat on the "
CORRUPT = "the dog saw on the cat and the mat sat it. the dog saw on the "


def probed(home: Home, number: int) -> Running:
    """``workbench probe activation-patching`` on the home's model, as a process."""
    said = tuple(home.folder / f"probe-{name}-{number}" for name in ("out", "err"))
    asked = [f"{name}={value}".replace(" ", "") for name, value in ASKED.items()]
    words = ["probe", "activation-patching", "--model", f"run:{home.run()}", *["--text", CLEAN] * TEXTS]
    words += [word for one in (*asked, f"inputs.corrupt={json.dumps([CORRUPT] * TEXTS)}") for word in ("--set", one)]
    env = {"WORKBENCH_HOME": str(home.folder / "home")}
    return Running(server().start(words=words, env=env, out=str(said[0]), err=str(said[1]), cwd=str(home.folder)), (said[0], said[1]))


@pytest.mark.slow
def test_ctrl_c_keeps_what_a_probe_found_and_its_run_is_interrupted(tmp_path: Path) -> None:
    home = Home(tmp_path / "a")
    home.recipe["model"], home.recipe["train"] = MODEL, {"steps": 4, "batch_rows": 2, "warmup": 2}
    home.recipe["text"]["length"] = MODEL["n_ctx"]
    assert home.train().code == 0
    with Store.open(home.folder / "home") as store:
        for number in range(5):  # until one is met after its first values
            ended, run = _stopped(home, store, number, pause=2.0**number)
            assert ended.code == 130, ended.err
            assert "Traceback" not in ended.err
            assert ended.err.count("\n") == 1
            assert store.runs.get(run).status == "interrupted"
            if not store.result_digests(run):
                assert ended.err == "Interrupted before anything was found. The same command asks anew.\n"
                continue
            assert ended.err.startswith(f"Interrupted: `workbench runs show {run}` has what was found until then.")
            kept = store.result(run, "activation-patching").result
            assert kept.stopped_early
            known = np.isfinite(kept.values.value.values)
            assert 0 < known.sum() < known.size
            assert f"{known.sum()} of {known.size} values were computed" in kept.notes[-1]
            return
    pytest.fail("no interruption met the patching on its way")


def _stopped(home: Home, store: Store, number: int, pause: float) -> tuple[Ended, str]:
    """A probe's process, ended by SIGINT so long after its run began."""
    before = {record.id for record in store.runs.list(kind="probe")}
    running = probed(home, number)
    (run,) = running.until(lambda: {record.id for record in store.runs.list(kind="probe")} - before, pause=0.02)
    time.sleep(pause)
    running.send(signal.SIGINT)
    return running.wait(), run


def _at_once(done: int, total: int, words: str = "") -> None:
    if words == "items":
        raise KeyboardInterrupt


def test_a_probe_stopped_before_it_found_anything_keeps_nothing(store: Store, trained: str) -> None:
    with pytest.raises(Interrupted, match="before anything was found") as stopped:
        lab.probe("saliency", trained, {"texts": ["the baker said"], "targets": [" she"]}, store=store, progress=_at_once)
    assert store.runs.get(stopped.value.run).status == "interrupted"
    assert store.result_digests(stopped.value.run) == {}


def test_a_probe_stopped_on_its_way_keeps_what_it_has(store: Store, trained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And KL, which compares whole answers, asks for no target in words either."""
    monkeypatch.setattr(sweep, "TOGETHER", 1)
    monkeypatch.setattr(sweep, "ENOUGH", 1)  # cells of one position a run

    def stop(done: int, total: int, words: str = "") -> None:
        if total > 1:
            raise KeyboardInterrupt

    asked: dict[str, Any] = {"quantity": "kl", "store": store}
    texts = {"texts": ["the baker said"], "corrupt": ["the mason said"]}
    whole = lab.probe("activation-patching", trained, texts, **asked)
    assert not whole.stopped_early
    assert store.runs.get(whole.provenance.volatile["run"]).status == "done"
    with pytest.raises(Interrupted, match="has what was found until then") as stopped:
        lab.probe("activation-patching", trained, texts, progress=stop, **asked)
    assert store.runs.get(stopped.value.run).status == "interrupted"
    kept = store.result(stopped.value.run, "activation-patching").result
    known = np.isfinite(kept.values.value.values)
    assert kept.stopped_early
    assert 0 < known.sum() < known.size
    np.testing.assert_allclose(kept.values.value.values[known], whole.values.value.values[known], atol=1e-6)
    with pytest.raises(UsageError, match="needs a target"):
        lab.probe("activation-patching", trained, texts, store=store)
