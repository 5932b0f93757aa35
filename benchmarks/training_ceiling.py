"""How fast a training step could be on this machine, and what it spends its time on: the parts of ``training_speed.py --ceiling``."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from training_contestants import CLOCKS, SHAPES, VOCABULARY, How, Shape, our_model, our_spec, text

from workbench.core.protocol import Callback
from workbench.data.text import ContiguousRows
from workbench.training.loop import train

KINDS = {
    "products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "attention": ("aten::_scaled_dot_product", "aten::exp_"),
    "GELU": ("aten::gelu",),
    "norms": ("aten::native_layer_norm", "aten::_fused_rms_norm"),
    "copies and casts": ("aten::copy_", "aten::_to_copy", "aten::clone", "aten::cat"),
    "optimizer and clipping": ("aten::_fused_adamw_", "aten::linalg_vector_norm", "aten::_foreach", "Optimizer."),
    "loss": ("aten::_log_softmax", "aten::nll_loss"),
    "sums (residual, gradients, biases)": ("aten::add", "aten::sum", "aten::mul"),
}
"""Operations by the beginnings of their names; the first that fits. Products inside attention's own backward pass count as products."""


def matrices(shape: Shape) -> dict[tuple[int, int], int]:
    """How often a step multiplies by a matrix (inputs, outputs): queries, keys, values and output; the two of the MLP; the unembedding."""
    d = shape.width
    return {(d, d): 4 * shape.layers, (d, 4 * d): shape.layers, (4 * d, d): shape.layers, (d, VOCABULARY): 1}


def operations(shape: Shape) -> float:
    """Floating point operations of a step: six a weight of a matrix and a token (forward, and two products backward), and the two products
    of attention over the half that is not later, forward and twice backward."""
    weights = sum(times * n_in * n_out for (n_in, n_out), times in matrices(shape).items())
    attention = 6 * shape.layers * shape.length * shape.width  # 12 over all keys
    return shape.tokens * (6.0 * weights + attention)


def seconds_of(work: Callable[[], object], device: str, clock: str = "wall", repeats: int = 15) -> float:
    """The median."""
    times = []
    for number in range(repeats + 2):
        if device == "cuda":
            torch.cuda.synchronize()
        began = CLOCKS[clock]()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(CLOCKS[clock]() - began if number > 1 else 0.0)
    return statistics.median(times[2:])


def largest_rate(dtype: str, device: str, clock: str = "wall") -> float:
    """Operations a second of one product of square matrices."""
    size = 8192 if device == "cuda" else 2048
    x = torch.randn(size, size, device=device, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32)
    return 2.0 * size**3 / seconds_of(lambda: x @ x, device, clock)


def product_seconds(shape: Shape, dtype: str, device: str, clock: str) -> tuple[float, list[str]]:
    """What a step's products by matrices take one after another, and a line a matrix: rates forward, of the input's gradient and of the
    weight's."""
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    whole, lines = 0.0, []
    for (n_in, n_out), times in matrices(shape).items():
        x, w, g = (torch.randn(size, device=device).to(kind) for size in ((shape.tokens, n_in), (n_out, n_in), (shape.tokens, n_out)))
        works: list[Callable[[], Tensor]] = [lambda x=x, w=w: x @ w.T, lambda g=g, w=w: g @ w, lambda g=g, x=x: g.T @ x]
        took = [seconds_of(work, device, clock) for work in works]
        rates = ", ".join(f"{2.0 * shape.tokens * n_in * n_out / one / 1e9:,.0f}" for one in took)
        lines.append(f"{shape.tokens} × {n_in} × {n_out}: {rates}")
        whole += times * sum(took)
    return whole, lines


def profiled(how: How, steps: int) -> tuple[float, dict[str, float]]:
    """Seconds a step of ours, and how much of it each kind of operation takes (on the thread that trains)."""
    rows = ContiguousRows(text()[0], how.shape.length, rows=1000, seed=0)
    train(our_model(how.shape, bias=True).to(how.device), rows, our_spec(how, 2))
    marks: list[float] = []
    tick: Callback = lambda event, state: marks.append(CLOCKS[how.clock]()) if event == "step" else None  # noqa: E731
    train(our_model(how.shape, bias=True).to(how.device), rows, our_spec(how, steps + 1), callbacks=[tick])
    plain = statistics.median(b - a for a, b in pairwise(marks))
    ends: list[float] = []  # by the wall, as the profile counts
    found: dict[str, float] = defaultdict(float)
    watch = profile(activities=[ProfilerActivity.CPU])

    def watched(event: str, state: object) -> None:
        if event == "step":
            ends.append(time.perf_counter())
            if len(ends) == 1:
                watch.start()
            if len(ends) == steps + 1:
                watch.stop()

    train(our_model(how.shape, bias=True).to(how.device), rows, our_spec(how, steps + 1), callbacks=[watched])
    for event in watch.key_averages():
        kind = next((kind for kind, names in KINDS.items() if event.key.startswith(names)), "other operations")
        if event.key.startswith("aten::") or kind != "other operations":
            found[kind] += event.self_cpu_time_total / 1e6 / steps
    whole = (ends[-1] - ends[0]) / steps
    shares = {kind: value / whole for kind, value in found.items()}
    return plain, shares | {"between operations": max(0.0, 1.0 - sum(shares.values()))}


def ceiling(shapes: Sequence[str], dtypes: Sequence[str], device: str, threads: int, clock: str) -> None:
    """Print rates, operations, the share of a step that its products alone would take, and the profile."""
    torch.set_num_threads(threads)
    for name in shapes:
        for dtype in dtypes:
            shape = SHAPES[name]
            products, lines = product_seconds(shape, dtype, device, clock)
            step, shares = profiled(How(shape, dtype, device, threads, False, clock), 20 if name == "small" else 3)
            count, top = operations(shape) / 1e9, largest_rate(dtype, device, clock) / 1e9
            print(f"\n{name} {dtype}: {count:,.1f} GFLOP a step; one large product {top:,.0f} GFLOP/s")
            print("rates, GFLOP/s (forward, input's gradient, weight's gradient): " + "; ".join(lines))
            print(
                f"a step {1000 * step:,.1f} ms ({count / step:,.0f} GFLOP/s); its products by matrices alone {1000 * products:,.1f} ms",
                end="",
            )
            print(f": {products / step:.0%}")
            print(", ".join(f"{kind} {share:.0%}" for kind, share in sorted(shares.items(), key=lambda one: -one[1])))
