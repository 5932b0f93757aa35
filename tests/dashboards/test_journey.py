"""One journey through the served pages in a real browser, by keyboard where it matters, with every address written down."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from dashboards.launch import address, command
from tests.dashboards.conftest import Home
from tests.reports.browser import chromium

pytestmark = pytest.mark.full
ROOT = Path(__file__).parents[2]
PATIENCE_MS = 30_000


@contextmanager
def served(home: Home) -> Iterator[tuple[str, psutil.Process]]:
    """The dashboard as ``workbench dashboard`` starts it, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "WORKBENCH_HOME": str(home.folder), "PYTHONPATH": str(ROOT), "STREAMLIT_SERVER_ADDRESS": "0.0.0.0"}
    with subprocess.Popen(command(port), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _ready(f"{address(port)}/_stcore/health")
            yield address(port), psutil.Process(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def _ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def choose(page: Any, label: str, words: str) -> None:
    """Pick an option by keyboard: reach the box, type part of the option, press Enter.

    Streamlit draws a box again when the run that it belongs to ends, and what was typed until then is gone; so, as a person would, look
    for the option and type again if it is not there.
    """
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()
    option = page.get_by_role("option", name=words).first
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while True:
        page.get_by_role("combobox", name=label).click()
        page.keyboard.type(words)
        page.wait_for_timeout(500)
        if option.is_visible():
            break
        assert time.monotonic() < deadline, f"the box {label!r} never offered {words!r}"
        page.keyboard.press("Escape")
    page.keyboard.press("Enter")


def test_a_journey(home: Home, tmp_path: Path) -> None:
    with served(home) as (url, process), chromium() as browser:
        listening = {c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}, "an address set in the environment must not win"
        asked: list[str] = []
        context = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda web_socket: asked.append(web_socket.url.replace("ws://", "http://")))

        page.goto(url)
        page.get_by_role("heading", name="What to do next").wait_for()
        page.get_by_text("audited: training").first.wait_for()
        page.get_by_role("link", name="Runs", exact=True).click()
        page.get_by_role("heading", name="Runs").wait_for()
        page.get_by_text("audited: running, 40 of 160. training").wait_for()
        choose(page, "Run", home.audit)
        page.get_by_role("heading", name="Findings").wait_for()
        page.locator("p", has_text="8 findings: 4 detected").first.wait_for()
        assert f"run={home.audit}" in page.url
        with page.expect_download() as download:
            page.get_by_role("button", name="Download as HTML").click()
        download.value.save_as(tmp_path / "report.html")
        assert (tmp_path / "report.html").read_bytes() == (home.folder / "runs" / home.audit / "report.html").read_bytes()

        page.get_by_role("link", name="Model lab", exact=True).click()
        page.get_by_role("heading", name="Attribution").wait_for()
        page.get_by_text("the completeness gap is").first.wait_for()
        prompt = page.get_by_role("textbox", name="Prompt")
        prompt.fill("")
        prompt.press("Control+Enter")
        page.get_by_role("alert").get_by_text("of at least one character").wait_for()
        prompt.fill("The pilot said that she")
        prompt.press("Control+Enter")
        page.get_by_text("6 tokens.").wait_for()
        choose(page, "Layer", "1")
        page.locator("svg text", has_text="Layer 1, head 0").wait_for()
        assert page.title() == "Model lab · Assay"
        assert page.get_by_text("Traceback").count() == 0

        outside = sorted({one for one in asked if not one.startswith((url, "data:", "blob:"))})
        assert outside == []
        assert not [c for c in process.net_connections() if c.raddr and c.raddr.ip not in ("127.0.0.1", "::1")]
        context.close()
