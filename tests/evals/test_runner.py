"""Commit as you go, go on where you stopped, end in the same bytes; one model's answers are never another's."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evals.runner import MemorySink, run_suite, score_of
from tests.engine.models import Wrapped, lettered
from tests.evals.toy import Toy, ToySpec
from workbench.core.errors import BadValue, EmptySelection, Incompatible, StoreError
from workbench.core.measure import Score
from workbench.core.result import Result


class Stopped(Exception):
    pass


class StoppingSink(MemorySink):
    """Fails at the ``after``-th put, once."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after
        self.puts: list[int] = []

    def put(self, records) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stopped
        self.puts.append(len(records))
        super().put(records)


def test_a_run_has_its_origin_and_every_sample():
    model = lettered()
    result = run_suite(Toy(), model, ToySpec(count=10))
    assert result.kind == "toy"
    assert result.spec == ToySpec(count=10).model_dump(mode="json")
    assert result.provenance.model_digest == model.digest()
    assert len(result.provenance.data_digest) == 64
    assert result.values.attrs["asked"] == {"run": 10, "scored": 10, "unscored": {}, "excluded": 0}
    assert Result.from_json(result.to_json()).digest() == result.digest()


@pytest.mark.parametrize("after", [1, 2, 4, 5])
def test_an_interrupted_run_ends_in_the_same_bytes(after):
    model, spec = lettered(), ToySpec(count=20)
    whole = run_suite(Toy(), model, spec, batch=4)
    sink = StoppingSink(after)
    with pytest.raises(Stopped):
        run_suite(Toy(), model, spec, sink, batch=4)
    assert len(sink.done()) == 4 * (after - 1)
    sink.puts.clear()
    resumed = run_suite(Toy(), model, spec, sink, batch=4)
    assert sink.puts == [4] * (5 - (after - 1))  # what was committed is not asked again
    assert resumed.canonical() == whole.canonical()


def test_a_half_committed_chunk_is_computed_whole_and_the_first_answer_stays():
    model, spec = lettered(), ToySpec(count=8)
    full = MemorySink()
    whole = run_suite(Toy(), model, spec, full, batch=4)
    half = MemorySink()
    half.put(full.read()[:2])
    assert run_suite(Toy(), model, spec, half, batch=4).canonical() == whole.canonical()


def test_a_finished_run_asks_nothing():
    model, sink = Wrapped(lettered()), MemorySink()
    first = run_suite(Toy(), model, ToySpec(count=5), sink)
    model.runs.clear()
    assert run_suite(Toy(), model, ToySpec(count=5), sink).canonical() == first.canonical()
    assert model.runs == []


@pytest.mark.parametrize("change", ["model", "spec", "foreign"])
def test_answers_of_another_run_are_refused(change):
    sink = MemorySink()
    run_suite(Toy(), lettered(), ToySpec(count=5), sink)
    if change == "foreign":
        sink.put([{"sample": "x", "epoch": 0, "values": {}}])
    model = lettered(seed=1) if change == "model" else lettered()
    with pytest.raises(StoreError, match="another model, spec, data or suite"):
        run_suite(Toy(), model, ToySpec(count=6 if change == "spec" else 5), sink)


def test_what_the_engine_refuses_is_unscored_with_its_reason():
    result = run_suite(Toy(), lettered(n_ctx=16), ToySpec(count=6, long=2))
    asked = result.values.attrs["asked"]
    assert (asked["run"], asked["scored"]) == (6, 5)
    assert asked["unscored"] == {"a request's length in tokens must be at most 16, the model's context": 1}
    assert math.isnan(result.values["first"].values[2])


def test_a_score_that_is_not_finite_is_unscored():
    class Broken(Toy):
        def score(self, sample, response, spec):
            return Score(
                sample.id, {"first": float("nan") if sample.id == "001" else -1.0, "table": [0.5, {"x": float("inf")}][: int(sample.id)]}
            )

    asked = run_suite(Broken(), lettered(), ToySpec(count=3)).values.attrs["asked"]
    assert asked["unscored"] == {"not finite: first": 1, "not finite: table": 1}


