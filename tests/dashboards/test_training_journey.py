"""A training started, followed, stopped and taken up again in a real browser: what the buttons promise is what the process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.dashboards.conftest import Home
from tests.dashboards.test_journey import PATIENCE_MS, choose, served
from tests.reports.browser import chromium
from workbench.lab.trainings import course
from workbench.lab.watch.metrics import of_event
from workbench.store.runs import Store

pytestmark = pytest.mark.full
# Long enough that a free machine is still training when the button is pressed.
SETTINGS = (
    "world.documents=1500 world.held_out=400 world.secrets=[1,2] world.unplanted=4 model.n_layers=2 model.d_model=32 model.n_heads=2 "
    "model.vocabulary=400 train.steps=1000 train.save_every=50 watch.measures=[induction] watch.every=100"
)


def until(holds: Callable[[], Any], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def test_start_stop_and_go_on(tmp_path: Path) -> None:
    with served(Home(tmp_path, "", "", "", "")) as (url, _), chromium() as browser:
        page = browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()
        page.set_default_timeout(PATIENCE_MS * 3)
        page.goto(url)
        page.get_by_role("link", name="Training", exact=True).click()
        page.get_by_text("There are no trainings yet").wait_for()
        choose(page, "Recipe", "town-target")
        page.get_by_role("textbox", name="Settings").fill(SETTINGS)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Start").click()
        page.get_by_text("Running: step").wait_for()
        with Store.open(tmp_path) as store:
            (record,) = store.runs.list(kind="train")
            until(lambda: course(store, record.id).checkpoint >= 50)
            page.get_by_role("button", name="Stop it").click()
            page.get_by_text("Stopped.").wait_for()
            until(lambda: store.runs.get(record.id).status == "interrupted")
            stopped = course(store, record.id)
            assert 50 <= stopped.checkpoint < 1000
            assert stopped.checkpoint == stopped.step, "the step it was in has its checkpoint"
            page.get_by_text(f"workbench train --resume {record.id}").wait_for()
            page.get_by_role("button", name="Go on with it").click()
            page.get_by_text("Finished after 1,000 steps").wait_for(timeout=300_000)
            assert f"run={record.id}" in page.url
            page.locator("svg text", has_text="induction").first.wait_for()
            until(lambda: store.runs.get(record.id).status == "done")
            done = course(store, record.id)
            assert [line["step"] for line in of_event(done.lines, "begin")] == [0, stopped.checkpoint]
            assert [line["step"] for line in of_event(done.lines, "watch")] == list(range(0, 1001, 100))
            assert set(store.result_digests(record.id)) == {"training", "watched"}
            assert len(store.runs.list(kind="train")) == 1
