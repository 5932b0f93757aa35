"""A model whose every run also makes certain edits, so that it can be asked anything that the model itself can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from workbench.core.protocol import Edit, HookedModel, LogitsAt, Resume, Trace
from workbench.core.sites import Selection, SiteTable
from workbench.core.spec import digest_of


class Edited:
    """``model`` with ``edits`` made in each run before any others; ``said`` is what they are as JSON values, which is in its digest.

    An edit must change each token by itself, since what a run is continued from was edited already. Runs that begin or end inside the
    model are not offered, for they would pass the edits by.
    """

    def __init__(self, model: HookedModel, edits: Sequence[Edit], said: Any, *, name: str) -> None:
        self.inner, self.edits, self.said, self.name = model, tuple(edits), said, name
        self.family, self.config, self.tokenizer = model.family, model.config, model.tokenizer
        self.abilities = model.abilities - {"grad"}
        self.resumes: frozenset[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # while it is being copied or read back
            raise AttributeError(name)
        return getattr(self.inner, name)

    def sites(self) -> SiteTable:
        return self.inner.sites()

    def weight(self, name: str) -> Tensor:
        return self.inner.weight(name)

    def digest(self) -> str:
        """sha256 over the model's own digest and what the edits are."""
        return digest_of([self.inner.digest(), self.said])

    def run(
        self, batch: Any, *, capture: Selection = (), edit: Sequence[Edit] = (), logits: LogitsAt = "all", grad: bool = False,
        resume: Resume | None = None, cache: bool = False,
    ) -> Trace:  # fmt: skip
        """One forward pass with the edits made."""
        return self.inner.run(
            batch, capture=capture, edit=[*self.edits, *edit], logits=logits, grad=grad, resume=resume, cache=cache
        )  # fmt: skip