def test_clusters_and_groups_come_from_the_samples():
    sink = MemorySink()
    run_suite(Toy(), lettered(), ToySpec(count=4), sink)
    scores = [score_of(record) for record in sink.read()]
    assert [(s.cluster, s.group) for s in scores] == [("0", "even"), ("1", "odd"), ("2", "even"), ("0", "odd")]


def test_errors_before_anything_is_asked():
    class Twice(Toy):
        def samples(self, spec):
            yield from (*super().samples(spec), *super().samples(spec))

    model = Wrapped(lettered())
    with pytest.raises(EmptySelection, match="suite 'toy'"):
        run_suite(Toy(), model, ToySpec(count=0))
    with pytest.raises(BadValue, match="used once in a suite"):
        run_suite(Twice(), model, ToySpec(count=2))
    with pytest.raises(BadValue, match="at least 1"):
        run_suite(Toy(), model, batch=0)
    with pytest.raises(Incompatible, match="does not offer logits"):
        run_suite(Toy(), Wrapped(lettered(), "logits"))
    assert model.runs == []


def test_progress_counts_samples():
    heard = []
    run_suite(Toy(), lettered(), ToySpec(count=10), progress=lambda done, total, words: heard.append((done, total, words)), batch=4)
    assert heard == [(4, 10, "toy"), (8, 10, "toy"), (10, 10, "toy")]


# --- a real process, a real kill ------------------------------------------------------------------------------


class FolderSink:
    """A file a record, written under a temporary name and renamed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def done(self):
        return {(record["sample"], record["epoch"]) for record in self.read()}

    def put(self, records) -> None:
        path = self.folder / f"{records[0]['sample']}.json"
        if not path.exists():
            temporary = path.with_suffix(".part")
            temporary.write_text(json.dumps([dict(r) for r in records]))
            temporary.rename(path)

    def read(self):
        return sorted((r for p in self.folder.glob("*.json") for r in json.loads(p.read_text())), key=lambda r: (r["sample"], r["epoch"]))


def run_in(folder: str) -> None:
    """What the killed process does."""
    spec = ToySpec(count=24, pause=0.02)
    result = run_suite(Toy(), lettered(), spec, FolderSink(Path(folder)), batch=4)
    (Path(folder) / "result").write_text(result.canonical())


@pytest.mark.full
def test_kill_9_at_random_moments_changes_nothing(tmp_path):
    root = Path(__file__).parents[2]
    code = f"from tests.evals.test_runner import run_in; print('ready', flush=True); run_in({str(tmp_path)!r})"
    draw = random.Random(0)
    kills = 0
    for _ in range(10):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        done = kills >= 4
        try:
            process.wait(timeout=None if done else draw.uniform(0.05, 0.4))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        process.stdout.close()
        if (tmp_path / "result").exists():
            break
    assert kills >= 1
    whole = run_suite(Toy(), lettered(), ToySpec(count=24, pause=0.02), batch=4)
    assert (tmp_path / "result").read_text() == whole.canonical()


def test_the_batch_changes_no_byte_of_a_certified_model():
    model = lettered()
    whole = run_suite(Toy(), model, ToySpec(count=7))
    for batch in (1, 3):
        assert run_suite(Toy(), model, ToySpec(count=7), batch=batch).digest() == whole.digest()


def test_a_check_is_told_beside_the_result_and_changes_nothing_in_it():
    model = lettered()
    plain, checked = run_suite(Toy(), model, ToySpec()), run_suite(Toy(), model, ToySpec(), check=0.1)
    assert checked.digest() == plain.digest()
    assert "scoring" not in plain.provenance.volatile
    assert checked.provenance.volatile["scoring"].startswith("certified: at most ")
    loose = run_suite(Toy(), Wrapped(model), ToySpec(long=0), check=0.1)
    assert loose.provenance.volatile["scoring"].startswith("not certified (this gpt model cannot run texts as a forest)")
