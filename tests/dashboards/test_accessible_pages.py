"""Every page under axe in a real browser, and one journey with the keyboard alone.

What axe finds serious in this project's own markup (components, charts, page style) fails. What stands in Streamlit's own is pinned below,
each with where it was reported; the list may only shrink.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import dashboards
from tests.dashboards.conftest import Home
from tests.dashboards.test_journey import PATIENCE_MS, served
from tests.reports.browser import chromium

pytestmark = pytest.mark.full
VIEWS = sorted(place.stem for place in (Path(dashboards.__file__).parent / "views").glob("*.py"))
PROMPT, OTHER = "The nurse said that", "The pilot said that"
SECTIONS = "streamlit/streamlit#8399 (page structure): sections of st.navigation put a div between a list and its items"
PINNED = {"list at stSidebarNavItems": SECTIONS, "listitem at stSidebarNavItems": SECTIONS}
"""``rule at Streamlit's element``: where it was reported, and what it is."""


def addresses(home: Home) -> dict[str, str]:
    """Each page on a filled store, with what can be opened on it opened."""
    ref = f"run:{home.trained}"
    first, second = home.evaluated
    told = {
        "lab": f"model={ref}&prompt={quote(PROMPT)}&look=Attention&look=Change+it&out=L0H0",
        "causal": f"model={ref}&clean={quote(PROMPT)}&corrupt={quote(OTHER)}",
        "runs": f"run={home.audit}",
        "audit": f"run={home.audit}",
        "suites": f"run={first}",
        "compare": f"first={first}&second={second}",
    }
    return {name: f"/{'' if name == 'home' else name}?{told.get(name, '')}" for name in VIEWS}


def still(page: Any) -> None:
    page.get_by_role("heading", level=1).first.wait_for()
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()
    page.wait_for_timeout(400)


def found(page: Any) -> set[str]:
    """Serious and critical findings: the rule and the nearest element that Streamlit or this project names."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python comes with the extra 'dev'")
    out: set[str] = set()
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"]}
    for one in axe.Axe().run(page, options=rules).response["violations"]:
        if one["impact"] in ("serious", "critical"):
            out |= {f"{one['id']} at {_where(page, node)}" for node in one["nodes"]}
    return out


def _where(page: Any, node: Any) -> str:
    """The ``data-testid`` of the nearest element above a finding that has one, or the finding's own markup."""
    target = node["target"][0]
    selector = target if isinstance(target, str) else target[0]
    name = page.evaluate("s => document.querySelector(s)?.closest('[data-testid]')?.dataset.testid", selector)
    inside = "component " if not isinstance(target, str) else ""
    return f"{inside}{name or node['html'][:80]}"


def test_axe_finds_nothing_serious_but_what_is_pinned(home: Home) -> None:
    seen: set[str] = set()
    new: dict[str, set[str]] = {}
    with served(home) as (url, _), chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        for name, address in addresses(home).items():
            page.goto(url + address)
            still(page)
            here = found(page)
            seen |= here
            if here - set(PINNED):
                new[name] = here - set(PINNED)
    assert not new
    assert set(PINNED) <= seen, "what is mended there is taken off the list"


def press_to(page: Any, words: str, most: int = 60) -> None:
    """Press Tab until what is focused is named ``words``."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if words in page.evaluate(
            "() => { let a = document.activeElement;"
            " while (a && a.shadowRoot && a.shadowRoot.activeElement) a = a.shadowRoot.activeElement;"
            " return [a?.getAttribute('aria-label'), a?.innerText, a?.labels?.[0]?.innerText].filter(Boolean).join(' | '); }"
        ):
            return
    raise AssertionError(f"Tab never reached '{words}'")


def test_by_keyboard_alone(home: Home) -> None:
    """From the first page into the lab: another head, and what another position reads; a pointer is never used."""
    with served(home) as (url, _), chromium() as browser:
        page = browser.new_page(viewport={"width": 1360, "height": 1400})
        page.set_default_timeout(PATIENCE_MS * 2)
        page.goto(url)
        still(page)
        press_to(page, "Model lab")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Attention", exact=True).wait_for()
        still(page)
        press_to(page, "Layer 0, head 0", most=80)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.locator("svg text", has_text="Layer 1, head 1").first.wait_for()
        still(page)
        press_to(page, "Position that reads")
        page.keyboard.press("ArrowDown")
        last = page.get_by_text("Each token with the weight it is read with.").inner_text()
        assert last.startswith("Position ")
        page.keyboard.press("ArrowDown")
        assert page.get_by_text("Each token with the weight it is read with.").inner_text() != last
