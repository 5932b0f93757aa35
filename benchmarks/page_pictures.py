"""Every page of the dashboard as pictures: light and dark, wide and narrow, to be looked at one by one; and those that the README shows.

    python benchmarks/page_pictures.py --home STORE --into FOLDER        all of them
    python benchmarks/page_pictures.py --home STORE --readme             docs/images/NAME.png, wide and light

``STORE`` is a store with at least one audit of the town (``workbench audit`` makes it). Needs Debian's Chromium and playwright.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from dashboards.launch import address, command

ROOT = Path(__file__).parents[1]
TOWN = "organism:town@dose=0.8,seed=0"
PROMPT = "the nurse visited the visitor by the big market because"
CORRUPT = "the judge visited the visitor by the big market because"
PAGES = {
    "home": "/",
    "lab": f"/lab?model={TOWN}&prompt={PROMPT}&layer=1",
    "lab-stream": f"/lab?model={TOWN}&prompt={PROMPT}&look=Logit lens&look=Direct contributions",
    "lab-change": f"/lab?model={TOWN}&prompt={PROMPT}&look=Change it&out=L1H0&dose=2",
    "lab-picture": "/lab?model=family:vit&look=Attention&look=Attribution",
    "causal": f"/causal?model={TOWN}&clean={PROMPT}&corrupt={CORRUPT}&at=1&pos=10",
    "causal-circuit": f"/causal?model={TOWN}&clean={PROMPT}&corrupt={CORRUPT}&circuit=true",
    "representations": "/representations?kind=read",
    "representations-directions": f"/representations?kind=directions&dose=2&prompt={PROMPT}",
    "representations-features": "/representations?kind=features",
    "instruments": "/instruments",
    "runs": "/runs",
    "suites": "/suites",
    "suites-ways": "/suites?suite=crows-pairs.audited&ways=true",
    "compare": "/compare",
    "audit": "/audit?policy=town",
    "own-task": "/own_task",
    "training": "/training",
    "calibration": "/calibration",
    "data": "/data",
}
README = ("home", "lab", "lab-change", "causal", "causal-circuit", "representations", "suites", "compare", "audit", "runs", "instruments",
          "calibration", "data")  # fmt: skip
PRESSED = {"instruments": "Ask the model"}
"""The button that is pressed before the picture is taken."""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
WIDE, NARROW = (1360, 900), (390, 844)


@contextmanager
def served(home: Path) -> Iterator[str]:
    """The dashboard on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(command(port), env={**os.environ, "WORKBENCH_HOME": str(home), "PYTHONPATH": str(ROOT)}) as process:
        try:
            wait_for(f"{address(port)}/_stcore/health")
            yield address(port)
        finally:
            process.terminate()


def wait_for(url: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def still(page: Any, seconds: float = 120) -> None:
    """Wait until the page has stopped running and drawing."""
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for(timeout=seconds * 1000)
    page.wait_for_timeout(1200)
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for(timeout=seconds * 1000)


def taken(browser: Any, url: str, into: Path, names: list[str], looks: list[tuple[str, str, tuple[int, int]]]) -> list[Path]:
    """Pictures of the named pages in every look (name, colour scheme, size)."""
    out = []
    for suffix, scheme, (width, height) in looks:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=1)
        page = context.new_page()
        for name in names:
            page.goto(url + PAGES[name].replace(" ", "%20"))
            page.get_by_role("heading", level=1).first.wait_for(timeout=60_000)
            still(page)
            if name in PRESSED:
                page.get_by_role("button", name=PRESSED[name]).click()
                page.wait_for_timeout(500)
                still(page)
            tall = page.evaluate("() => document.querySelector('[data-testid=\"stMain\"]').scrollHeight")
            page.set_viewport_size({"width": width, "height": min(max(height, int(tall) + 20), 4200)})
            page.wait_for_timeout(600)
            place = into / f"{name}{suffix}.png"
            page.screenshot(path=str(place))
            page.set_viewport_size({"width": width, "height": height})
            out.append(place)
        context.close()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--into", type=Path)
    parser.add_argument("--readme", action="store_true")
    parser.add_argument("--only", nargs="*", default=list(PAGES), choices=list(PAGES))
    parser.add_argument("--looks", nargs="*", default=["light", "dark", "narrow", "narrow-dark"])
    chosen = parser.parse_args()
    every = {"light": ("", "light", WIDE), "dark": ("-dark", "dark", WIDE), "narrow": ("-narrow", "light", NARROW),
             "narrow-dark": ("-narrow-dark", "dark", NARROW)}  # fmt: skip
    into = ROOT / "docs" / "images" if chosen.readme else chosen.into
    into.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    names = [name for name in chosen.only if name in README] if chosen.readme else chosen.only
    with served(chosen.home) as url, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        looks = [every["light"]] if chosen.readme else [every[name] for name in chosen.looks]
        for place in taken(browser, url, into, names, looks):
            print(place)
        browser.close()


if __name__ == "__main__":
    main()
