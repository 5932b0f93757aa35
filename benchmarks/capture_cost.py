"""What sites cost a forward pass: heard by nobody, with every residual captured, with every site captured; beside TransformerLens's bridge.

    python benchmarks/capture_cost.py [--rounds 60] [--threads 2]

The model without sites is the generated twin of ``listening_cost.py``: the same sources with every site taken out; logits are compared
to the bit first. Passes of all of them alternate in one process on the same weights and tokens, and each is divided by its neighbour
without sites. The last is TransformerLens's own bridge (GPT-2 of the same shape, its fastest kernel) over the model that it wraps, bare
and with its cache. Prints medians of ratios with bootstrap intervals (95 %).

Captured tensors are new memory in every pass, 200 MiB of it with every site of the larger shape. Whether glibc hands what was freed back to
the system, and the next pass then waits for it page by page, depends on what else the process holds: between two passes alike, 200 and
60,000 page faults were counted. So it is told to keep what it has, for all contestants alike (``--as-is``: it is not).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from listening_cost import twin_family

from workbench.families.gpt import GPT, GPTConfig

SHAPES = {"6 layers x 256, 1 x 32 tokens": ((6, 256, 8), (1, 32)), "6 layers x 256, 8 x 128 tokens": ((6, 256, 8), (8, 128))}
VOCABULARY = 1000
KEEP = {"MALLOC_TRIM_THRESHOLD_": str(4 << 30), "MALLOC_MMAP_THRESHOLD_": str(2 << 30)}
"""glibc's words for: keep freed memory, and take large blocks from it too. Read when a process begins."""
GOALS = {"nobody listens": 1.02, "every residual": 1.05, "every site": 1.3}
RESIDUALS = ("blocks.*.hook_resid_*",)


def alternate(runs: Mapping[str, Callable[[], Any]], base: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each over those of ``base`` in the same round; the order turns from round to round."""
    out: dict[str, list[float]] = {name: [] for name in runs if name != base}
    names = list(runs)
    for number in range(rounds + 5):
        took: dict[str, float] = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = time.perf_counter()
            for _ in range(3):
                runs[name]()
            took[name] = time.perf_counter() - began
        if number >= 5:  # warm
            for name, found in out.items():
                found.append(took[name] / took[base])
    return out


def ours(shape: tuple[int, int, int], rows: int, length: int) -> dict[str, Callable[[], Any]]:
    """Passes of our model and of its twin without sites."""
    layers, width, heads = shape
    fields = {"n_layers": layers, "d_model": width, "n_heads": heads, "n_ctx": 128, "d_vocab": VOCABULARY, "positions": "learned"}
    twin, _ = twin_family()
    model, silent = GPT(GPTConfig.parse(fields), seed=0).eval(), twin.GPT(twin.GPTConfig.parse(fields), seed=0).eval()
    ids = torch.randint(0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(0))
    one, other = model.run(ids).logits, silent.run(ids).logits
    assert one is not None and torch.equal(one, other), "the twin computes something else"  # noqa: PT018
    return {
        "without sites": lambda: silent.run(ids),
        "nobody listens": lambda: model.run(ids),
        "every residual": lambda: model.run(ids, capture=RESIDUALS),
        "every site": lambda: model.run(ids, capture="*"),
    }


def bridge(shape: tuple[int, int, int], rows: int, length: int) -> dict[str, Callable[[], Any]]:
    """Passes of a published GPT-2 of that shape, and of TransformerLens's bridge over it."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
    from transformers import GPT2Config, GPT2LMHeadModel

    layers, width, heads = shape
    sizes: dict[str, Any] = {"n_layer": layers, "n_embd": width, "n_head": heads, "vocab_size": VOCABULARY, "n_positions": 128}
    config = GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)
    bare, inside = GPT2LMHeadModel(config).eval(), GPT2LMHeadModel(config).eval()
    wrapped: Any = build_bridge_from_module(inside, "GPT2LMHeadModel", hf_config=config)
    ids = torch.randint(0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(0))
    return {
        "its model alone": lambda: bare(ids),
        "its bridge": lambda: wrapped(ids),
        "its bridge with cache": lambda: wrapped.run_with_cache(ids),
    }


def said(found: Mapping[str, list[float]]) -> None:
    draw = np.random.default_rng(0)
    for name, values in found.items():
        drawn = np.median(draw.choice(np.asarray(values), (2000, len(values))), axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        goal = f"; goal: at most {GOALS[name]}" if name in GOALS else ""
        print(f"  {name}: {statistics.median(values):.4f} ({low:.4f} to {high:.4f}){goal}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--as-is", action="store_true", help="let the allocator hand memory back between passes")
    asked = parser.parse_args()
    if not asked.as_is and any(os.environ.get(name) != value for name, value in KEEP.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP})
    torch.set_num_threads(asked.threads)
    print(f"torch {torch.__version__}, transformer-lens {version('transformer-lens')}, {asked.threads} threads, {asked.rounds} rounds of 3")
    with torch.no_grad():
        for words, (shape, (rows, length)) in SHAPES.items():
            print(words)
            said(alternate(ours(shape, rows, length), "without sites", asked.rounds))
            said(alternate(bridge(shape, rows, length), "its model alone", asked.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
