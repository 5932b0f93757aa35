"""Activation patching beside TransformerLens on the same weights: ``python benchmarks/patching_speed.py [--rounds N] [--positions N]``.

A random model of GPT-2 small's shape (12 layers, 768 wide, 12 heads, vocabulary 50,257) and one prompt of 64 tokens with a corrupt twin
that differs at every position, so that nothing is saved by what the twins share. Three sweeps: the residual stream by layer and
position, heads by position, and heads at all positions. Each library runs in a process of its own, in turns, on two threads; the ratio is
taken within a round. TransformerLens runs one whole forward pass a cell, so its time a cell is measured on a random sample of cells; ours
is measured on the whole grid, but for heads by position on two layers whose mean depth is that of all. Of TransformerLens's ways to run the
model (its bridge with the eager and the fused kernel, and our model presented to it) the fastest is taken. The values of both are
compared, and peak memory is each process's own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apart
import pandas as pd
import torch
from torch import Tensor

THREADS, SAMPLE, SEED, TARGET, FOIL = 2, 40, 0, 11, 22
SHAPE: dict[str, Any] = {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}
SMALL: dict[str, Any] = {"n_layer": 4, "n_embd": 128, "n_head": 4, "vocab_size": 997, "n_positions": 64}
FLOORS = {"residual by position": 8.0, "heads by position": 8.0, "heads at all positions": 4.0}


def prompts(positions: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    """A clean and a corrupt row."""
    draw = torch.Generator().manual_seed(SEED)
    clean = torch.randint(0, vocabulary, (1, positions), generator=draw)
    return clean, (clean + 1 + torch.randint(0, vocabulary - 1, clean.shape, generator=draw)) % vocabulary


def weights(folder: Path, shape: dict[str, Any]) -> None:
    """The model, in the published form."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(SEED)
    config = GPT2Config(**shape, bos_token_id=None, eos_token_id=None)
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():  # so that patches move the answer
            parameter.add_(torch.randn(parameter.shape), alpha=0.02)
    model.save_pretrained(folder)


def peak() -> float:
    """MiB this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- theirs -----------------------------------------------------------------------------------------------------


def bridged(folder: Path, kernel: str) -> Any:
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation=kernel).eval()
    return build_bridge_from_module(model, type(model).__name__, hf_config=model.config)


def presented(folder: Path) -> Any:
    from workbench.adapters import hf
    from workbench.adapters.transformer_lens import present

    return present(hf.load(folder))


def setters() -> dict[str, tuple[Any, str, tuple[str, ...]]]:
    """Of each sweep their setter, activation and axes."""
    from transformer_lens import patching

    return {
        "residual by position": (patching.layer_pos_patch_setter, "resid_pre", ("layer", "pos")),
        "heads by position": (patching.layer_pos_head_vector_patch_setter, "z", ("layer", "pos", "head")),
        "heads at all positions": (patching.layer_head_vector_patch_setter, "z", ("layer", "head")),
    }


def metric(logits: Tensor) -> Tensor:
    """What their sweep reads."""
    return logits[0, -1, TARGET] - logits[0, -1, FOIL]


WAYS: dict[str, Callable[[Path], Any]] = {
    "bridge, eager": lambda folder: bridged(folder, "eager"),
    "bridge, fused": lambda folder: bridged(folder, "sdpa"),
    "presented": presented,
}


def timed(model: Any, positions: int, sweep: str, cells: list[tuple[int, ...]]) -> tuple[float, float, list[float]]:
    """Seconds a cell by the clock and of the processor, and the cells' values."""
    from transformer_lens import patching

    setter, name, axes = setters()[sweep]
    clean, corrupt = prompts(positions, model.cfg.d_vocab)
    _, cache = model.run_with_cache(clean, names_filter=lambda n: n.endswith(f"hook_{name}"))
    frame = pd.DataFrame(cells, columns=pd.Index(axes))
    began, worked = time.perf_counter(), time.process_time()
    out = patching.generic_activation_patch(model, corrupt, cache, metric, setter, name, index_df=frame)
    return (time.perf_counter() - began) / len(cells), (time.process_time() - worked) / len(cells), out.tolist()


