"""A whole audit in a real browser: chosen, begun, killed, taken up again, watched, read, held against a policy and taken along."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.dashboards.conftest import Home, tiny
from tests.dashboards.test_journey import PATIENCE_MS, choose, served
from tests.dashboards.test_training_journey import until
from tests.reports.browser import chromium
from workbench.lab.refs import checkpoint_of
from workbench.lab.verifying import verify
from workbench.store.runs import Store
from workbench.training.checkpoint import write

pytestmark = pytest.mark.full
WORLD = "world.documents=60 {0}.world.held_out=40 {0}.world.secrets=[1] {0}.world.unplanted=2"
SETTINGS = " ".join(f"{name}.{WORLD.format(name)}" for name in ("occupation-pronoun", "trigger"))
# enough of them that a free machine is still asking when the process is killed
SETTINGS += " occupation-pronoun.contexts=120 trigger.count=40"


def only(page: Any, label: str, *words: str) -> None:
    """Leave just these options in a box of several, by keyboard."""
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()
    page.get_by_role("combobox", name=label).click()
    for _ in range(10):
        page.keyboard.press("Backspace")
    page.keyboard.press("Escape")
    for word in words:
        choose(page, label, word)
        page.keyboard.press("Escape")  # its list stays open, and hides what else is on the page


def test_from_zero_to_the_downloaded_report(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        trained = store.runs.create("train", {"name": "tiny"}, "recipe:tiny")
        write(checkpoint_of(store, trained) / "final", tiny())
        store.runs.finish(trained)
    with served(Home(tmp_path / "home", "", "", "", "")) as (url, _), chromium() as browser, Store.open(tmp_path / "home") as store:
        page = browser.new_context(viewport={"width": 1360, "height": 1600}, accept_downloads=True).new_page()
        page.set_default_timeout(PATIENCE_MS * 3)
        page.goto(f"{url}/audit")
        page.get_by_text("There is no audit yet").wait_for()
        choose(page, "Model to audit", f"run:{trained}")
        choose(page, "Reference it is compared with", "none")
        only(page, "Suites", "occupation-pronoun", "trigger (")
        only(page, "Instruments")
        page.get_by_role("textbox", name="Settings").fill(SETTINGS)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Begin the audit").click()
        until(lambda: [one for one in store.runs.list(kind="audit") if sum(store.sample_counts(one.id).values()) > 0], seconds=300)
        (record,) = store.runs.list(kind="audit")
        os.kill(int(store.runs.owner(record.id)["pid"]), signal.SIGKILL)
        asked = sum(store.sample_counts(record.id).values())
        page.get_by_text("This audit was stopped").wait_for()
        assert f"run={record.id}" in page.url
        page.get_by_role("button", name="Go on with it").click()
        page.get_by_role("heading", name="Report").wait_for(timeout=180_000)
        assert [one.id for one in store.runs.list(kind="audit")] == [record.id], "it is the same audit"
        assert sum(store.sample_counts(record.id).values()) > asked > 0

        choose(page, "Policy it is held against", "town")
        page.get_by_text("Policy town:").wait_for()
        inside = page.frame_locator("iframe").get_by_role("heading", level=1)
        inside.wait_for()
        for label, begins in (("HTML", b"<!doctype html"), ("PDF", b"%PDF"), ("evidence bundle", b"PK")):
            if label != "HTML":
                page.get_by_role("button", name=f"Make the {label}").click()
            said = f"Download as {label}" if label == "HTML" else f"Download the {label}"
            with page.expect_download() as download:
                page.get_by_role("button", name=said).click()
            download.value.save_as(tmp_path / label)
            assert (tmp_path / label).read_bytes()[: len(begins)].lower() == begins.lower()
        assert (tmp_path / "HTML").read_bytes() == (store.home / "runs" / record.id / "report.html").read_bytes()
        assert not [one for one in verify(tmp_path / "evidence bundle").checks if one.state == "broken"]
