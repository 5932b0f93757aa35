"""Shapley values: what each position adds to the answer, over all orders in which positions can come in.

    phi_j = mean over orders of  f(those before j, and j) - f(those before j)

with everything absent replaced. They add up to f(x) - f(all replaced), give equals equal shares, and nothing to what never matters. The
mean is over sampled orders (``permutation``), over all (``exact``), or solved for from sampled coalitions (``kernel``).

Sources: Shapley 1953; sampling, Castro, Gomez and Tejada, Computers & Operations Research 2009; antithetic orders, Mitchell, Cooper, Frank
and Holmes, JMLR 2022 (arXiv:2104.12199); the kernel, Lundberg and Lee, NeurIPS 2017 (arXiv:1705.07874), theorem 2; paired coalitions,
Covert and Lee, AISTATS 2021 (arXiv:2012.01536).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field

from probes.asked import Asked, ask
from probes.attribution import AttributionResult, attribution_values
from probes.coalitions import MOST, Worth, exactly, from_kernel, from_orders
from probes.gradient_once import ANSWERS, GradientSpec
from probes.pictures import with_picture
from probes.places import noise_note
from probes.players import Players, players_of
from probes.removal import Replacement, replacement_of
from probes.token_items import origin
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress


class ShapleySpec(GradientSpec):
    """What is explained, what stands for the absent, and how the mean over orders is taken."""

    filler: Replacement = Field(default="zero", description="what stands where a position is absent")
    filler_id: int | None = Field(default=None, description="the id of the filler 'token'; None is the mask or padding id")
    estimator: Literal["permutation", "kernel", "exact"] = Field(default="permutation", description="how the mean over orders is taken")
    samples: int = Field(default=24, ge=4, le=100_000, description="orders an item, or, for 'kernel', coalitions for each of its positions")
    antithetic: bool = Field(default=True, description="each order with its reverse, each coalition with its complement")
    seed: int = Field(default=0, ge=0, description="of the orders or coalitions")


def compute(model: HookedModel, inputs: Inputs, spec: ShapleySpec, progress: Progress) -> ShapleyResult:
    """Shapley values of every item with standard errors. Raises BadValue for too many players to enumerate, and as all attributions."""
    asked = ask(model, inputs, spec)
    players = players_of(asked, inputs.labels)
    most = int(players.count.max())
    if spec.estimator == "exact" and most > MOST:
        raise BadValue("estimator", "exact", f"'permutation' or 'kernel' with more than {MOST} players, and an item has {most}")
    start, said = replacement_of(asked, spec.filler, spec.filler_id)
    shape = (len(asked), asked.items.width)
    out = {"attribution": np.zeros(shape), "standard_error": np.full(shape, np.nan)}
    begun, evaluations = np.zeros(len(asked)), np.zeros(len(asked), dtype=int)
    for row in range(len(asked)):
        worth = _worth(asked, players, start, row, spec)
        out["attribution"][row] = players.shared(row, worth.values)
        out["standard_error"][row] = np.where(asked.items.real[row], players.shared(row, worth.errors), np.nan)
        begun[row], evaluations[row] = worth.empty, worth.evaluations
        progress(row + 1, len(asked), "items")
    items, target = asked.items, asked.target
    extra = {
        "standard_error": (("batch", "pos"), out["standard_error"]),
        "baseline_value": ("batch", begun),
        "evaluations": ("batch", evaluations),
    }
    values = attribution_values(items, target, out["attribution"], asked.value, torch.from_numpy(players.candidate), extra)
    return ShapleyResult(
        kind=INSTRUMENT.name,
        values=with_picture(values, model, items),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed, dtype=asked.x.dtype, targets=target.ids, foils=target.foils, positions=target.positions,
                          players=players.number, start=start, **items.data()),
        notes=(said, players.note, *noise_note(items)),
    )  # fmt: skip


def _worth(asked: Asked, players: Players, start: Any, row: int, spec: ShapleySpec) -> Worth:
    """Of one item; its draws depend on the seed and on how many players it has, not on the batch."""
    count = int(players.count[row])
    rng = np.random.default_rng([spec.seed, count])

    def value(present: Any) -> Float[np.ndarray, " n"]:
        kept = torch.from_numpy(players.kept(row, present))
        return asked.kept_values(torch.full((len(kept),), row), kept, start).numpy()

    ways: dict[str, Callable[[], Worth]] = {
        "permutation": lambda: from_orders(value, count, spec.samples, rng, antithetic=spec.antithetic),
        "kernel": lambda: from_kernel(value, count, spec.samples * count, rng, antithetic=spec.antithetic),
        "exact": lambda: exactly(value, count),
    }
    return ways[spec.estimator if count > 1 else "exact"]()


@dataclass(frozen=True)
class ShapleyResult(AttributionResult):
    """AttributionResult with ``standard_error`` ``[batch, pos]`` of the sampling (0 where all orders were taken), ``baseline_value``, the
    answer with everything absent, and ``evaluations``, the coalitions asked for."""

    columns: ClassVar[tuple[str, ...]] = (*AttributionResult.columns, "standard_error", "baseline_value", "evaluations")

    def account(self, item: Any) -> str:
        error = np.nanmax(np.where(item.candidate.values, item.standard_error.values, np.nan))
        said = f"the answer goes from {float(item.baseline_value):.3g} to {float(item.value):.3g}"
        return f"{said}, largest standard error {float(error):.2g}"


INSTRUMENT = Instrument(
    name="shapley",
    question="What does each token add to the answer, over all orders in which they can come in?",
    spec=ShapleySpec,
    needs=Needs(reads=ANSWERS, abilities=frozenset({"logits", "edit"}), sites=("*hook_embed",), inputs=("batch", "targets")),
    compute=compute,
)
