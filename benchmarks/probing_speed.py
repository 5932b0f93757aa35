"""Logistic probes beside scikit-learn, a harvest beside a bare forward.

    python benchmarks/probing_speed.py [--rounds N] [--only harvest] [--small]

*Probes.* Parts of speech are not needed for time: random features of an encoder's shape (7 sites of 384, as all-MiniLM-L6-v2 has;
variances fall like 1 / rank, as activations' do) and 17 classes that are a noisy linear function of them. Both fit every site at the same
penalty on float32 features. scikit-learn is given them centred, which changes nothing of the optimum and makes it a dozen times faster
(activations are never centred; ours does it itself). A ratio counts only where our loss (the common objective, recomputed in float64 here)
is no higher than theirs by more than 1e-4 and held-out accuracies agree within 0.002.

*Harvest.* A random decoder, a corpus of mixed lengths, one residual site and all of them: seconds of ``harvest`` (digests, hashes, fsync)
over seconds of the same passes without it; and bytes a second beside a plain write and fsync of as many bytes to the same disk.

Each side runs in a process of its own, in turns, on two threads; medians over rounds, intervals are bootstraps of the median. The output
is the table of docs/benchmarks/probing-speed.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import apart
import torch

THREADS, SEED, STRENGTH = 2, 0, 1e-2
PROBES: dict[str, int] = {"sites": 7, "features": 384, "classes": 17, "train": 4000, "test": 4000}
HARVEST: dict[str, int] = {"layers": 6, "width": 256, "items": 768, "length": 96}
SMALL: dict[str, int] = {
    "sites": 2,
    "features": 64,
    "classes": 5,
    "train": 800,
    "test": 400,
    "layers": 2,
    "width": 64,
    "items": 64,
    "length": 32,
}


# --- probes ---------------------------------------------------------------------------------------------------------


def features(told: Mapping[str, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """``[site, token, feature]`` (float32) and one label a token."""
    draw = torch.Generator().manual_seed(SEED)
    rows, width, classes = told["train"] + told["test"], told["features"], told["classes"]
    spread = torch.arange(1, width + 1).float().rsqrt()
    sites = []
    hidden = torch.randn(rows, width, generator=draw)
    for _ in range(told["sites"]):
        turn = torch.linalg.qr(torch.randn(width, width, generator=draw))[0]
        sites.append((hidden + 0.3 * torch.randn(rows, width, generator=draw)) * spread @ turn + 2 * torch.randn(width, generator=draw))
    scores = hidden[:, :64] @ torch.randn(min(width, 64), classes, generator=draw) * 0.3 + torch.randn(rows, classes, generator=draw)
    return torch.stack(sites), scores.argmax(1)


def judged(x: torch.Tensor, y: torch.Tensor, train: int, weight: torch.Tensor, bias: torch.Tensor) -> tuple[float, float]:
    """The common objective on the training tokens and the accuracy on the others, in float64."""
    x, weight, bias = x.double(), weight.double(), bias.double()
    penalty = STRENGTH * x[:train].var(0, correction=0).mean()
    loss = torch.nn.functional.cross_entropy(x[:train] @ weight + bias, y[:train]) + penalty / 2 * weight.square().sum()
    return float(loss), float(((x[train:] @ weight + bias).argmax(1) == y[train:]).double().mean())


def probes_ours(told: dict[str, Any], folder: Path) -> dict[str, Any]:
    from probes.logistic import fit

    x, y = features(told)
    train = told["train"]
    fit(x[:1, :200, :8], y[:200, None], told["classes"], strength=STRENGTH)  # warm
    began = time.perf_counter()
    found = [fit(one[None, :train], y[:train, None], told["classes"], strength=STRENGTH) for one in x]
    seconds = time.perf_counter() - began
    facts = [judged(one, y, train, p.weight[0, :, 0], p.bias[0, 0]) for one, p in zip(x, found, strict=True)]
    return {"seconds": seconds, "facts": facts, "steps": [p.steps for p in found]}


def probes_theirs(told: dict[str, Any], folder: Path) -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression

    warnings.simplefilter("ignore")
    x, y = features(told)
    train = told["train"]
    penalties = [STRENGTH * float(one[:train].var(0, correction=0).mean()) for one in x]
    means = [one[:train].mean(0) for one in x]
    arrays = [(one[:train] - mean).numpy() for one, mean in zip(x, means, strict=True)]
    LogisticRegression(max_iter=3).fit(arrays[0][:200, :8], y[:200].numpy())  # warm
    began = time.perf_counter()
    found = [
        LogisticRegression(C=1 / (train * p), max_iter=20_000).fit(a, y[:train].numpy()) for a, p in zip(arrays, penalties, strict=True)
    ]
    seconds = time.perf_counter() - began
    weights = [torch.from_numpy(m.coef_.T).double() for m in found]
    biases = [torch.from_numpy(m.intercept_) - mean.double() @ w for m, mean, w in zip(found, means, weights, strict=True)]
    facts = [judged(one, y, train, w, b) for one, w, b in zip(x, weights, biases, strict=True)]
    return {"seconds": seconds, "facts": facts, "steps": [int(m.n_iter_[0]) for m in found]}


# --- harvest --------------------------------------------------------------------------------------------------------


def decoder(told: Mapping[str, int]) -> tuple[Any, list[list[int]]]:
    from workbench.families.gpt import GPT, GPTConfig

    config = GPTConfig(n_layers=told["layers"], d_model=told["width"], n_heads=8, d_vocab=8192, n_ctx=told["length"])
    draw = torch.Generator().manual_seed(SEED)
    lengths = torch.randint(8, told["length"] + 1, (told["items"],), generator=draw).tolist()
    return GPT(config, seed=SEED).eval(), [torch.randint(0, 8192, (length,), generator=draw).tolist() for length in lengths]


def harvest_parts(told: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Seconds of bare passes, of harvests, and of a plain write of as many bytes, in turns within this process."""
    from workbench.engine.corpus import TokenCorpus
    from workbench.engine.harvest import HarvestSpec, _passes, harvest
    from workbench.engine.memory import keep_freed

    keep_freed()  # for both sides alike: a harvest tells its process so
    model, rows = decoder(told)
    out: dict[str, Any] = {}
    kinds = {"one site": (f"blocks.{told['layers'] // 2}.hook_resid_post",), "all residuals": ("blocks.*.hook_resid_post",)}
    bare(model, rows, _passes)
    for name, sites in kinds.items():
        spec = HarvestSpec(sites=sites)
        place = folder / name
        seconds = {"bare": clock(lambda: bare(model, rows, _passes))}
        seconds["harvest"] = clock(lambda place=place, spec=spec: harvest(model, TokenCorpus(model, rows), place, spec))
        seconds["bare again"] = clock(lambda: bare(model, rows, _passes))
        size = sum(path.stat().st_size for path in place.glob("*.safetensors"))
        seconds["write"] = clock(lambda size=size: written(folder / "plain", size))
        out[name] = {**seconds, "bytes": size, "tokens": sum(map(len, rows))}
    return out


