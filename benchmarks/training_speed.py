"""The speed of training beside peers: ours, transformers and x-transformers, the same decoder under each one's loop.

    python benchmarks/training_speed.py [--rounds 5] [--shapes small large] [--dtypes float32 bf16] [--threads 2] [--device cpu|cuda]
    python benchmarks/training_speed.py --time-to-loss [--seeds 1337]
    python benchmarks/training_speed.py --ceiling

Processes alternate (ours, peer, ours, peer …), each measures all settings once it is warm, and the ratio of a round is of neighbours.
Prints medians over rounds and the median ratio with a bootstrap interval (95 %). x-transformers is installed, without torch, into a folder
of its own (``--peers``); nothing else is changed. On a GPU: bf16, compiled layers (``--no-compile``: not), and the share of the machine's
largest product rate that the model's own operations reach.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from training_ceiling import ceiling, largest_rate, operations
from training_contestants import CLOCKS, PAIRS, SHAPES, How, measured, text
from training_to_loss import time_to_loss

PACKAGES = ("x-transformers==2.31.10", "einx==0.4.3", "loguru==0.7.3", "torch-einops-utils==0.2.0", "frozendict")
STEPS = {"small": (40, 5), "large": (3, 1)}
"""Steps measured and steps before them, in each process."""
ON_GPU = (50, 20)


def peers_folder(given: str) -> Path:
    """The folder with x-transformers; filled at the first call. Dependencies are named one by one, so that torch stays the one in use."""
    folder = Path(given) if given else Path(tempfile.gettempdir()) / "assay-peers"
    if not (folder / "x_transformers").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--target", str(folder), *PACKAGES], check=True)
    return folder


def alone(name: str, asked: argparse.Namespace) -> dict[str, dict[str, float]]:
    """One contestant in a process of its own, in all settings."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", name, "--threads", str(asked.threads), "--device", asked.device]
    command += ["--shapes", *asked.shapes, "--dtypes", *asked.dtypes] + ([] if asked.compile else ["--no-compile"])
    command += ["--clock", asked.clock]
    done = subprocess.run(command, env={**os.environ, "ASSAY_PEERS": str(asked.folder)}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def one(asked: argparse.Namespace) -> None:
    """What ``alone`` runs."""
    torch.set_num_threads(asked.threads)
    ids, out = text()[0], {}
    for shape in asked.shapes:
        for dtype in asked.dtypes:
            how = How(SHAPES[shape], dtype, asked.device, asked.threads, asked.compile, asked.clock)
            out[f"{shape} {dtype}"] = measured(asked.one, how, ids, *(ON_GPU if asked.device == "cuda" else STEPS[shape]))
    print(json.dumps(out))


def interval(ratios: Sequence[float], resamples: int = 4000) -> tuple[float, float]:
    """The bootstrap interval (95 %) of a median over rounds."""
    draw = np.random.default_rng(0)
    drawn = np.median(draw.choice(np.asarray(ratios), (resamples, len(ratios))), axis=1)
    return float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


def race(asked: argparse.Namespace) -> None:
    """All rounds, and the table."""
    found: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for pair in PAIRS.items() for name in pair}
    for number in range(asked.rounds):
        for rival, own in PAIRS.items():
            for name in (own, rival):
                found[name].append(alone(name, asked))
        print(f"round {number + 1} of {asked.rounds} done", file=sys.stderr, flush=True)
    print("| setting | peer | parameters (ours, peer) | ours, tokens/s | peer, tokens/s | ratio | 95 % interval |")
    print("|---|---|---|---|---|---|---|")
    best: dict[str, float] = {}
    for setting in found["ours"][0]:
        for rival, own in PAIRS.items():
            mine, theirs = ([one[setting] for one in found[name]] for name in (own, rival))
            counts = [f"{int(one[0]['parameters']):,}" for one in (mine, theirs)]
            speeds = [statistics.median(one["tokens"] for one in side) for side in (mine, theirs)]
            ratios = [a["tokens"] / b["tokens"] for a, b in zip(mine, theirs)]
            low, high = interval(ratios)
            print(
                f"| {setting} | {rival} | {counts[0]}, {counts[1]} | {speeds[0]:,.0f} | {speeds[1]:,.0f} "
                f"| {statistics.median(ratios):.2f} | {low:.2f} to {high:.2f} |"
            )
            best[setting] = min(best.get(setting, float("inf")), statistics.median(ratios))
    print("\nBeside the better peer: " + ", ".join(f"{setting} {ratio:.2f}" for setting, ratio in best.items()) + " (goal: at least 1.30)")
    if asked.device == "cuda":
        shares(asked, found["ours"])


def shares(asked: argparse.Namespace, rounds: list[dict[str, dict[str, float]]]) -> None:
    """How much of the machine's largest product rate the model's operations reach (model-FLOPs utilisation)."""
    for dtype in asked.dtypes:
        top = asked.peak * 1e12 if asked.peak else largest_rate(dtype, "cuda")
        for shape in asked.shapes:
            speed = statistics.median(one[f"{shape} {dtype}"]["tokens"] for one in rounds)
            share = speed / SHAPES[shape].tokens * operations(SHAPES[shape]) / top
            print(f"{shape} {dtype}: {share:.1%} of {top / 1e12:,.0f} TFLOP/s ({'given' if asked.peak else 'measured: one large product'})")


def machine(asked: argparse.Namespace) -> str:
    """Versions, device and threads."""
    packages = {name: version(name) for name in ("torch", "transformers", "numpy")}
    device = torch.cuda.get_device_name() if asked.device == "cuda" else f"{platform.machine()}, {os.cpu_count()} cores"
    load = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    return f"{device}, {asked.threads} threads, {asked.clock} clock{load}; {packages}, {PACKAGES[0]}; python {platform.python_version()}"


def parsed() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bf16"], default=[])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="processor: for one thread of a busy machine")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="on a GPU: layers as they are")
    parser.add_argument("--peak", type=float, default=0.0, help="on a GPU: its largest rate by data sheet, TFLOP/s; 0: measured")
    parser.add_argument("--peers", default="", help="the folder x-transformers is in, or is installed into")
    parser.add_argument("--time-to-loss", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1337])
    parser.add_argument("--ceiling", action="store_true", help="product rates, operations and a profile of a step")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.compile = asked.compile and asked.device == "cuda"
    asked.dtypes = asked.dtypes or (["bf16"] if asked.device == "cuda" else ["float32", "bf16"])
    return asked


def main() -> int:
    asked = parsed()
    if asked.one:
        one(asked)
        return 0
    began = time.monotonic()
    if asked.ceiling:
        ceiling(asked.shapes, asked.dtypes, asked.device, asked.threads, asked.clock)
    elif asked.time_to_loss:
        time_to_loss(asked.seeds, asked.threads, asked.device, asked.clock)
    else:
        asked.folder = peers_folder(asked.peers)
        race(asked)
    print(f"\n{machine(asked)}\n`python {' '.join(sys.argv)}`, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
