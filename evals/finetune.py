"""Fine-tuning a classifier on a few labelled rows: from a trained encoder, or from fresh weights of the same shape."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.core.batch import IGNORE, EncoderBatch, TokenBatch
from workbench.core.errors import BadValue
from workbench.data.counter import key_of, permuted

ROWS = 250
"""Rows that are classified at once."""
HEADS = ("head", "pooler", "unembed")


@dataclass(frozen=True)
class Budget:
    """What one fine-tuning may spend: so many passes over the labelled rows, in steps of so many rows."""

    passes: int
    batch_rows: int

    def steps(self, rows: int) -> int:
        """Optimizer steps over ``rows`` labelled rows; what does not fill a last step is left out. Raises BadValue for none."""
        steps = self.passes * rows // self.batch_rows
        if steps < 1:
            raise BadValue("the budget", f"{self.passes} passes of {rows} rows", f"at least one step of {self.batch_rows} rows")
        return steps


@dataclass(frozen=True)
class Fitted:
    """The classifier of the learning rate that was best on the validation rows, and the share of these it had right."""

    model: Any
    rate: float
    validation: float


def classifier(model: Any, classes: Sequence[str], *, seed: int, pretrained: bool) -> Any:
    """A model of the same family and shape that classifies tokens; its weights are fresh ones of ``seed``, and where ``pretrained`` those
    of ``model``, all but the head. ``model`` is left as it is."""
    config = type(model.config).parse({**model.config.model_dump(mode="json"), "head": "token", "classes": list(classes)})
    made = type(model)(config, model.tokenizer, seed=seed)
    if pretrained:
        kept = {name: value for name, value in model.state_dict().items() if name.split(".")[0] not in HEADS}
        made.load_state_dict({**made.state_dict(), **kept})
    return made.eval()


def fitted(start: Any, labelled: EncoderBatch, validation: EncoderBatch, rates: Sequence[float], budget: Budget, seed: int) -> Fitted:
    """``start`` fine-tuned once with each of ``rates``: the best on ``validation``, of equal ones the lowest rate. Raises BadValue."""
    best: Fitted | None = None
    for rate in sorted(rates):
        model = fit(copy.deepcopy(start), labelled, rate, budget, seed)
        share = float(right(model, validation).double().mean())
        if best is None or share > best.validation:
            best = Fitted(model, rate, share)
    if best is None:
        raise BadValue("the learning rates", "none", "at least one")
    return best


def fit(model: Any, labelled: EncoderBatch | TokenBatch, rate: float, budget: Budget, seed: int) -> Any:
    """Train ``model`` in place on ``labelled`` with AdamW (Loshchilov and Hutter 2019), each pass in an order of its own; the learning rate
    rises to ``rate`` in the first tenth of the steps and falls to zero in the others."""
    count = len(labelled.tokens)
    steps = budget.steps(count)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    rising = max(1, steps // 10)
    model.train()
    with torch.enable_grad():
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * min((step + 1) / rising, (steps - step) / max(1, steps - rising))
            places = range(step * budget.batch_rows, (step + 1) * budget.batch_rows)
            rows = [permuted(place % count, count, key_of("fine-tuning", seed, place // count)) for place in places]
            optimizer.zero_grad(set_to_none=True)
            loss, n = model.loss(labelled.rows(rows))
            (loss / n).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
            optimizer.step()
    return model.eval()


def right(model: Any, batch: EncoderBatch) -> Bool[Tensor, " target"]:
    """For each target of ``batch``, row by row, whether the likeliest class is the target's."""
    assert batch.targets is not None, "labelled rows have targets"
    with torch.no_grad():
        parts = [model.run(batch.rows(slice(at, at + ROWS))).logits.argmax(-1) for at in range(0, len(batch.tokens), ROWS)]
    return (torch.cat(parts) == batch.targets)[batch.targets != IGNORE]
