"""What a generator of images is told: a text encoder whose last stream cross-attention reads, and the null text.

A row whose ``mask`` is false throughout is the null text (classifier-free guidance, Ho and Salimans 2022): one learned vector at the
first position stands for it, whatever its tokens are. Sites and stack have the prefix ``text.``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from workbench.blocks.embed import Axes, Embed
from workbench.blocks.init import table
from workbench.blocks.model import Ask, prefixed
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm
from workbench.blocks.reading import reading
from workbench.blocks.stack import Block, Setting, Stack
from workbench.core.batch import EncoderBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import Resume

PREFIX = "text."


class Prompt(nn.Module):
    """Embedding, layers, final norm, and the null text's vector. ``n_ctx`` is the most tokens it reads."""

    def __init__(self, embed: Embed, blocks: Sequence[Block], ln_final: Norm, *, n_ctx: int) -> None:
        super().__init__()
        self.d_vocab, self.d_model = embed.token.weight.shape
        self.embed, self.null = embed, table(1, self.d_model)
        self.stack, self.ln_final, self.n_layers, self.n_ctx = Stack(blocks, PREFIX), ln_final, len(blocks), n_ctx

    def forward(
        self, tokens: Tensor, mask: Tensor | None, ask: Ask
    ) -> tuple[Float[Tensor, "batch key d_model"], Bool[Tensor, "batch key"]]:
        """What is read of each text, and which of it is real; or the stream where the run stops in this stack. Raises BadValue."""
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        if mask.ndim != 2 or mask.dtype != torch.bool or mask.shape != tokens.shape:
            raise BadValue("the mask", f"{tuple(mask.shape)} {mask.dtype}", f"bool {tuple(tokens.shape)}, one a token")
        null = ~mask.any(1, keepdim=True)
        # A null text is run like any other and then replaced: a row that nothing attends to could not be.
        shown = EncoderBatch(tokens, mask=mask | null)
        start, stop, below = ask.start(self.stack), ask.stop(self.stack), ask.under(PREFIX)
        resume = ask.resume if start is not None else Resume()
        given = reading(shown, resume, self, n_types=1, tokenizer=None, like=self.embed.token.weight)
        x = given.residual if given.residual is not None else self.embed(given.tokens, given.positions, below)
        x, _ = self.stack(x, Setting(given.mask), listener=below, start=start, stop=stop)
        mask, null = mask.to(x.device), null.to(x.device)
        if stop is not None:
            return x, mask
        x = self.ln_final(x, ask.under(f"{PREFIX}ln_final."))
        first = torch.arange(x.shape[1], device=x.device) == 0
        return torch.where(null.unsqueeze(2), self.null.weight, x), mask | (null & first)

    def weights(self) -> dict[str, Tensor]:
        """``text.W_E``, ``text.blocks.0.attn.W_Q``, ``text.ln_final.w`` …, and ``text.W_null`` [d_model]."""
        own = self.embed.weights() | prefixed("ln_final.", self.ln_final.weights()) | {"W_null": self.null.weight[0]}
        return self.stack.weights() | prefixed(PREFIX, own)

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        return prefixed(PREFIX, self.embed.sites()) | self.stack.sites() | prefixed(f"{PREFIX}ln_final.", NORM_SITES)
