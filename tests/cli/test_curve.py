"""``workbench curve``: a stored result scored in every way, with charts; what cannot be, told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.evals.test_specification import pairs
from workbench.store.runs import Store


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A finished evaluation, of a model that is not needed any more."""
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    with Store.open() as store:
        made = store.runs.create("eval", {"suites": {"crows-pairs": {}}}, "run:gone")
        store.put_result(made, "crows-pairs", pairs(0.7))
        store.runs.finish(made)
    return made


def test_a_run_is_scored_in_every_way_without_a_model(call: Call, run: str, tmp_path: Path) -> None:
    said = call("curve", run, "--out", str(tmp_path / "curves"))
    assert said.code == 0
    assert "54 ways of scoring" in said.out
    assert "detected: pairs whose more stereotyping sentence scores higher, whatever the scoring" in said.out
    assert (tmp_path / "curves" / "crows-pairs-1.svg").read_text().startswith("<svg")
    (curve,) = call("curve", run, "--json").document["curves"]
    assert len(curve["ways"]) == 54
    assert set(curve["finding"]["details"]["parts"]) == {"scoring", "a tie", "pairs", "mean over"}


def test_what_cannot_be_scored_in_several_ways_is_told(call: Call, run: str) -> None:
    assert call("curve", "no-such-run").code == 64
    other = call("curve", run, "--suite", "perplexity")
    assert other.code == 64
    assert "crows-pairs" in other.err
    with Store.open() as store:
        empty = store.runs.create("eval", {"suites": {}}, "run:gone")
        store.runs.finish(empty)
    said = call("curve", empty)
    assert said.code == 64
    assert "it has none of crows-pairs, stereoset, winobias, bbq" in said.err
