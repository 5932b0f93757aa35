"""The encoder of an encoder-decoder that reads sound or images: a front end, layers and a final norm, with the prefix ``encoder.``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from workbench.blocks.decoder import Memory, dropped, real_keys
from workbench.blocks.embed import Axes
from workbench.blocks.encoder import PREFIX, SILENT
from workbench.blocks.frontends import Patches, check_pixels
from workbench.blocks.inputs import given_residual
from workbench.blocks.listen import under
from workbench.blocks.mel import MelFrontEnd
from workbench.blocks.model import Ask, prefixed
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm
from workbench.blocks.stack import Block, Setting, Stack
from workbench.core.errors import BadValue
from workbench.core.protocol import Resume


class SensingEncoder(nn.Module):
    """A source is mel frames ``[batch, mel, frame]`` or pixels ``[batch, channel, height, width]``, as the front end reads them."""

    def __init__(self, front: MelFrontEnd | Patches, blocks: Sequence[Block], ln_final: Norm, *, d_vocab: int) -> None:
        super().__init__()
        self.front, self.stack, self.ln_final = front, Stack(blocks, PREFIX), ln_final
        self.n_layers, self.d_model, self.d_vocab = len(blocks), ln_final.width, d_vocab
        self.n_ctx = front.grid.positions if isinstance(front, Patches) else front.n_positions

    def forward(self, source: Tensor | None, mask: Tensor | None, ask: Ask = SILENT, dropout: float = 0.0) -> Memory:
        """What the decoder reads, or the stream where the run stops. ``mask`` ``[batch, pos]`` is true at real positions (None: all);
        ``source`` may be None where the run starts from a residual. Raises BadValue for what does not fit this encoder."""
        below, start, stop = ask.under(PREFIX), ask.start(self.stack), ask.stop(self.stack)
        ready = self._ready(source) if source is not None else None
        if start is not None:
            x = self._residual(ask.resume, ready)
        elif ready is not None:
            x = dropped(self.front(ready, below), dropout)
        else:
            raise BadValue("the batch", None, "a source, or a run that starts at a residual of the encoder")
        valid = self._valid(mask, x)
        x, _ = self.stack(x, Setting(real_keys(valid, x.shape[1], x.device), None, dropout), listener=below, start=start, stop=stop)
        return Memory(x if stop is not None else self.ln_final(x, under(below, "ln_final.")), valid)

    def _ready(self, source: Tensor) -> Tensor:
        """The source, checked, as this model computes."""
        front = self.front
        return check_pixels(source, front.channels, front.grid, self.ln_final.weight) if isinstance(front, Patches) else front.read(source)

    def _residual(self, resume: Resume, ready: Tensor | None) -> Float[Tensor, "batch pos d_model"]:
        """The residual to start from, checked."""
        x = given_residual(resume, None, self, self.ln_final.weight)
        assert x is not None, "a run that starts in the encoder has a residual"
        if x.shape[1] > self.n_ctx:
            raise BadValue("the positions of resume.residual", x.shape[1], f"at most {self.n_ctx}, the encoder's context")
        if ready is not None:
            fits = (len(ready), self.n_ctx if isinstance(self.front, Patches) else self.front.positions(ready))
            if tuple(x.shape[:2]) != fits:
                raise BadValue("the rows and positions of resume.residual", tuple(x.shape[:2]), f"{fits}, as the source")
        return x

    def _valid(self, mask: Tensor | None, x: Float[Tensor, "batch pos d_model"]) -> Bool[Tensor, "batch pos"] | None:
        """The mask, checked; None where every position is real."""
        if mask is None:
            return None
        if mask.dtype != torch.bool or tuple(mask.shape) != tuple(x.shape[:2]):
            raise BadValue("the batch's mask", f"{tuple(mask.shape)} {mask.dtype}", f"bool {tuple(x.shape[:2])}, over encoder positions")
        if not bool(mask.any(1).all()):
            raise BadValue("the batch's mask", "false all along a row", "true at one position or more of every row")
        return None if bool(mask.all()) else mask.to(x.device)

    def weights(self) -> dict[str, Tensor]:
        """``encoder.W_pos``, ``encoder.blocks.0.attn.W_Q``, ``encoder.ln_final.w`` … and the front end's own."""
        own = self.front.weights() | prefixed("ln_final.", self.ln_final.weights())
        return prefixed(PREFIX, own) | self.stack.weights()

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        return prefixed(PREFIX, self.front.sites()) | self.stack.sites() | prefixed(f"{PREFIX}ln_final.", NORM_SITES)
