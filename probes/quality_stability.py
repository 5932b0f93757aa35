"""How far an attribution moves when the input hardly does.

    sensitivity-max = max over draws of  || a(x + delta) - a(x) || / || a(x) ||

with every coordinate of ``delta`` uniform within ``radius`` times the root mean square of the embeddings. ``delta`` lies on the embedding
site, the same for every item of the batch, so it reaches any method on any family: the method is given the model as if its embeddings were
off by that much.

Source: Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019 (arXiv:1901.09392), definition 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.asked import Asked
from workbench.core.protocol import Edit, Resume, Trace
from workbench.core.sites import Site

Attribute = Callable[[Any], Float[np.ndarray, "batch pos"]]
"""A method, its settings and its inputs: given a model, the attribution."""


@dataclass(frozen=True, kw_only=True)
class _Nudge(Edit):
    """``change`` ``[pos, d_model]`` on every row, for a run that begins at position ``first``."""

    change: Tensor
    first: int

    def apply(self, value: Tensor, site: Site) -> Tensor:
        return value + self.change[self.first : self.first + value.shape[1]].to(value)


class Stood:
    """A model as it is, but for ``change`` on whatever is embedded at ``site`` (None: none), and with a digest that costs nothing."""

    def __init__(self, model: Any, site: str, change: Tensor | None = None) -> None:
        self._model, self._site, self._change = model, site, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def digest(self) -> str:
        """Not the model's: what is asked through this is not stored."""
        return ""

    def run(self, batch: Any, *, edit: Sequence[Edit] = (), resume: Resume | None = None, **rest: Any) -> Trace:
        """The run, nudged before any other edit where the batch is embedded."""
        if self._change is not None and (resume is None or resume.start is None):
            first = resume.past.length if resume is not None and resume.past is not None else 0
            edit = [_Nudge(self._site, change=self._change, first=first), *edit]
        return self._model.run(batch, edit=edit, **rest, **({} if resume is None else {"resume": resume}))


def nudges(asked: Asked, radius: float, draws: int, seed: int) -> list[Float[Tensor, "pos d_model"]]:
    """``draws`` changes of the size meant by ``radius``."""
    real = asked.items.real.to(asked.x.device)
    size = radius * float(asked.x[real].double().square().mean().sqrt())
    rng = torch.Generator().manual_seed(seed)
    shape = asked.x.shape[1:]
    return [size * (2 * torch.rand(shape, generator=rng, dtype=torch.float64) - 1) for _ in range(draws)]


def sensitivity_max(
    plain: Float[np.ndarray, "batch pos"], moved: Sequence[Float[np.ndarray, "batch pos"]], candidate: Bool[np.ndarray, "batch pos"]
) -> Float[np.ndarray, " batch"]:
    """The largest relative change of each item's attribution (Euclidean norms over candidates); NaN where the attribution is zero."""
    size = np.sqrt((np.where(candidate, plain, 0) ** 2).sum(1))
    far = [np.sqrt((np.where(candidate, one - plain, 0) ** 2).sum(1)) for one in moved]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size > 0, np.max(far, axis=0) / size, np.nan)
