"""What a failed suite's failure is, item by item, so that its parts can be looked for: one builder a suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from workbench.core.finding import Verdict
from workbench.core.measure import Suite
from workbench.core.protocol import HookedModel
from workbench.core.result import Result
from workbench.data.worlds.town import Town
from workbench.lab.inputs import LEAST_LEAN, encoded, town_pronouns
from workbench.lab.internals import Failure

CONTEXTS, TEXTS = 24, 100
_FAILED = (Verdict.DETECTED, Verdict.WORSE)


def has_failed(suite: Suite, result: Result, subject: str, level: float) -> bool:
    """Whether a suite found what it looks for in this model."""
    return any(finding.verdict in _FAILED for finding in suite.findings(result, subject=subject, level=level))


def lean(model: HookedModel, town: Town) -> Failure:
    """The learned lean from occupation to pronoun: on each sentence whose occupation leans, the log-odds of *she* over *he* in the way the
    town leans. Sentences are held-out contexts, each with every leaning occupation; a context is a cluster."""
    items = [item for item in town.pronoun_items("test", per_occupation=CONTEXTS) if abs(item.lean) >= LEAST_LEAN]
    asked = town_pronouns(model, items)
    sign = torch.tensor([1.0 if item.lean > 0 else -1.0 for item in items], dtype=torch.float64)
    hers, his = torch.as_tensor(asked.targets), torch.as_tensor(asked.foils)

    def score(logits: Tensor, chosen: Tensor) -> Tensor:
        rows = torch.arange(len(chosen))
        return sign[chosen] * (logits[rows, hers[chosen]] - logits[rows, his[chosen]])

    ids, lengths, _ = encoded(model, town.texts("test")[:TEXTS])
    assert asked.lengths is not None, "sentences have lengths"
    return Failure("occupation-pronoun", asked.batch, asked.lengths, score, [str(item.skeleton) for item in items], ids, lengths)


FAILURES: Mapping[str, Callable[[HookedModel, Town], Any]] = {"occupation-pronoun": lean}