def ways(folder: Path, positions: int) -> dict[str, float]:
    """Seconds a cell of each way their library can run the model."""
    out: dict[str, float] = {}
    for way, make in WAYS.items():
        model = make(folder)
        timed(model, positions, "residual by position", [(0, 0)] * 2)
        out[way] = timed(model, positions, "residual by position", [(0, p) for p in range(6)])[0]
    return out


def theirs(folder: Path, positions: int, way: str) -> dict[str, Any]:
    """Seconds a cell of each sweep, and the values of the sampled cells."""
    model, out = WAYS[way](folder), {}
    most = {"layer": model.cfg.n_layers, "pos": positions, "head": model.cfg.n_heads}
    timed(model, positions, "residual by position", [(0, 0)] * 2)
    for sweep, (_, _, axes) in setters().items():
        draw = torch.Generator().manual_seed(SEED)
        cells = [tuple(int(torch.randint(most[axis], (1,), generator=draw)) for axis in axes) for _ in range(SAMPLE)]
        each, cpu, values = timed(model, positions, sweep, cells)
        out[sweep] = {"each": each, "cpu": cpu, "cells": cells, "axes": axes, "values": values}
    return {"sweeps": out, "peak": peak()}


# --- ours -------------------------------------------------------------------------------------------------------


def ours(folder: Path, positions: int, sampled: dict[str, Any]) -> dict[str, Any]:
    """Seconds a cell of each sweep (what the instrument runs: the clean run, the unedited run, the edited ones), and the largest difference
    to their values; and what the instrument adds for provenance, the digest of all weights."""
    from workbench.adapters import hf
    from workbench.core.protocol import FromTrace
    from workbench.engine.sweep import prepare

    model = hf.load(folder)
    clean, corrupt = prompts(positions, model.config.d_vocab)
    layers, heads, out = model.config.n_layers, model.config.n_heads, {}
    grids = {
        "residual by position": ("hook_resid_pre", [(i, p) for i in range(layers) for p in range(positions)]),
        "heads by position": (
            "attn.hook_z",
            [(i, p, h) for i in (layers // 6, layers - 1 - layers // 6) for p in range(positions) for h in range(heads)],
        ),
        "heads at all positions": ("attn.hook_z", [(i, h) for i in range(layers) for h in range(heads)]),
    }

    def run(sweep: str, cells: list[tuple[int, ...]]) -> tuple[dict[tuple[int, ...], float], str]:
        site, axes = grids[sweep][0], sampled[sweep]["axes"]
        source = model.run(clean, capture=f"blocks.*.{site}", logits=None)
        edits = [FromTrace(f"blocks.{cell[0]}.{site}", trace=source, at=dict(zip(axes[1:], cell[1:], strict=True))) for cell in cells]
        ready = prepare(model, corrupt, edits)
        values = dict(ready.results(lambda logits: logits[:, 0, TARGET] - logits[:, 0, FOIL]))
        return {cell: float(values[k]) for k, cell in enumerate(cells)}, str(ready.estimate)

    for sweep, (_, cells) in grids.items():
        run(sweep, cells[-heads:])
        began, worked = time.perf_counter(), time.process_time()
        values, memory = run(sweep, cells)
        seconds, cpu = time.perf_counter() - began, time.process_time() - worked
        pairs = [
            (values[tuple(cell)], value)
            for cell, value in zip(sampled[sweep]["cells"], sampled[sweep]["values"], strict=True)
            if tuple(cell) in values
        ]
        out[sweep] = {
            "each": seconds / len(cells), "cpu": cpu / len(cells), "cells": len(cells), "memory": memory, "compared": len(pairs),
            "gap": max((abs(a - b) for a, b in pairs), default=float("nan")), "spread": statistics.pstdev(values.values()),
        }  # fmt: skip
    top, began = peak(), time.perf_counter()
    model.digest()
    return {"sweeps": out, "peak": top, "digest": time.perf_counter() - began}


# --- side by side -------------------------------------------------------------------------------------------------


def bound(sweep: str, shape: dict[str, Any], positions: int) -> float:
    """The ratio of products of a whole run a cell to those that are done: layers from the edited one on (of positions, from the edited one
    on), of the last layer keys and values alone (2 of 12 parts) but at the last position, and its logits. Products of attention are left
    out: at this length they are a hundredth."""
    layer, layers, head = 12 * shape["n_embd"] ** 2, shape["n_layer"], shape["n_embd"] * shape["vocab_size"]
    share = 1.0 if sweep == "heads at all positions" else (positions + 1) / (2 * positions)
    kept = positions * share * layer * ((layers - 1) / 2 + 2 / 12) + layer * 10 / 12 + head
    return positions * (layers * layer + head) / kept


def alone(part: str, folder: Path, positions: int, told: Any = None) -> Any:
    """One part in a process of its own."""
    return apart.alone(__file__, {"part": part, "folder": folder, "positions": positions}, told, threads=THREADS)


def main() -> None:
    parser = argparse.ArgumentParser(description="Activation patching beside TransformerLens on the same weights.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--positions", type=int, default=64)
    parser.add_argument("--small", action="store_true", help="a model of 4 layers, to try the script")
    parser.add_argument("--part", choices=["ways", "theirs", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    if given.part:
        parts: dict[str, Callable[..., Any]] = {
            "ways": lambda folder, positions, _: ways(folder, positions),
            "theirs": theirs,
            "ours": ours,
        }
        print(json.dumps(parts[given.part](given.folder, given.positions, json.load(sys.stdin))))
        return
    shape = SMALL if given.small else SHAPE
    rounds: list[tuple[dict[str, Any], dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights(folder, shape)
        tried = alone("ways", folder, given.positions)
        way = min(tried, key=lambda one: tried[one])
        said = ", ".join(f"{one} {1000 * seconds:.0f} ms" for one, seconds in tried.items())
        print(f"a run of theirs by way: {said}; taken: {way}", flush=True)
        for _ in range(given.rounds):
            first = alone("theirs", folder, given.positions, way)
            rounds.append((first, alone("ours", folder, given.positions, first["sweeps"])))
    report(rounds, shape, given.positions)


def report(rounds: list[tuple[dict[str, Any], dict[str, Any]]], shape: dict[str, Any], positions: int) -> None:
    """A table: milliseconds a cell, the ratio with its range over rounds, its bound and floor, agreement and memory."""
    for sweep, floor in FLOORS.items():
        pairs = [(a["sweeps"][sweep], b["sweeps"][sweep]) for a, b in rounds]
        ratios, works = ([a[clock] / b[clock] for a, b in pairs] for clock in ("each", "cpu"))
        slow, fast = (1000 * statistics.median(one["each"] for one in side) for side in zip(*pairs, strict=True))
        last, gap = pairs[-1][1], max(b["gap"] for _, b in pairs)
        print(f"{sweep:24} theirs {slow:7.1f} ms a cell, ours {fast:6.1f} ({last['cells']} cells)")
        print(
            f"    ratio {statistics.median(ratios):.1f} [{min(ratios):.1f}, {max(ratios):.1f}] over {len(ratios)} rounds, of processor "
            f"time {statistics.median(works):.1f}; floor {floor:g}; bound by products saved {bound(sweep, shape, positions):.1f}"
        )
        print(f"    largest difference {gap:.1e} on {last['compared']} cells (spread {last['spread']:.2f}); memory {last['memory']}")
    tops = [statistics.median(side["peak"] for side in both) for both in zip(*rounds, strict=True)]
    print(f"peak memory of the process: theirs {tops[0]:,.0f} MiB, ours {tops[1]:,.0f} MiB")
    print(f"the instrument adds {statistics.median(b['digest'] for _, b in rounds):.1f} s a result for the digest of the weights")


if __name__ == "__main__":
    main()
