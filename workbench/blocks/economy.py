"""What makes a model smaller or its attention cheaper, as one value that configs share."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field, NonNegativeInt, model_validator

from workbench.blocks.sparse import BlockSparse, Pattern, Sliding
from workbench.blocks.stack import Block, Stack
from workbench.core.spec import Spec


class Economy(Spec):
    """Nothing saved, by default. Sharing and factorising: Lan et al. 2020."""

    window: NonNegativeInt = Field(default=0, description="tokens a query sees, itself included (both ways: to each side); 0: all")
    sparse: BlockSparse | None = Field(default=None, description="blocks of tokens a query sees, in place of a window")
    groups: NonNegativeInt = Field(default=0, description="runs of layers that share their weights; 1: all share; 0: none do")
    d_embed: NonNegativeInt = Field(default=0, description="width of the token table, mapped up to d_model; 0: d_model")

    @model_validator(mode="after")
    def _one(self) -> Economy:
        if self.window and self.sparse is not None:
            raise ValueError("either a window or sparse")
        return self

    @property
    def pattern(self) -> Pattern | None:
        """What of a row attention sees; None: all."""
        return Sliding(self.window) if self.window else self.sparse

    def check(self, n_layers: int) -> None:
        """Raise ValueError for more groups than layers."""
        if self.groups > n_layers:
            raise ValueError(f"economy.groups must be at most n_layers ({n_layers}), and it is {self.groups}")

    def stack(self, block: Callable[[], Block], n_layers: int) -> Stack:
        """``n_layers`` layers of as many blocks as there are groups."""
        return Stack([block() for _ in range(self.groups or n_layers)], depth=n_layers)


PLAIN = Economy()
