"""One of several encoders into a joint space (Radford et al. 2021): a front end, layers, and one unit vector a row.

    hook_pooled    = the normalised last stream at one position of each row
    hook_projected = hook_pooled W_joint
    hook_joint     = hook_projected / ‖hook_projected‖

All sites and weights have the tower's prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.blocks.embed import Axes, Embed
from workbench.blocks.frontends import Patches
from workbench.blocks.init import linear
from workbench.blocks.inputs import given_residual
from workbench.blocks.listen import hear, under
from workbench.blocks.mask import AttentionMask
from workbench.blocks.model import Ask, prefixed
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm
from workbench.blocks.stack import Block, Setting, Stack
from workbench.core.errors import BadValue


class Tower(nn.Module):
    """``front`` makes the stream from what it is called with; with ``ln_pre`` a norm follows before the first layer."""

    def __init__(
        self, prefix: str, front: Embed | Patches, blocks: Sequence[Block], norm: Callable[[], Norm], *, d_joint: int, ln_pre: bool
    ) -> None:
        super().__init__()
        self.prefix, self.front, self.stack = prefix, front, Stack(blocks, prefix)
        self.ln_pre, self.ln_final = norm() if ln_pre else None, norm()
        self.d_model = self.ln_final.width
        self.project = linear(self.d_model, d_joint, bias=False)

    def forward(
        self, source: tuple[Tensor, ...], at: Int[Tensor, " batch"], mask: AttentionMask, ask: Ask
    ) -> Float[Tensor, "batch d_joint"] | None:
        """The unit vectors, read at positions ``at``; None where the run stops in this tower. ``source`` is what ``front`` reads, rows
        first; where the run starts in this tower, it says only how many rows there are."""
        below, start, stop = ask.under(self.prefix), ask.start(self.stack), ask.stop(self.stack)
        x = self._residual(ask, len(at)) if start is not None else self.front(*source, below)
        if start is None and self.ln_pre is not None:
            x = self.ln_pre(x, under(below, "ln_pre."))
        x, _ = self.stack(x, Setting(mask), listener=below, start=start, stop=stop)
        if stop is not None:
            return None
        x = self.ln_final(x, under(below, "ln_final."))
        pooled = hear(below, "hook_pooled", x[torch.arange(len(x), device=x.device), at])
        projected = hear(below, "hook_projected", self.project(pooled))
        wide = projected.to(self.project.weight.dtype)  # autocast would take the norm in 16 bits
        return hear(below, "hook_joint", wide / wide.norm(dim=-1, keepdim=True))

    def _residual(self, ask: Ask, rows: int) -> Float[Tensor, "batch pos d_model"]:
        """The residual to start from, checked."""
        x = given_residual(ask.resume, None, self, self.project.weight)
        assert x is not None, "a run that starts somewhere has a residual"
        if len(x) != rows:
            raise BadValue("the rows of resume.residual", len(x), f"{rows}, as the batch")
        return x

    def weights(self) -> dict[str, Tensor]:
        """The weights of all parts, and ``W_joint`` [d_model, d_joint]."""
        norms = {"ln_final": self.ln_final} | ({"ln_pre": self.ln_pre} if self.ln_pre is not None else {})
        table = self.front.weights() | {"W_joint": self.project.weight.T}
        table |= {f"{name}.{word}": value for name, norm in norms.items() for word, value in norm.weights().items()}
        return prefixed(self.prefix, table) | self.stack.weights()

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        before = self.front.sites() | (prefixed("ln_pre.", NORM_SITES) if self.ln_pre is not None else {})
        joint: dict[str, Axes] = {"hook_pooled": ("batch", "d_model")} | dict.fromkeys(
            ("hook_projected", "hook_joint"), ("batch", "d_joint")
        )
        return prefixed(self.prefix, before) | self.stack.sites() | prefixed(self.prefix, prefixed("ln_final.", NORM_SITES) | joint)
