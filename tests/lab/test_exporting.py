"""A run of the store in the dialects of other programs, and back: the same samples with the same numbers."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from evals.suites.own_task import SUITE
from tests.lab.audited import home_with_audit
from tests.lab.exported import MANY, asked, plain
from workbench.core.errors import StoreError, UnknownName, UsageError
from workbench.lab.compare import compare
from workbench.lab.exporting import FORMATS, evaluated, export
from workbench.lab.importing.run import import_files
from workbench.store.runs import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    with Store.open() as opened:
        yield opened


def test_every_format_is_written_where_it_is_told(store: Store, tmp_path: Path) -> None:
    run = asked(store, plain(tmp_path))
    for form in FORMATS:
        written = export(run[:9], form, str(tmp_path / form), store=store)
        assert written.places
        assert all(place.is_file() and place.is_relative_to(tmp_path / form) for place in written.places)
        assert written.notes == ()
    (default, *_) = export("last", "csv", store=store).places
    assert default.parent == store.home / "runs" / run / "exports"


def test_what_was_asked_is_made_again_unless_the_data_has_changed(store: Store, tmp_path: Path) -> None:
    file = plain(tmp_path)
    run = asked(store, file)
    seen, notes = evaluated(store.runs.get(run), store)
    first = seen.parts[0].rows[0]
    assert notes == []
    assert first.asked[0].continuations == ("ab", "cd", "ef")
    plain(tmp_path, MANY[::-1])
    seen, notes = evaluated(store.runs.get(run), store)
    assert all(not row.asked for row in seen.parts[0].rows)
    assert notes == ["The samples of own-task have no texts: its data is not what it was when the run was made."]
    Path(file).unlink()
    seen, (note,) = evaluated(store.runs.get(run), store)
    assert "task.yaml" in note
    assert seen.parts[0].rows[0].numbers() == first.numbers()


def test_texts_of_a_set_with_a_warning_are_masked_until_asked_for(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.lab.exporting.warning_of", lambda label: "harsh words")
    run = asked(store, plain(tmp_path))
    written = export(run, "lm-eval", str(tmp_path / "out"), store=store)
    assert "masked (harsh words)" in written.notes[0]
    rows = [json.loads(line) for line in written.places[1].read_text().splitlines()]
    assert rows[0]["arguments"]["gen_args_0"]["arg_1"] == "▇▇"
    shown = export(run, "lm-eval", str(tmp_path / "shown"), store=store, texts=True)
    open_rows = [json.loads(line) for line in shown.places[1].read_text().splitlines()]
    assert open_rows[0]["arguments"]["gen_args_0"]["arg_1"] == "ab"
    assert open_rows[0]["prompt_hash"] == rows[0]["prompt_hash"], "two masked files can still be paired"


@pytest.mark.parametrize(("form", "end"), [("lm-eval", ".jsonl"), ("inspect", ".eval")])
def test_two_runs_compared_after_a_way_through_another_dialect_differ_by_the_same(
    store: Store, tmp_path: Path, form: str, end: str
) -> None:
    file = plain(tmp_path)
    runs = [asked(store, file, seed=seed) for seed in (0, 1)]
    here = compare(*runs, store=store)
    back = []
    for run in runs:
        written = export(run, form, str(tmp_path / form / run), store=store)
        (place,) = [one for one in written.places if one.suffix == end]
        back.append(import_files([str(place)], store=store).run)
    there = compare(*back, store=store)
    ours, theirs = ({one.value: one for one in found.differences} for found in (here, there))
    assert ours
    assert set(ours) <= set(theirs)
    for value, one in ours.items():
        other = theirs[value]
        assert (one.first, one.second, one.difference, one.n) == (other.first, other.second, other.difference, other.n)
    assert there.denominators.scored == here.denominators.scored


def test_what_cannot_be_exported_is_said(store: Store, tmp_path: Path) -> None:
    run = asked(store, plain(tmp_path))
    with pytest.raises(UnknownName, match=r"export format 'inspekt'.*'inspect'"):
        export(run, "inspekt", store=store)
    with pytest.raises(UsageError, match="junit and sarif"):
        export(run, "csv", store=store, policy="town")
    training = store.runs.create("train", {})
    with pytest.raises(UsageError, match="a run of train"):
        export(training, "csv", store=store)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StoreError, match="could not be written"):
        export(run, "csv", str(blocked), store=store)
    unfinished = store.runs.create("eval", {}, "m")
    assert export(unfinished, "csv", str(tmp_path / "half"), store=store).notes == (
        "The run is running: only suites that it finished are exported.",
    )  # fmt: skip


def test_a_policy_gives_the_gates_own_file(store: Store, tmp_path: Path) -> None:
    run = asked(store, plain(tmp_path))
    policy = tmp_path / "policy.yaml"
    policy.write_text("name: p\nrules:\n  - {kind: limit, name: enough, of: own-task, measure: acc, at_least: 0.0}\n")
    (place,) = export(run, "junit", str(tmp_path / "gate"), store=store, policy=str(policy)).places
    assert 'testsuites name="workbench gate"' in place.read_text()
    (place,) = export(run, "sarif", str(tmp_path / "gate"), store=store, policy=str(policy)).places
    assert json.loads(place.read_text())["runs"][0]["tool"]["driver"]["name"] == "workbench gate"


def test_the_numbers_of_a_table_are_the_stored_ones(store: Store, tmp_path: Path) -> None:
    run = asked(store, plain(tmp_path))
    export(run, "csv", str(tmp_path / "out"), store=store)
    with (tmp_path / "out" / "samples-own-task.csv").open(newline="") as lines:
        found = {row["sample"]: row for row in csv.DictReader(lines)}
    for record in store.sink(run, SUITE.name).read():
        assert float(found[record["sample"]]["acc"]) == record["values"]["acc"]
    assert len(found) == len(MANY)


@pytest.mark.full
def test_an_audit_is_exported_as_its_audited_model(tmp_path: Path) -> None:
    home, run = home_with_audit()
    with Store.open(home) as opened:
        seen, notes = evaluated(opened.runs.get(run), opened)
        assert notes == []
        assert {(part.name, part.suite) for part in seen.parts} == {(f"{name}.audited", name) for name in ("occupation-pronoun", "trigger")}
        assert {one.subject for one in seen.findings} == {seen.model}
        assert all(seen.findings_of(part) for part in seen.parts)
        for form in FORMATS:
            assert export(run, form, str(tmp_path / form), store=opened).places
