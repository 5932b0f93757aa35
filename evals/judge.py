"""Whether a painted picture shows what was asked for: a classifier of real pictures, and its own errors carried into the share it finds.

The judge is a small convolutional network that learns from pictures of another draw of the world, of all pairs, and is tried on held-out
ones of these. What it says of painted pictures is corrected for how often it is wrong (``judges.correction``):

    share = (seen - f) / (a - f)

where ``a`` is how often it calls a picture what it is, and ``f`` how often it takes another shape of the same colour for what was asked,
which is the fault that painters make. It was tried on real pictures; of painted ones, which can be odd in other ways, it may know less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from evals.judges import correction
from evals.judges.correction import Errors
from evals.task import Measure
from workbench.core.errors import BadValue
from workbench.data.worlds.shapes import PAIRS, SHAPES, Shapes, ShapesSpec
from workbench.engine.threads import one_thread

ROWS, STEPS, BATCH = 4_000, 500, 64
TRIED = 800
"""Held-out pictures that the judge is tried on."""
OTHER = 7_919  # added to the world's seed: the judge's pictures are none that a painter has seen


@dataclass(frozen=True)
class Judge:
    """The trained network, and how many of ``tried`` held-out real pictures it named right."""

    net: nn.Module
    right: int
    tried: int

    @classmethod
    def of(cls, spec: ShapesSpec) -> Judge:
        """The judge of pictures like those of ``spec``; the same spec gives the same judge."""
        return _trained(spec.override({"seed": spec.seed + OTHER, "unseen": 0, "rows": ROWS, "held_out": TRIED}).model_dump_json())

    @torch.no_grad()
    def classes(self, pictures: Float[Tensor, "batch channel height width"]) -> Int[Tensor, " batch"]:
        """The place in ``PAIRS`` of what each picture shows."""
        return self.net(pictures.float()).argmax(1)

    def share(self, name: str, seen: int, count: int, words: str) -> Measure:
        """The share of ``count`` pictures that show what was asked, of which the judge found ``seen``, corrected for its errors.

        The interval (95 %) is of the three rates together, each drawn many times from its posterior under Jeffreys's prior.
        Raises BadValue for no pictures.
        """
        if count < 1 or not 0 <= seen <= count:
            raise BadValue(f"the pictures of '{name}'", f"{seen} of {count}", "at least one, and no more found than there are")
        wrong, others = self.tried - self.right, len(SHAPES) - 1
        errors = Errors(self.right, wrong, wrong / others, self.tried - wrong / others)
        found = correction.share(seen, count, errors)
        return Measure(name, found.value, found.interval.low, found.interval.high, count, words)


@lru_cache(maxsize=4)
def _trained(of: str) -> Judge:
    """The judge of the world whose spec ``of`` is (as JSON: a key that can be remembered), by one thread: more would make another judge."""
    with one_thread():
        return _made(of)


def _made(of: str) -> Judge:
    spec = ShapesSpec.model_validate_json(of)
    world = Shapes(spec)
    rows, held_out = world.labelled("train"), world.labelled("test")
    first, drawn = torch.random.get_rng_state(), torch.Generator().manual_seed(spec.seed)
    torch.manual_seed(spec.seed)
    net = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(48, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(256, len(PAIRS)),
    )  # fmt: skip
    torch.random.set_rng_state(first)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(STEPS):
        batch = rows.batch(torch.randint(len(rows), (BATCH,), generator=drawn).tolist())
        # Painted pictures are never quite clean, so it learns at different amounts of noise.
        noise = 0.1 * torch.rand(1, generator=drawn) * torch.randn(batch.pixels.shape, generator=drawn)
        assert batch.targets is not None, "labelled pictures have classes"
        optimizer.zero_grad()
        functional.cross_entropy(net(batch.pixels + noise), batch.targets).backward()
        optimizer.step()
    whole = held_out.batch(range(len(held_out)))
    judge = Judge(net.eval(), 0, len(held_out))
    return Judge(judge.net, int((judge.classes(whole.pixels) == whole.targets).sum()), len(held_out))


# --- how near to what was learned from ----------------------------------------------------------------------


def nearest(
    pictures: Float[Tensor, "batch channel height width"], among: Float[Tensor, "row channel height width"]
) -> tuple[Int[Tensor, " batch"], Float[Tensor, " batch"]]:
    """For each picture the row of ``among`` at the least distance (root mean squared difference of pixels), and that distance."""
    flat = pictures.flatten(1)
    found = torch.cdist(flat, among.flatten(1).to(flat)).min(1)
    return found.indices, found.values / flat.shape[1] ** 0.5


def copied(painted: Float[Tensor, "batch channel height width"], training: Tensor, held_out: Tensor, *, share: float = 0.05) -> Measure:
    """How many painted pictures lie nearer to a training picture than all but ``share`` of the real held-out ones do: about ``share`` of
    a painter that copies nothing."""
    bound = torch.quantile(nearest(held_out, training)[1], share)
    near = int((nearest(painted, training)[1] < bound).sum())
    words = f"painted pictures, nearer to a training picture than all but {share:.0%} of real held-out ones"
    found = Measure.share("near copies", near, len(painted), words)
    return Measure(found.name, found.value, found.low, found.high, found.count, found.words, larger=False)


def asked(world: Shapes, count: int, *, unseen: bool) -> Sequence[tuple[str, str]]:
    """``count`` pairs to paint, all seen (or unseen) ones equally often."""
    pairs = world.unseen if unseen else world.seen
    return [pairs[i % len(pairs)] for i in range(count)]
