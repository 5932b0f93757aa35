"""The labs in a real browser: press a head, follow a shared link, patch a cell, compare, and two who poke one model at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.dashboards.conftest import Home
from tests.dashboards.test_journey import PATIENCE_MS, served
from tests.reports.browser import chromium

pytestmark = pytest.mark.full
PROMPT, OTHER = "The nurse said that", "The pilot said that"


def opened(context: Any, url: str) -> Any:
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS * 3)
    page.goto(url)
    return page


def test_press_link_patch_and_compare(home: Home, tmp_path: Path) -> None:
    ref = f"run:{home.trained}"
    with served(home) as (url, _), chromium() as browser:
        context = browser.new_context(viewport={"width": 1360, "height": 1400})
        asked: list[str] = []
        context.on("request", lambda request: asked.append(request.url))

        page = opened(context, f"{url}/lab?model={ref}&prompt={PROMPT}&look=Attention&look=Change+it")
        grid = page.get_by_role("grid", name="All heads")
        grid.locator('td[data-r="1"][data-c="1"]').click()
        page.locator("svg text", has_text="Layer 1, head 1").first.wait_for()
        page.wait_for_url("**layer=1**")
        assert "head=1" in page.url, "each view is a link"
        page.get_by_role("combobox", name="Take out").click()
        page.keyboard.type("L1H1")
        page.keyboard.press("Enter")
        page.get_by_text("Without L1H1").first.wait_for()
        page.wait_for_url("**out=L1H1**")

        shared = opened(context, page.url)
        shared.locator("svg text", has_text="Layer 1, head 1").first.wait_for()
        shared.get_by_text("Without L1H1").first.wait_for()

        cell = shared.get_by_role("grid", name="All heads").locator('td[data-r="1"][data-c="1"]')
        cell.focus()
        shared.keyboard.press("ArrowUp")
        shared.keyboard.press("ArrowLeft")
        shared.keyboard.press("Enter")
        shared.locator("svg text", has_text="Layer 0, head 0").first.wait_for()

        causal = opened(context, f"{url}/causal?model={ref}&clean={PROMPT}&corrupt={OTHER}")
        causal.get_by_text("they differ at 1: 2").wait_for()
        causal.get_by_role("grid", name="resid_pre").locator('td[data-r="0"][data-c="4"]').click()
        causal.get_by_text("resid_pre of layer 1 at position 4").first.wait_for()
        causal.wait_for_url("**pos=4**")

        first, second = home.evaluated
        both = opened(context, f"{url}/compare?first={first}&second={second}")
        both.get_by_text("in the first run and").first.wait_for()
        both.get_by_role("link", name="Open this sample in the model lab").click()
        both.get_by_role("heading", name="Model lab").wait_for()
        both.get_by_role("heading", name="Next token").wait_for()
        assert "prompt=" in both.url

        assert sorted({one for one in asked if not one.startswith((url, "data:", "blob:"))}) == []
        context.close()


def test_two_sessions_on_one_model_do_not_meet(home: Home) -> None:
    """One takes a head out, the other looks on: what the second reads stays what it was."""
    ref = f"run:{home.trained}"
    with served(home) as (url, _), chromium() as browser:
        one, other = (browser.new_context(viewport={"width": 1200, "height": 1000}) for _ in range(2))
        plain = f"{url}/lab?model={ref}&prompt={PROMPT}&look=Attention"
        watching = opened(other, plain)
        watching.get_by_text("After the prompt").first.wait_for()
        before = watching.get_by_text("After the prompt").first.inner_text()
        poking = opened(one, f"{url}/lab?model={ref}&prompt={PROMPT}&look=Change+it&out=L0H0&out=L0H1&out=L1H0&dose=8")
        poking.get_by_text("pushed +8 times").first.wait_for()
        assert poking.get_by_text("After the prompt").first.inner_text() == before
        watching.reload()
        watching.get_by_text("After the prompt").first.wait_for()
        assert watching.get_by_text("After the prompt").first.inner_text() == before
        one.close()
        other.close()
