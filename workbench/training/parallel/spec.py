"""How a training's work is divided among processes. It changes speed and memory; the result is one process's, up to rounding."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from workbench.core.errors import BadValue
from workbench.core.spec import Spec

Kind = Literal["none", "ddp", "fsdp", "tp", "pipeline"]
COMMAND = "torchrun --nproc-per-node 2 -m workbench.cli train RECIPE --set train.parallel.kind=ddp"


class ParallelSpec(Spec):
    """``ddp``: every process has the whole model and a share of the rows. ``fsdp``: it has a share of every tensor too. ``tp``: groups of
    ``tp`` processes share each layer's heads and MLP. ``pipeline``: every process has some of the layers.

    With ``fsdp`` or ``tp`` and more processes than ``tp``, the groups share the rows.
    """

    kind: Kind = "none"
    tp: NonNegativeInt = Field(default=0, description="processes that share a layer; 0: all of them for kind tp, else 1")
    recompute: bool = Field(default=False, description="a layer's activations are computed again in the backward pass: less memory")
    compile: bool = Field(default=False, description="layers through torch.compile")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.tp > 1 and self.kind not in ("fsdp", "tp"):
            raise ValueError(f"tp is of the kinds fsdp and tp, and the kind is {self.kind}")
        return self

    def groups(self, world: int) -> tuple[int, int]:
        """How many groups share the rows, and how many processes share a layer, in a world of ``world``. Raises BadValue."""
        within = self.tp or (world if self.kind == "tp" else 1)
        if world % within:
            raise BadValue("parallel.tp", within, f"a divisor of the number of processes, {world}")
        return (1 if self.kind == "pipeline" else world // within), within
