"""Explanations made up for an exam: each names one position and nothing else. Which of them does ``explanation-quality`` prefer?

An explanation that names the part which decides is right, one that names a silent part is wrong, and both are equally sure of themselves.
What the instrument makes of each is its comprehensiveness, so that the planted part's explanation can be held against the silent parts' as
any tool's strengths are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from probes.asked import ask
from probes.explanation_quality import ExplanationQualitySpec, by_removal
from probes.players import players_of
from probes.removal import replacement_of
from workbench.core.protocol import Inputs

NAME = "explanation-quality"


def comprehensiveness(model: Any, inputs: Inputs, spec: ExplanationQualitySpec) -> Float[np.ndarray, "item pos"]:
    """How comprehensive the explanation is that names this position alone, in units of the scalar; -inf where none can."""
    asked = ask(model, inputs, spec)
    candidate = players_of(asked, None).candidate
    start, _ = replacement_of(asked, spec.filler, spec.filler_id)
    width = candidate.shape[1]
    named = np.broadcast_to(np.eye(width)[:, None, :], (width, len(asked), width))
    scores, _ = by_removal(asked, start, named, candidate, spec.model_copy(update={"subsets": 0}), np.random.default_rng(spec.seed))
    return np.where(candidate, scores["comprehensiveness"].T, -np.inf)
