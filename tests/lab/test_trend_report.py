"""A training over its checkpoints as a report: each is asked, changes are paired, and a training without two of them is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.reports.accessibility import problems
from workbench.core.errors import BadValue, UnknownName, UsageError
from workbench.lab import trend_report
from workbench.lab.compare import compare
from workbench.lab.refs import checkpoint_of
from workbench.lab.trend_report import checkpoints, trend_of
from workbench.organisms import ORGANISMS
from workbench.store.runs import Store
from workbench.training.checkpoint import MANIFEST


@pytest.mark.full
def test_every_checkpoint_is_asked_and_paired_with_the_one_before(store: Store, trained: str) -> None:
    training = trained.removeprefix("run:")
    assert list(checkpoints(store, training)) == [6, 12]
    settings = {"trigger": {"count": 8}, "occupation-pronoun": {"contexts": 3}}
    made = trend_of(training, ["trigger", "occupation-pronoun"], settings=settings, store=store, date="2026-01-02")
    asked = store.runs.list(kind="eval", parent=training)
    assert len(asked) == 2
    assert {record.status for record in asked} == {"done"}
    said = {one.anchor: one for one in made.report.sections}["suite-occupation-pronoun"]
    measures, changes = said.tables
    assert {row[1] for row in measures.rows} == {6, 12}
    assert {(row[1], row[2]) for row in changes.rows} == {(6, 12)}
    first, second = sorted(record.id for record in asked)
    for one in compare(first, second, "occupation-pronoun", store=store).differences:
        row = next(r for r in changes.rows if r[0] == one.value)
        assert (row[3], row[4], row[5]) == (one.first, one.second, one.difference)
        assert (row[6], row[7]) == ((one.interval.low, one.interval.high) if one.interval else (None, None))
    assert made.report.kind == "trend"
    assert {finding.subject for finding in made.findings} == {"step 12"}
    assert problems(made.html.read_text(encoding="utf-8")) == []
    assert str(store.home) not in made.html.read_text(encoding="utf-8"), "a report names no folder of this machine"


def test_every_suite_is_asked_about_the_world_of_its_own_kind_that_the_training_was_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ORGANISMS.load("gallery").configure({"dose": 0.3, "seed": 7}).model_dump(mode="json")
    asked: list[dict[str, Any]] = []

    def stopped(suites: list[str], model: str, **given: Any) -> Any:
        asked.append({name: given[name] for name in suites})
        raise UsageError("asked")

    monkeypatch.setattr(trend_report, "evaluate", stopped)
    suites = ["memorised-images", "exposure", "drawn-attributes"]
    with Store.open(tmp_path) as store:
        training = store.runs.create("train", {"organism": "gallery", "made": made}, "recipe:gallery")
        for step in ("step-1", "step-2"):
            (checkpoint_of(store, training) / step).mkdir(parents=True)
            (checkpoint_of(store, training) / step / MANIFEST).touch()
        for settings in ({}, {"memorised-images": {"world": {"dose": 0.9}}}):
            with pytest.raises(UsageError, match="asked"):
                trend_of(training, suites, settings=settings, store=store)
    assert made["world"]["dose"] == 0.3
    assert asked[0] == {"memorised-images": {"world": made["world"]}, "exposure": {}, "drawn-attributes": {}}, "a gallery is no town"
    assert asked[1] == {**asked[0], "memorised-images": {"world": {"dose": 0.9}}}, "what is given counts"


def test_what_has_no_trend_is_refused(store: Store, trained: str) -> None:
    training = trained.removeprefix("run:")
    run = store.runs.create("eval", {})
    with pytest.raises(UsageError, match="is of kind 'eval', and checkpoints are a training's"):
        trend_of(run, ["trigger"], store=store)
    with pytest.raises(UnknownName, match="no suite 'tigger'"):
        trend_of(training, ["tigger"], store=store)
    (checkpoint_of(store, training) / "step-00000006" / "MANIFEST.sha256").unlink()
    with pytest.raises(BadValue, match=r"is 1, but it must be at least 2\. `--set train.keep=N`"):
        trend_of(training, ["trigger"], store=store)
