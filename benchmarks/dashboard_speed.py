"""How fast the dashboard answers, in a real browser: the first table, one change in the lab, long texts, many samples, and memory.

    python benchmarks/dashboard_speed.py [--only home heads samples long memory] [--json FILE]

Times are from the press (or the address) to the moment the browser has drawn what was asked for. Run it on a machine that does nothing
else; the budgets are those that the pages were built to. It makes its own store in a temporary folder: an untrained model of 4 layers and
4 heads, one of 12 layers and 12 heads for long texts, and a run of 10,000 samples.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from page_pictures import FLAGS, ROOT, still, wait_for  # beside this file
from playwright.sync_api import sync_playwright

from dashboards.launch import address, command
from workbench.data.text import BPETokenizer
from workbench.families.gpt import GPT, GPTConfig
from workbench.lab.refs import checkpoint_of
from workbench.store.runs import Store
from workbench.training.checkpoint import write

WORDS = "the nurse said that she had seen the pilot of the old boat by the market and gave him the letter that was in the box"
CHANGES, SAMPLES, TRIES = 40, 10_000, 5
ROOTS = """[document.body, ...[...document.querySelectorAll('[data-testid="stBidiComponentIsolated"]')].map((one) => one.shadowRoot)]"""
DRAWN = f"words => {ROOTS}.some((root) => root && [...root.querySelectorAll('svg text')].some((one) => one.textContent.includes(words)))"
SHOWN = f"words => {ROOTS}.some((root) => root && (root.innerText || root.textContent).includes(words))"
"""Whether a drawing, or anything seen, says these words. Looked at with every frame: a browser driver's own waiting looks again after half
a second, and so rounds up to it."""
TOKENIZER = BPETokenizer.train([WORDS] * 40, 320)
SINGLE = [word for word in dict.fromkeys(WORDS.split()) if len(TOKENIZER.encode(f" {word}")) == 1]
BUDGETS = {
    "first table of Home (s)": 2.0,
    "change of a head, 95th percentile (ms)": 300.0,
    "attention, 512 tokens and 144 heads (s)": 2.0,
    "attention, 512 tokens and 144 heads (MB sent)": 5.0,
    "attention, 2,048 tokens and 144 heads (s)": 30.0,
    "10,000 samples opened (s)": 1.0,
    "memory grown over 200 changes (MB)": 30.0,
}


def furnish(home: Path) -> dict[str, str]:
    """A store with two models and many samples; what they are called."""
    size = TOKENIZER.vocab_size
    out = {}
    with Store.open(home) as store:
        deep = GPTConfig(n_layers=12, d_model=144, n_heads=12, d_vocab=size, n_ctx=2048)
        models = {"small": GPTConfig(n_layers=4, d_model=128, n_heads=4, d_vocab=size, n_ctx=64)}
        models |= {f"deep {i}": deep for i in range(TRIES)}  # each try loads its model
        for name, config in models.items():
            run = store.runs.create("train", {"name": name}, f"recipe:{name}")
            write(checkpoint_of(store, run) / "final", GPT(config, TOKENIZER, seed=0).eval())
            store.runs.finish(run)
            out[name] = f"run:{run}"
        run = store.runs.create("eval", {"suites": {"trigger": {}}}, out["small"])
        rows = [
            {"sample": f"s{i:05d}", "epoch": 0, "group": f"group {i % 12}", "cluster": str(i % 300), "unscored": "",
             "values": {"p": (i * 37 % 1000) / 1000, "right": i % 3 == 0, "nats": i * 0.01}}
            for i in range(SAMPLES)
        ]  # fmt: skip
        store.sink(run, "trigger").put(rows)
        store.runs.finish(run)
        out["samples"] = run
    return out


def timed(do: Callable[[], Any]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def text_of(count: int) -> str:
    """A text of ``count`` tokens, the BOS among them, in words that are one token each."""
    return " ".join(SINGLE[i % len(SINGLE)] for i in range(count - 1))


class Measured:
    """One browser page on a running server."""

    def __init__(self, url: str, page: Any, made: dict[str, str], server: psutil.Process) -> None:
        self.url, self.page, self.made, self.server = url, page, made, server
        self.sent = 0
        page.on("websocket", lambda socket: socket.on("framereceived", self._count))

    def _count(self, frame: Any) -> None:
        self.sent += len(frame) if isinstance(frame, bytes | str) else 0

    def open(self, path: str, done: str) -> float:
        def go() -> None:
            self.page.goto(self.url + path)
            self.page.wait_for_function(SHOWN, arg=done, polling="raf", timeout=180_000)

        return timed(go)

    def small(self) -> None:
        """The lab on 32 tokens of the small model, drawn."""
        self.open(f"/lab?model={self.made['small']}&prompt={'%20'.join(text_of(32).split())}&look=Attention", "All heads")
        still(self.page)

    def asked(self, path: str) -> float:
        """Seconds from a press on *All samples*, on a page that is open, to their table."""
        self.open(path, "One sample")
        still(self.page)
        tables = self.page.locator('[data-testid="stDataFrame"] canvas')
        before = tables.count()

        def go() -> None:
            self.page.get_by_text("All 10,000 samples").click()
            self.page.wait_for_function(
                "n => document.querySelectorAll('[data-testid=\"stDataFrame\"] canvas').length > n", arg=before, timeout=30_000
            )

        return timed(go)

    def heads(self, changes: int) -> list[float]:
        """Milliseconds from a press on a head to its pattern large."""
        times = []
        for i in range(changes):
            layer, head = (i // 4) % 4, i % 4
            if i and (layer, head) == ((i - 1) // 4 % 4, (i - 1) % 4):
                continue
            cell = self.page.locator(f'td[data-r="{layer}"][data-c="{head}"]').first

            def go(cell: Any = cell, words: str = f"Layer {layer}, head {head}") -> None:
                cell.click()
                self.page.wait_for_function(DRAWN, arg=words, polling="raf", timeout=30_000)

            times.append(1000 * timed(go))
        return times


def home(one: Measured) -> Iterator[tuple[str, float]]:
    yield "first table of Home (s)", statistics.median(one.open("/", "Recent runs") for _ in range(5))


def heads(one: Measured) -> Iterator[tuple[str, float]]:
    one.small()
    yield "a head seen for the first time, median (ms)", statistics.median(one.heads(17))  # what is not known yet is computed too
    times = sorted(one.heads(CHANGES))
    yield "change of a head, median (ms)", statistics.median(times)
    yield "change of a head, 95th percentile (ms)", times[int(0.95 * (len(times) - 1))]


def samples(one: Measured) -> Iterator[tuple[str, float]]:
    path = f"/suites?run={one.made['samples']}&suite=trigger&all=true"
    yield "10,000 samples opened (s)", statistics.median(one.open(path, "One sample") for _ in range(3))
    yield "10,000 samples asked for on an open page (s)", statistics.median(one.asked(path.replace("&all=true", "")) for _ in range(5))


def long(one: Measured) -> Iterator[tuple[str, float]]:
    """Texts of 512 and of 2,048 tokens; each try opens a model that was not looked at yet."""
    one.small()  # torch and the instruments are loaded
    for tokens, tries in ((512, TRIES), (2048, 1)):
        times = []
        for i in range(tries):
            one.open("/", "Recent runs")
            still(one.page)
            one.sent = 0
            path = f"/lab?model={one.made[f'deep {i}']}&look=Attention&prompt={'%20'.join(text_of(tokens).split())}"
            times.append(one.open(path, "Position that reads"))
        if tries > 1:
            yield f"attention, {tokens:,} tokens and 144 heads: slowest (s)", max(times)
        yield f"attention, {tokens:,} tokens and 144 heads (s)", statistics.median(times)
        if tokens == 512:
            still(one.page)
            yield "attention, 512 tokens and 144 heads (MB sent)", one.sent / 1e6


def memory(one: Measured) -> Iterator[tuple[str, float]]:
    one.small()
    before = one.server.memory_info().rss
    one.heads(200)
    yield "memory grown over 200 changes (MB)", (one.server.memory_info().rss - before) / 1e6


FIGURES = {part.__name__: part for part in (home, heads, samples, long, memory)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="*", default=list(FIGURES), choices=list(FIGURES), help="Which figures; all of them if not given.")
    chosen = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="assay-speed-"))
    try:
        made = furnish(home)
        port = free_port()
        environment = {**os.environ, "WORKBENCH_HOME": str(home), "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command(port), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                wait_for(f"{address(port)}/_stcore/health")
                with sync_playwright() as play:
                    browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
                    page = browser.new_page(viewport={"width": 1360, "height": 1400})
                    found = {}
                    one = Measured(address(port), page, made, psutil.Process(process.pid))
                    one.open("/", "Recent runs")  # the server's own first page, which loads its libraries
                    for name, value in (figure for part in chosen.only for figure in FIGURES[part](one)):
                        found[name], budget = value, BUDGETS.get(name)
                        said = "" if budget is None else f"   budget {budget:g}   {'within' if value <= budget else 'OVER'}"
                        print(f"{name:50} {value:10.2f}{said}", flush=True)
                    browser.close()
            finally:
                process.terminate()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if chosen.json:
        chosen.json.write_text(json.dumps({"measured": found, "budgets": BUDGETS, "cores": os.cpu_count()}, indent=2))
    return 0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
