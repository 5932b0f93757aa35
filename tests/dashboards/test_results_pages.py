"""Suites and comparisons: what stands on them is what the store and the suites say, and a warned text is masked until asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from dashboards import taken
from tests.dashboards.conftest import Home
from tests.dashboards.pages import box, opened, settled, texts, unlabelled
from tests.evals.test_specification import pairs
from tests.reports.sample import sample
from workbench.lab import jobs, samples
from workbench.lab.compare import compare, means
from workbench.lab.curves import curves_of
from workbench.lab.evidence import Bundled
from workbench.reports.render import html, json
from workbench.store.runs import Store


@pytest.mark.parametrize("name", ["suites.py", "compare.py"])
def test_empty_pages_say_how_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "none"))
    assert "workbench eval occupation-pronoun" in opened(name).info[0].value.replace("\\", "")
    with Store.open(tmp_path / "none"):
        pass
    assert "workbench eval occupation-pronoun" in opened(name).info[0].value.replace("\\", "")


@pytest.mark.full
def test_suites_show_findings_groups_and_a_sample_with_its_way_into_the_lab(home: Home) -> None:
    page = opened("suites.py", run=home.evaluated[1], suite="occupation-pronoun", value="p_she", end="highest")
    assert [one.value for one in page.header] == ["What it found", "By group", "Samples", "One sample"]
    with Store.open(home.folder) as store:
        table = samples.sample_table(store, home.evaluated[1], "occupation-pronoun")
    first = samples.worst(table, "p_she", lowest=False)
    shown = next(one.value for one in page.dataframe if "The samples with the highest" in one.proto.alt)
    assert list(shown["sample"]) == list(first["sample"])
    assert box(page, "Sample").value == first["sample"].iloc[0]
    said = texts(page).replace("\\", "")
    assert f"{len(table)} samples, {len(table)} scored." in said
    assert f"/lab?model=run%3A{home.trained}&prompt=" in said
    assert not page.error
    assert unlabelled(page) == []
    assert page.query_params["sample"] == first["sample"].iloc[0], "a link to this page shows this sample"


@pytest.mark.full
def test_a_link_to_a_sample_opens_it_and_an_unknown_run_is_a_sentence(home: Home) -> None:
    page = opened("suites.py", run=home.evaluated[0], sample="0001-nurse", group="nurse")
    assert box(page, "Sample").value == "0001-nurse"
    assert box(page, "Group").value == "nurse"
    page = opened("suites.py", run="nonsense")
    assert "There is no run 'nonsense'" in page.error[0].value.replace("\\", "")


def test_a_warned_text_is_masked_until_asked_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.lab.samples.warning_of", lambda name: "words that hurt")
    page = opened("suites.py", run=home.evaluated[0], sample="0001-nurse")
    assert "words that hurt" in page.warning[0].value
    assert all(set(one.value) <= {"▇", " "} for one in page.code)
    assert "/lab?" not in texts(page), "a warned text stands in no address"
    next(one for one in page.toggle if one.label == "Show the text").set_value(True).run()
    assert "nurse" in settled(page).code[0].value
    assert "/lab?" not in texts(page)


def test_a_suite_is_scored_in_every_way(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(shutil.copytree(home.folder, tmp_path / "mine")))
    with Store.open(tmp_path / "mine") as store:
        run = store.runs.create("eval", {"suites": {"crows-pairs": {}}}, "run:gone")
        store.sink(run, "crows-pairs").put([{"sample": "a", "epoch": 0, "group": "", "unscored": "", "values": {"more": 1.0}}])
        store.put_result(run, "crows-pairs", pairs(0.7))
        store.runs.finish(run)
        (wanted,) = curves_of(run, store=store)
    page = opened("suites.py", run=run, suite="crows-pairs")
    assert [one.value for one in page.header][:2] == ["What it found", "In every reasonable way"]
    assert not page.get("vega_lite_chart"), "nothing is scored before it is asked for"
    page = opened("suites.py", run=run, suite="crows-pairs", ways="true")
    said = texts(page).replace("\\", "")
    assert wanted.summary in said
    assert f"Detected: {wanted.finding.claim}, because {wanted.finding.because}." in said
    (drawn,) = page.get("vega_lite_chart")
    assert "54 specifications from" in drawn.proto.spec, "the chart of the command and of the report"
    table = next(one.value for one in page.dataframe if "Every way" in one.proto.alt)
    assert table["value"].tolist() == wanted.result.values.value.values.tolist()
    assert unlabelled(page) == []
    page = opened("suites.py", run=home.evaluated[0], ways="true")
    assert "In every reasonable way" not in [one.value for one in page.header], "this suite has one way"


def test_a_comparison_says_what_the_library_says(home: Home) -> None:
    first, second = home.evaluated
    page = opened("compare.py", first=first, second=second)
    with Store.open(home.folder) as store:
        wanted = compare(first, second, store=store)
    said = texts(page).replace("\\", "")
    for one in wanted.differences:
        assert means(one) in said
    assert f"{wanted.denominators.scored} of {wanted.denominators.run} samples are pairs." in said
    parted = next(one.value for one in page.dataframe if "differ most" in one.proto.alt)
    assert parted["difference"].abs().is_monotonic_decreasing
    assert parted["difference"].iloc[0] == pytest.approx(0.2)
    assert not page.error
    assert unlabelled(page) == []
    page = opened("compare.py", first="nonsense", second=second)
    assert "There is no run 'nonsense'" in page.error[0].value.replace("\\", "")


def test_reports_of_several_runs_are_begun_and_read(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[tuple[str, dict[str, Any]]] = []

    def start(target: str, arguments: dict[str, Any], folder: Path, **rest: Any) -> None:
        folder.mkdir(parents=True)
        (folder / "status.jsonl").write_text('{"event": "failed", "words": "a reason", "exit_code": 3}\n')
        began.append((target, arguments))

    monkeypatch.setattr(jobs, "start", start)
    page = opened("compare.py")
    assert "None is written yet." in texts(page)
    assert page.button(key="begin-comparison").disabled, "one run is compared with nothing"
    page.multiselect(key="beside").set_value(list(home.evaluated)).run()
    page.button(key="begin-comparison").click().run()
    assert began[0][0] == "workbench.lab.reports_begun:comparison_told"
    assert began[0][1]["runs"] == list(home.evaluated)
    assert "It was not written: a reason" in settled(page).error[0].value.replace("\\", "")
    page.button(key="begin-trend").click().run()
    assert "at least 2" in "".join(one.value for one in settled(page).error).replace("\\", ""), "this training kept one checkpoint"
    assert len(began) == 1
    with Store.open(home.folder) as store:
        run = store.runs.create("comparison", {"runs": list(home.evaluated)}, f"run:{home.trained}")
        for name, form in (("report.html", html), ("report.json", json)):
            (store.folder(run) / name).write_text(form.render(sample()), encoding="utf-8")
        store.runs.finish(run)
    page = opened("compare.py", report=run)
    (frame,) = page.get("iframe")
    assert frame.proto.src.startswith("data:text/html;base64,"), "of its own origin"
    assert unlabelled(page) == []


def test_a_report_of_several_runs_is_taken_along_with_its_evidence(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(home.folder) as store:
        run = store.runs.create("comparison", {"runs": list(home.evaluated)}, f"run:{home.trained}")
        for name, form in (("report.html", html), ("report.json", json)):
            (store.folder(run) / name).write_text(form.render(sample()), encoding="utf-8")
        store.runs.finish(run)
    asked: list[str] = []

    def made(run: str, out: Path, *, store: Store) -> Bundled:
        out.write_bytes(b"evidence")
        asked.append(run)
        return Bundled(run, out, 8, "", 0, "")

    monkeypatch.setattr(taken, "write_bundle", made)
    page = opened("compare.py", report=run)
    page.button(key="make-zip").click().run()
    assert [one.value for one in settled(page).error] == []
    assert asked == [run]
    labels = [one.proto.label for one in page.get("download_button")]
    assert labels == ["Download as HTML", "Download as JSON", "Download the evidence bundle"]