def bare(model: Any, rows: list[list[int]], passes: Callable[..., Any]) -> None:
    """The passes that a harvest makes, and nothing kept."""
    from workbench.engine.corpus import TokenCorpus

    corpus = TokenCorpus(model, rows)
    for start in range(0, len(rows), 256):
        items = range(start, min(len(rows), start + 256))
        for numbers in passes(corpus.lengths(items), items, 4096):
            model.run(corpus.given([items[number] for number in numbers]).batch, logits=None)


def written(place: Path, size: int) -> None:
    chunk = os.urandom(1 << 20)
    with place.open("wb") as file:
        for _ in range(-(-size // len(chunk))):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    place.unlink()


def clock(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# --- side by side -----------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[dict[str, Any], Path], dict[str, Any]]] = {
    "ours": probes_ours,
    "theirs": probes_theirs,
    "harvest": harvest_parts,
}


def alone(part: str, told: dict[str, Any]) -> dict[str, Any]:
    """One part in a process of its own."""
    return apart.alone(__file__, {"part": part}, told, threads=told["threads"])


def report(rounds: list[dict[str, dict[str, Any]]]) -> None:
    print("| what | beside | ours | ratio | goal |\n|---|---|---|---|---|")
    said = report_probes(rounds) if "ours" in rounds[0] else ""
    report_harvests(rounds)
    print(said)


def report_probes(rounds: list[dict[str, dict[str, Any]]]) -> str:
    ours, theirs = ([one[name] for one in rounds] for name in ("ours", "theirs"))
    excess = max(a[0] - b[0] for a, b in zip(ours[0]["facts"], theirs[0]["facts"], strict=True))
    differ = max(abs(a[1] - b[1]) for a, b in zip(ours[0]["facts"], theirs[0]["facts"], strict=True))
    void = "" if excess <= 1e-4 and differ <= 2e-3 else " **void: not equal work**"
    median = lambda of: statistics.median(one["seconds"] for one in of)  # noqa: E731
    ratio = apart.said([b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)], 2)
    print(
        f"| logistic probes, all sites | scikit-learn's loop {median(theirs):.2f} s | {median(ours):.2f} s | {ratio}{void} | at least 10 |"
    )
    steps = f"{statistics.median(ours[0]['steps']):.0f} against {statistics.median(theirs[0]['steps']):.0f}"
    return f"\nProbes: steps {steps}; our loss at most {excess:.1e} nats above theirs, accuracies at most {differ:.4f} apart."


def report_harvests(rounds: list[dict[str, dict[str, Any]]]) -> None:
    for name in rounds[0]["harvest"]:
        found = [one["harvest"][name] for one in rounds]
        plain = [(one["bare"] + one["bare again"]) / 2 for one in found]
        share = apart.said([a / one["harvest"] for a, one in zip(plain, found, strict=True)], 2)
        rate = statistics.median(one["tokens"] / one["harvest"] for one in found)
        took = statistics.median(one["harvest"] for one in found)
        print(
            f"| harvest, {name} | bare forward {statistics.median(plain):.2f} s | {took:.2f} s, "
            f"{rate:,.0f} tokens/s | {share} | at least 0.9 |"
        )
        disk = apart.said([one["bytes"] / one["write"] / 2**20 for one in found], 2)
        took = statistics.median(one["bytes"] / max(one["harvest"] - bare_, 1e-3) / 2**20 for one, bare_ in zip(found, plain, strict=True))
        print(f"| its {found[0]['bytes'] / 2**20:.0f} MiB on disk | plain write and fsync {disk} MiB/s | {took:.0f} MiB/s more | | |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Logistic probes beside scikit-learn, a harvest beside a bare forward.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="small shapes, to try the script")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--only", choices=["harvest"], help="leave the probes out")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        told = json.load(sys.stdin)
        torch.set_num_threads(told["threads"])
        with tempfile.TemporaryDirectory() as name, torch.no_grad():
            print(json.dumps(PARTS[given.part](told, Path(name))))
        return
    told: dict[str, Any] = {**PROBES, **HARVEST, **(SMALL if given.small else {}), "threads": given.threads}
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "scikit-learn", "safetensors"))
    print(f"{versions}; {given.threads} threads; {given.rounds} rounds; {told}\n", flush=True)
    rounds = []
    for k in range(given.rounds):
        parts = [given.only] if given.only else list(PARTS)
        order = parts if k % 2 else list(reversed(parts))
        rounds.append({part: alone(part, told) for part in order})
    report(rounds)


if __name__ == "__main__":
    main()
