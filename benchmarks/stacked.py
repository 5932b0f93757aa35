"""Is it faster to train the models of an organism's doses as one stacked model? A step of several small decoders, one after the other and
as one under ``torch.func.vmap``.

    python benchmarks/stacked.py [--rounds 7]

The decoders are of plain torch, of the shapes that organisms have: what a stack could win at most, since hooks and checks of tokens are
left out. Attention is torch's own where models are apart, and written out where they are stacked, for which ``vmap`` has no rule of it.
One thread, as organisms are trained; forward and backward, warm; both ways in turn, the median ratio with its range.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional

SHAPES = {"leaning": (64, 32, 20, 900), "shortcut": (32, 64, 12, 40), "refusing": (96, 12, 64, 420)}
"""Width, rows and tokens of a batch, and vocabulary."""
STACKED = (2, 8)
HEADS, LAYERS = 4, 2


def _written(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention, written out."""
    length = q.shape[-2]
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(later, -torch.inf)
    return scores.softmax(-1) @ v


class Block(nn.Module):
    """Attention and an MLP, pre-norm."""

    def __init__(self, width: int, *, written: bool) -> None:
        super().__init__()
        self.written = written
        self.first, self.second = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(-2, -3) for part in self.qkv(self.first(x)).chunk(3, -1))
        found = _written(q, k, v) if self.written else functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(found.transpose(-2, -3).flatten(-2))
        return x + self.down(functional.gelu(self.up(self.second(x))))


class Decoder(nn.Module):
    """A small decoder's loss on a batch."""

    def __init__(self, width: int, vocabulary: int, *, written: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, written=written) for _ in range(LAYERS))
        self.read = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return functional.cross_entropy(self.read(x)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def ways(shape: tuple[int, int, int, int], count: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """A step of ``count`` decoders one after the other, and as one."""
    width, rows, length, vocabulary = shape
    models, others = ([Decoder(width, vocabulary, written=written) for _ in range(count)] for written in (False, True))
    tokens = torch.randint(0, vocabulary, (count, rows, length), generator=torch.Generator().manual_seed(0))

    def apart() -> object:
        return [torch.autograd.grad(model(own), list(model.parameters())) for model, own in zip(models, tokens, strict=True)]

    parameters, buffers = stack_module_state(others)
    one = vmap(grad(lambda p, b, own: functional_call(others[0], (p, b), (own,))))
    return apart, lambda: one(parameters, buffers, tokens)


def seconds(step: Callable[[], object], repeats: int = 10) -> float:
    """Of a step, the mean of a few."""
    started = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - started) / repeats


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, one thread, {given.rounds} rounds")
    for name, shape in SHAPES.items():
        for count in STACKED:
            apart, stacked = ways(shape, count)
            seconds(apart), seconds(stacked)
            found = [(seconds(apart), seconds(stacked)) for _ in range(given.rounds)]
            ratios = sorted(a / b for a, b in found)
            middle = ratios[len(ratios) // 2]
            took = sorted(a for a, _ in found)[len(found) // 2] / count
            print(f"{name} {shape}, {count} models: {1e3 * took:.1f} ms a model apart; stacked {middle:.2f} "
                  f"[{ratios[0]:.2f}, {ratios[-1]:.2f}] times as fast")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
