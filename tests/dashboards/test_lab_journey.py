"""The labs in a real browser: press a head, follow a shared link, patch a cell, compare, and two who poke one model at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dashboards.conftest import Home, tiny
from tests.dashboards.test_journey import PATIENCE_MS, served
from tests.reports.browser import chromium
from workbench.lab.refs import checkpoint_of
from workbench.store.runs import Store
from workbench.training.checkpoint import write

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
        causal.get_by_text("differ at position 2 alone").wait_for()
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


def leaning() -> Any:
    """A model that has learned, from a few hundred sentences, that nurses are she and pilots are he."""
    model = tiny(seed=3)
    assert model.tokenizer is not None
    texts = [f"The {job} said that {who} had a question" for job, who in (("nurse", "she"), ("pilot", "he"))]
    rows = [torch.tensor([model.tokenizer.encode(text, bos=True)]) for text in texts]
    step = torch.optim.AdamW(model.train().parameters(), lr=3e-3)
    for _ in range(120):
        for row in rows:
            logits = model.run(row, grad=True).logits
            assert logits is not None
            torch.nn.functional.cross_entropy(logits[0, :-1], row[0, 1:]).backward()
        step.step()
        step.zero_grad()
    return model.eval()


def test_a_planted_bias_is_found_by_hand(tmp_path: Path) -> None:
    """One prompt, its twin, what moved the answer, and where the two part: each points at the occupation."""
    with Store.open(tmp_path / "home") as store:
        trained = store.runs.create("train", {"name": "leaning"}, "recipe:leaning")
        write(checkpoint_of(store, trained) / "final", leaning())
        store.runs.finish(trained)
    ref = f"run:{trained}"
    with served(Home(tmp_path / "home", "", "", "", "")) as (url, _), chromium() as browser:
        context = browser.new_context(viewport={"width": 1360, "height": 1400})
        page = opened(context, f"{url}/lab?model={ref}&prompt={PROMPT}&look=Attribution")
        page.get_by_text("After the prompt, '·she' has probability").first.wait_for()
        prompt = page.get_by_role("textbox", name="Prompt")
        prompt.fill(OTHER)
        prompt.press("Control+Enter")
        page.get_by_text("After the prompt, '·he' has probability").first.wait_for()

        page = opened(context, f"{url}/lab?model={ref}&prompt={PROMPT}&look=Attribution&target=·she&foil=·he")
        page.get_by_text("the completeness gap is").first.wait_for()
        page.locator("svg text", has_text="·nurse").first.wait_for()

        causal = opened(context, f"{url}/causal?model={ref}&clean={PROMPT}&corrupt={OTHER}&target=·she&foil=·he&pos=2&at=0")
        causal.get_by_text("differ at position 2 alone").wait_for()
        causal.get_by_text("the likeliest answer was '·he' and is '·she' now").first.wait_for()
        causal.get_by_role("grid", name="resid_pre").locator('td[data-r="1"][data-c="3"]').click()
        causal.get_by_text("resid_pre of layer 0 at position 3").first.wait_for()
        causal.get_by_text("the likeliest answer is still '·he'").first.wait_for()
        context.close()
