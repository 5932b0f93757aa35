"""Does an attribution depend on what the model has learned?

The weights are made random group by group from the answer down to the input, each stage keeping the ones before (*cascading*), and the
method is asked again. What is left of the order is the rank correlation (Spearman's) with the attribution of the model as it is. A method
whose order survives a model of random weights explains the input and not the model. A random tensor here is the learned one with its
entries shuffled, so it keeps its scale.

Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, Sanity Checks for Saliency Maps, NeurIPS 2018 (arXiv:1810.03292), section 3.1.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import nn

BLOCK = re.compile(r"^(.*?)blocks\.(\d+)\.")


def groups(model: nn.Module) -> list[tuple[str, list[str]]]:
    """Names of parameters that are made random together, from the answer down: what follows a stack's blocks, each block, what precedes."""
    out: list[tuple[str, list[str]]] = []
    last = None
    for name, _ in reversed(list(model.named_parameters())):
        found = BLOCK.match(name)
        key = found.group(0).rstrip(".") if found else ""
        if key != last:
            out.append((key or name.rpartition(".")[0] or name, []))
            last = key
        out[-1][1].append(name)
    return out


def cascade(model: Any, seed: int, *, every: bool) -> Iterator[tuple[str, Any]]:
    """(what was made random last, a copy of the model) stage by stage, or only the last stage. The copy changes in place."""
    copied, rng = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    parameters, stages = dict(copied.named_parameters()), groups(copied)
    for number, (stage, names) in enumerate(stages):
        with torch.no_grad():
            for name in names:
                flat = parameters[name].reshape(-1)
                order = torch.randperm(flat.numel(), generator=rng).to(flat.device)
                parameters[name].copy_(flat[order].reshape(parameters[name].shape))
        if every or number == len(stages) - 1:
            yield stage, copied


def rank_correlation(
    one: Float[np.ndarray, "batch pos"], other: Float[np.ndarray, "batch pos"], candidate: Bool[np.ndarray, "batch pos"]
) -> Float[np.ndarray, " batch"]:
    """Spearman's correlation of each item's candidates (ties share ranks); NaN with fewer than two, or where one order is constant."""
    out = np.full(len(one), np.nan)
    for row, inside in enumerate(candidate):
        a, b = (stats.rankdata(x[row, inside]) for x in (one, other))
        a, b = a - a.mean(), b - b.mean()
        size = np.sqrt((a**2).sum() * (b**2).sum())
        if inside.sum() > 1 and size > 0:
            out[row] = (a * b).sum() / size
    return out
