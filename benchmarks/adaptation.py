"""What cheap adaptation saves, measured here: ``python benchmarks/adaptation.py [part ...]`` prints a table a part.

Parts: lora, attention, layers, steps, compile. Each attention and step is measured in a process of its own, so that one's memory is not
another's; times are the least of three, on one thread.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from workbench.blocks.sparse import BlockSparse, Sliding, Sparse
from workbench.core.batch import TokenBatch
from workbench.families.gpt import GPT, GPTConfig
from workbench.training.lora import LoRASpec, attach, savings
from workbench.training.parallel.plan import layers_changed
from workbench.training.parallel.spec import ParallelSpec

SHAPE = {"n_layers": 8, "d_model": 256, "n_heads": 8, "d_vocab": 4096, "n_ctx": 512, "dropout": 0.1}


def built(**fields: Any) -> GPT:
    return GPT(GPTConfig.parse({**SHAPE, **fields})).train()


def least(work: Callable[[], object]) -> float:
    """Milliseconds."""
    work()
    times = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1000 * min(times)


def lora() -> None:
    """Parameters that train and optimizer state."""
    for select in (["*.attn.W_Q", "*.attn.W_V"], ["*blocks.*"]):
        for rank in (4, 16):
            model = built()
            attach(model, LoRASpec.parse({"rank": rank, "select": select}))
            print(f"rank {rank:2} on {' '.join(select):24} {savings(model)}")


def layers() -> None:
    """Parameters of shared layers and factorised tables."""
    whole = sum(p.numel() for p in built().parameters())
    for economy in ({}, {"groups": 1}, {"groups": 2}, {"d_embed": 64}, {"groups": 1, "d_embed": 64}):
        count = sum(p.numel() for p in built(economy=economy).parameters())
        print(f"{economy!s:34} {count:>9,} parameters ({count / whole:.0%})")


def attention(kind: str = "", length: int = 0) -> None:
    """One attention of four heads of 32, forward and backward; a window of 256, or blocks of 128."""
    if not kind:
        for length in (1024, 4096, 8192):
            for kind in ("causal", "window as a dense mask", "window", "blocks"):
                alone("attention", kind, str(length))
        return
    q = torch.randn(1, 4, length, 32, requires_grad=True)
    pattern = BlockSparse(size=128, local=2, leading=1) if kind == "blocks" else Sliding(256)
    sparse, fused = Sparse(pattern, 0, True), functional.scaled_dot_product_attention

    def work() -> None:
        if kind == "causal":
            out = fused(q, q, q, is_causal=True)
        elif kind == "window as a dense mask":
            out = fused(q, q, q, attn_mask=sparse.whole(length, length, q.device))
        else:
            out = sparse.attend(q, q, q)
        out.sum().backward()

    began = resident(anew=True)
    took = least(work)
    print(f"{length:5} tokens, {kind:24} {took:6.0f} ms {resident() - began:6.0f} MiB at most beyond the start")


def steps(kind: str = "") -> None:
    """A training step with and without recomputing layers: milliseconds, and what waits for the backward pass."""
    if not kind:
        for kind in ("plain", "recompute"):
            alone("steps", kind)
        return
    model, batch = built(), rows()
    with layers_changed(model, ParallelSpec.parse({kind: True})) if kind != "plain" else nullcontext():
        took = least(partial(step, model, batch))
        own, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, dict[int, int]()

        def note(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model.loss(batch)[0]
        del loss
        waiting = sum(size for place, size in kept.items() if place not in own) / 2**20
    print(f"{kind:10} {took:6.0f} ms a step, {waiting:6.1f} MiB kept for the backward pass")


def compiled(kind: str = "") -> None:
    """A training step with and without compiled layers: milliseconds, and seconds until the first is done."""
    if not kind:
        for kind in ("plain", "compile"):
            alone("compile", kind)
        return
    model, batch = built(), rows()
    with layers_changed(model, ParallelSpec.parse({kind: True})) if kind != "plain" else nullcontext():
        began = time.perf_counter()
        step(model, batch)
        first = time.perf_counter() - began
        print(f"{kind:10} {least(partial(step, model, batch)):6.0f} ms a step, {first:5.1f} s for the first")


def rows() -> TokenBatch:
    ids = torch.randint(0, SHAPE["d_vocab"], (4, 257), generator=torch.Generator().manual_seed(0))
    return TokenBatch(ids[:, :-1], ids[:, 1:])


def step(model: GPT, batch: TokenBatch) -> None:
    model.zero_grad()
    total, count = model.loss(batch)
    (total / count).backward()


def resident(*, anew: bool = False) -> float:
    """MiB of memory held at most since the count began ``anew`` (Linux)."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def alone(*words: str) -> None:
    """One measurement in a process of its own."""
    subprocess.run([sys.executable, "-W", "ignore", __file__, "--one", json.dumps(words)], check=True)


PARTS: dict[str, Callable[..., None]] = {"lora": lora, "layers": layers, "attention": attention, "steps": steps, "compile": compiled}

if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--one"]:
        part, *words = json.loads(sys.argv[2])
        PARTS[part](*(int(word) if word.isdigit() else word for word in words))
    else:
        for part in sys.argv[1:] or list(PARTS):
            print(f"\n{part}: {PARTS[part].__doc__}", flush=True)
            PARTS[part]()
