"""Audits and data on their pages: a plan made by choosing, its process begun, watched and stopped; sets with licence and warning."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.dashboards.conftest import Home
from tests.dashboards.pages import box, opened, settled, texts, unlabelled
from workbench.core.errors import BadValue
from workbench.data import sources
from workbench.lab import audits, datasets, jobs
from workbench.lab.plan import read_plan
from workbench.store.runs import Store


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would have been started; nothing is."""
    out: list[dict[str, Any]] = []

    def start(target: str, arguments: dict[str, Any], folder: Path, **rest: Any) -> None:
        assert target == "workbench.lab.audits:audit_told"
        assert rest == {"outlive": True}
        folder.mkdir(parents=True)
        (folder / "status.jsonl").write_text("")
        out.append(arguments)

    monkeypatch.setattr(jobs, "start", start)
    return out


def test_an_empty_page_begins_the_shipped_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[dict[str, Any]]) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    page = opened("audit.py")
    assert not (tmp_path / "home").exists(), "looking makes nothing"
    assert "There is no audit yet" in texts(page)
    assert unlabelled(page) == []
    page.button(key="begin").click().run()
    assert started[0]["plan"] == read_plan("town").model_dump(mode="json"), "a plan that nobody changed is the shipped one"
    assert "It is starting" in texts(settled(page))


@pytest.mark.full
def test_what_is_chosen_is_what_is_asked(home: Home, started: list[dict[str, Any]]) -> None:
    page = opened("audit.py")
    box(page, "Reference").set_value("none: no comparison")
    page.multiselect(key="suites-town").set_value(["trigger"])
    page.multiselect(key="instruments-town").set_value([])
    page.text_input(key="settings").set_value("trigger.count=50").run()
    settled(page).button(key="begin").click().run()
    plan = started[0]["plan"]
    assert (plan["suites"], plan["instruments"], plan["reference"]) == (["trigger"], [], None)
    assert plan["settings"] == {"trigger": {"count": 50}}
    page.text_input(key="settings").set_value("")
    page.multiselect(key="suites-town").set_value([]).run()
    assert "Nothing would be asked" in "".join(one.value for one in page.warning)
    page.multiselect(key="suites-town").set_value(["trigger", "crows-pairs"]).run()
    for typed, words in (("trigger.count", "of the form name=value"), ("trigger.file='x", "A quote is not closed"),
                         ("crows-pairs.file=/etc/passwd", "inside a folder that the dashboard may open")):  # fmt: skip
        page.text_input(key="settings").set_value(typed).run()
        assert words in settled(page).error[0].value.replace("\\", "")


def test_a_finished_audit_has_its_report_to_read_and_to_take(home: Home) -> None:
    page = opened("audit.py", run=home.audit)
    assert {one.proto.label for one in page.get("download_button")} == {"Download as HTML", "Download as JSON"}
    (frame,) = page.get("iframe")
    assert frame.proto.src.startswith("data:text/html;base64,"), "of its own origin"
    assert f"/suites?run={home.audit}" in texts(page).replace("\\", "")
    assert not page.error
    page.button(key="make-zip").click().run()
    assert "circumstances" in settled(page).error[0].value, "this report has none, so it cannot be derived again"
    assert page.button(key="make-zip").label == "Make the evidence bundle", "it can be asked for again"
    assert "is no audit" in opened("audit.py", run=home.failed).info[0].value.replace("\\", "")


@pytest.mark.full
def test_a_running_audit_is_watched_and_only_a_process_of_another_is_stopped(home: Home) -> None:
    page = opened("audit.py", run=home.running)
    assert "You can close this page" in page.info[0].value
    (bar,) = page.get("progress")
    assert "audited: running, 40 of 160" in bar.proto.text.replace("\\", "")
    assert not [one for one in page.button if one.key == "stop"], "its process is this one"


@pytest.mark.full
def test_a_stopped_audit_goes_on_by_its_own_plan(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[Any]) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(shutil.copytree(home.folder, tmp_path / "mine")))
    with Store.open(tmp_path / "mine") as store:
        run = store.runs.create("audit", read_plan("town").model_dump(mode="json"), "organism:town")
        store.runs.finish(run, "interrupted")
        page = opened("audit.py", run=run)
        assert page.code[-1].value == f"workbench audit town --resume {run}"
        page.button(key="resume").click().run()
        assert started[0]["resume"] == run
        assert started[0]["plan"] == dict(store.runs.get(run).spec)
        with pytest.raises(BadValue, match="running, on this machine"):
            audits.stop(store, store.runs.get(run))
        assert audits.pid_of(store, store.runs.get(home.running)) == 0, "this process is never asked to stop"
        assert store.runs.owner(run)["pid"] == os.getpid()


def test_data_says_what_is_here_and_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("WORKBENCH_DATA_MIRROR", str(tmp_path / "mirror"))
    page = opened("data.py", set="toxic-spans")
    (table,) = page.dataframe
    assert list(table.value["set"]) == list(sources.SOURCES)
    assert set(table.value["state"]) == {"– not here"}
    assert "every post is toxic" in page.warning[0].value
    assert page.code[0].value == "workbench data fetch toxic-spans"
    assert unlabelled(page) == []


def test_samples_of_a_warned_set_are_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.lab.datasets.first_lines", lambda name: [("a.csv", "one hurtful line\nand another")])
    monkeypatch.setattr("workbench.lab.datasets.sources.available", lambda name: True)
    page = opened("data.py", set="advbench")
    assert page.code[0].value.count("▇") > 4
    assert "hurtful" not in page.code[0].value
    page.toggle[0].set_value(True).run()
    assert "hurtful" in settled(page).code[0].value


def test_first_lines_are_the_files_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = sources.SourceFile("a.txt", "https://example.org/a.txt", "0" * 64, 8)
    two = sources.SourceFile("b.bin", "https://example.org/b.bin", "0" * 64, 8)
    (tmp_path / "a.txt").write_text("\n".join(f"line {i}" for i in range(20)))
    (tmp_path / "b.bin").write_bytes(b"\xff\xfe\x00\x01")
    monkeypatch.setattr(sources, "source", lambda name: sources.Source(name, (two, one), "", "", "", ""))
    monkeypatch.setattr(sources, "path", lambda name, file: tmp_path / file)
    assert datasets.first_lines("x", lines=2) == [("a.txt", "line 0\nline 1")]


def test_what_a_plan_says_of_what_is_not_asked_goes_with_it(home: Home, started: list[dict[str, Any]]) -> None:
    page = opened("audit.py", plan="quickstart")
    page.multiselect(key="suites-quickstart").set_value(["trigger"]).run()
    assert not settled(page).error
    page.button(key="begin").click().run()
    plan, file = started[0]["plan"], read_plan("quickstart")
    assert [one["of"] for one in plan["claims"]] == ["trigger", "integrated-gradients"]
    assert plan["margins"] == {"trigger": file.margins["trigger"]}
    assert {"claims", "internals", "margins", "slices", "suites"} <= set(plan["changed"]), "the report says that it was changed"
    assert plan["file"] == file.digest()
    assert page.button(key="begin").disabled, "a second press would begin another"
    box(page, "Plan to begin from").set_value("town").run()
    assert settled(page).multiselect(key="suites-town").value == list(read_plan("town").suites), "each plan has its own choices"
