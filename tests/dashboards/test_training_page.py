"""The page of trainings: how each stands in a sentence, its curves from its own lines, and everything that can go wrong in words."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboards import reads
from tests.dashboards.pages import opened, settled, texts, unlabelled
from workbench.core.errors import BadValue, CorruptFile, Incompatible, UnknownName
from workbench.lab import jobs, started, trainings
from workbench.lab.refs import checkpoint_of
from workbench.lab.trainings import course, span
from workbench.lab.watch.metrics import METRICS, Metrics
from workbench.store.runs import Store

WATCHING = {"induction": {"unit": "attention", "null": "an even head"}}


@dataclass(frozen=True)
class Trainings:
    folder: Path
    finished: str
    running: str
    stopped: str
    failed: str
    preparing: str


def metrics_of(store: Store, run: str, steps: int, *, every: int = 10, last: int = 100, watching: bool = True) -> Metrics:
    """A file as a training of ``last`` steps leaves it after ``steps``."""
    told = Metrics(store.folder(run) / METRICS)
    facts: dict[str, Any] = {"watching": WATCHING} if watching else {}
    told.begin(0, steps=last, tokens=0, pid=os.getpid(), host=os.uname().nodename, **facts)
    for step in range(every, steps + 1, every):
        told.say("step", step, loss=5 - step / 50, lr=1e-3, norm=1.5, tokens=step * 64, tokens_per_second=2500.0)
        if watching:
            rows = {f"L0H{head}": [0.1 + head * step / 1000, 0.05, None] for head in range(3)}
            told.say("watch", step, tokens=step * 64, watched={"induction": rows}, unscored={})
    told.say("validation", steps, tokens=steps * 64, loss=5.25 - steps / 50)
    return told


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainings:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    with Store.open(tmp_path) as store:
        made = {
            name: store.runs.create("train", {"name": name}, f"recipe:{name}") for name in Trainings.__annotations__ if name != "folder"
        }
        store.runs.finish(store.runs.create("eval", {}, "run:x"))
        metrics_of(store, made["finished"], 100).say("end", 100, tokens=6400, stopped="steps")
        store.runs.finish(made["finished"])
        metrics_of(store, made["running"], 40)
        metrics_of(store, made["stopped"], 70, watching=False)
        place = checkpoint_of(store, made["stopped"])
        (place / "step-00000060").mkdir(parents=True)
        (place / "latest").write_text("step-00000060\n")
        store.runs.finish(made["stopped"], "interrupted")
        metrics_of(store, made["failed"], 30, watching=False)
        store.runs.finish(made["failed"], "failed", "Diverged: *not* [finite](https://example.org)")
    return Trainings(tmp_path, **made)


def training_page(run: str = "") -> AppTest:
    return opened("training.py", run=run)


def charts(page: AppTest) -> list[dict[str, Any]]:
    return [json.loads(one.proto.spec) for one in page.get("vega_lite_chart")]


def titles(page: AppTest) -> list[str]:
    return [" ".join(one["title"]["text"]) for one in charts(page)]


def test_without_a_store_the_page_says_how_to_begin_and_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "none"))
    page = training_page()
    assert "workbench train town-target" in page.info[0].value
    assert [button.label for button in page.button] == ["Start"]
    assert not (tmp_path / "none").exists()


def test_every_training_is_listed_and_no_other_run(home: Trainings) -> None:
    page = training_page()
    shown = page.dataframe[0].value
    assert list(shown["run"]) == [home.preparing, home.failed, home.stopped, home.running, home.finished]
    assert list(shown["status"]) == ["running", "failed", "stopped", "running", "finished"]
    assert unlabelled(page) == []


def test_a_running_training_says_how_far_it_is_and_draws_its_lines(home: Trainings) -> None:
    page = training_page(home.running)
    said = page.info[0].value.replace("\\", "")
    assert said.startswith("Running: step 40 of 100 (40%), 2,500 tokens a second, about ")
    assert said.endswith(" left.")
    assert page.get("progress")[0].proto.value == 40
    assert sorted(titles(page)) == ["Gradient norm", "Learning rate", "Loss", "Speed", "induction"]
    table = page.dataframe[1].value
    assert list(table["step"]) == [40, 30, 20, 10]
    assert [button.label for button in page.button] == ["Start", "Stop it; what it has done is kept"]
    before = [(one.proto.spec, one.proto.datasets) for one in page.get("vega_lite_chart")]
    settled(page.run())
    assert [(one.proto.spec, one.proto.datasets) for one in page.get("vega_lite_chart")] == before, (
        "drawing takes nothing from what is kept"
    )


@pytest.mark.slow
def test_a_stopped_training_says_where_and_how_to_go_on(home: Trainings) -> None:
    page = training_page(home.stopped)
    said = page.warning[0].value.replace("\\", "")
    assert said == (
        "Stopped. Its process is gone, or it was interrupted, at step 70 of 100. Its last whole checkpoint is of step 60; the command "
        "below goes on with it and ends in the same weights."
    )
    assert page.code[0].value == f"workbench train --resume {home.stopped}"
    assert page.button[-1].label == "Go on with it"
    failed = training_page(home.failed)
    assert "It failed at step 30 of 100: Diverged: *not* [finite](https://example.org)" in failed.error[0].value.replace("\\", "")
    assert "[finite]" not in failed.error[0].value, "a note is no markup"
    assert "It left no checkpoint, so it begins anew" in failed.error[0].value.replace("\\", "")


@pytest.mark.slow
def test_a_finished_training_and_one_that_prepares_have_their_sentences(home: Trainings) -> None:
    page = training_page(home.finished)
    assert page.success[0].value.replace("\\", "") == "Finished after 100 steps, loss 3.000, validation 3.250 nats a token."
    assert not page.code
    page.selectbox(key="training").select_index(0).run()
    assert "it prepares its data and its model" in settled(page).info[0].value
    assert page.query_params["run"] in (home.preparing, [home.preparing])
    assert "There is no curve yet" in texts(page)


def test_an_address_that_is_no_training_is_a_sentence(home: Trainings) -> None:
    page = training_page("nonsense")
    assert "There is no run 'nonsense'" in page.error[0].value.replace("\\", "")
    assert not page.header
    with Store.open(home.folder) as store:
        other = store.runs.list(kind="eval")[0].id
    said = training_page(other).error[0].value.replace("\\", "")
    assert f"There is no training '{other}'" in said
    assert f"Run {other} is of kind eval." in said


@pytest.mark.slow
def test_a_spoilt_file_is_a_sentence_and_a_torn_one_none(home: Trainings) -> None:
    path = home.folder / "runs" / home.running / METRICS
    with path.open("a") as file:
        file.write('{"event":"step","st')
    assert not training_page(home.running).error
    path.write_text("nonsense\n" + path.read_text())
    page = training_page(home.running)
    assert "should be lines of a JSON object" in page.error[0].value.replace("\\", "")


def test_how_long_is_left_follows_the_pace_since_it_was_taken_up(home: Trainings) -> None:
    path = home.folder / "runs" / home.running / METRICS
    lines = [
        {"event": "begin", "step": 0, "steps": 100, "time": 0.0}, {"event": "step", "step": 50, "time": 10.0},
        {"event": "begin", "step": 40, "steps": 100, "time": 1000.0}, {"event": "step", "step": 60, "time": 1040.0},
    ]  # fmt: skip
    path.write_text(
        "".join(json.dumps(line | {"loss": 1.0, "lr": 1.0, "norm": None, "tokens": 1, "tokens_per_second": 1.0}) + "\n" for line in lines)
    )
    with Store.open(home.folder) as store:
        found = course(store, home.running, now=1050.0)
        assert found.left_s == pytest.approx(2.0 * 40 - 10)
        assert found.share == 0.6
        ((_, loss), *_) = trainings.drawn(course(store, home.finished))
        whole = loss.to_dict()
        rows = whole["datasets"][whole["layer"][0]["data"]["name"]]
        assert [(row["x"], row["y"]) for row in rows] == [(step * 64, 5 - step / 50) for step in range(10, 101, 10)]
        late = course(store, home.running, now=1240.0)
        assert "Its last line is 3 min 20 s old" in late.sentence()
        assert [words.split(",")[0] for words, _ in trainings.drawn(found)] == ["Loss", "Speed", "Learning rate"], "a norm was never known"
        path.write_text(json.dumps(lines[0]) + "\n")
        assert course(store, home.running, now=5.0).left_s is None
        assert course(store, "last").record.id == home.preparing
        with pytest.raises(UnknownName, match="no run 'zzz'"):
            course(store, "zzz")
        path.write_text("[]\n")
        with pytest.raises(CorruptFile, match="line 1 is not"):
            course(store, home.running)
    assert [span(s) for s in (5, 200, 7500)] == ["5 s", "3 min 20 s", "2 h 05 min"]


# --- by hand ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_started_is_a_sentence_and_starts_nothing(home: Trainings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "start", lambda *_, **__: pytest.fail("a process was started"))
    page = training_page()
    page.text_input(key="settings").set_value("watch.measures=[inductoin]").run()
    page.button(key="start").click().run()
    assert "no watch 'inductoin'. Did you mean 'induction'" in settled(page).error[0].value.replace("\\", "")
    with Store.open(home.folder) as store:
        with pytest.raises(Incompatible, match="'bias-gap' cannot run"):
            started.begin(store, "vit-digits", "watch.measures=[bias-gap]")
        with pytest.raises(BadValue, match="A quote is not closed"):
            started.begin(store, "vit-digits", "train.steps='3")
        for run in (home.running, home.finished):
            with pytest.raises(BadValue, match="only such a one can be taken up again"):
                started.go_on(store, course(store, run))
        with pytest.raises(BadValue, match="Stop it where it was started"):
            started.stop(course(store, home.stopped))


def test_stop_asks_the_process_that_trains(home: Trainings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: asked.append((pid, number)))
    page = training_page(home.running)
    page.button(key="stop").click().run()
    settled(page)
    assert (os.getpid(), signal.SIGINT) in asked


@pytest.mark.slow
def test_go_on_starts_the_runs_own_recipe_again(home: Trainings, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(jobs, "start", lambda target, arguments, folder, **rest: told.append((target, arguments, folder, rest)))
    monkeypatch.setattr(jobs, "read_status", lambda folder: jobs.Status("starting"))
    page = training_page(home.stopped)
    page.button(key="resume").click().run()
    settled(page)
    ((target, arguments, folder, rest),) = told
    assert target == "workbench.lab.started:train_told"
    assert arguments == {"address": str(home.folder), "recipe": {"name": "stopped"}, "resume": home.stopped}
    assert folder.parent == home.folder / "jobs"
    assert rest == {"outlive": True}
    assert any("It is starting" in one.value for one in page.info)
    monkeypatch.setattr(jobs, "read_status", lambda folder: jobs.Status("failed", words="no *disk*"))
    page.run()
    assert settled(page).error[0].value.replace("\\", "") == "It did not begin: no *disk*"


def test_a_started_training_is_found_by_its_process(home: Trainings, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(home.folder) as store:
        for status, run in (
            (jobs.Status("starting"), ""), (jobs.Status("running", pid=1), ""), (jobs.Status("running", pid=os.getpid()), home.running),
            (jobs.Status("done", value={"run": "abc"}), "abc"), (jobs.Status("failed", pid=os.getpid(), words="x"), home.running),
        ):  # fmt: skip
            monkeypatch.setattr(jobs, "read_status", lambda folder, status=status: status)
            assert started.run_of(store, Path("nowhere")) == (status, run)
    assert reads.recipes()["town-target"]
