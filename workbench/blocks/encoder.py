"""The encoder of an encoder-decoder (Vaswani et al. 2017) that reads token ids; its sites and stack have the prefix ``encoder.``."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from workbench.blocks.decoder import dropped, turns
from workbench.blocks.embed import Axes, Embed
from workbench.blocks.listen import under
from workbench.blocks.model import Ask, prefixed
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm
from workbench.blocks.reading import Reading
from workbench.blocks.stack import Block, Setting, Stack
from workbench.core.protocol import Resume

PREFIX = "encoder."
SILENT = Ask(None, Resume(), False, None)
"""A run that nobody listens to, from its beginning to its end."""


class Encoder(nn.Module):
    """Embedding, layers and final norm (None where the layers' norms follow their sums).

    ``n_ctx`` is the most tokens it reads. Attention is turned by position where ``rope_base`` is given.
    """

    def __init__(
        self, embed: Embed, blocks: Sequence[Block], ln_final: Norm | None, *, d_vocab: int, n_ctx: int, rope_base: float | None = None
    ) -> None:
        super().__init__()
        self.embed, self.stack, self.ln_final = embed, Stack(blocks, PREFIX), ln_final
        self.n_layers, self.d_vocab, self.n_ctx, self.rope_base = len(blocks), d_vocab, n_ctx, rope_base
        self.d_model, self.d_head = blocks[0].attn.q.in_features, blocks[0].attn.d_head

    def forward(self, given: Reading, lent: nn.Embedding, ask: Ask = SILENT, dropout: float = 0.0) -> Float[Tensor, "batch pos d_model"]:
        """What the decoder reads (or the stream where the run stops); ``lent`` is the table of token embeddings."""
        below, start, stop = ask.under(PREFIX), ask.start(self.stack), ask.stop(self.stack)
        if given.residual is not None:
            x = given.residual
        else:
            x = dropped(self.embed(given.tokens, given.positions, below, lent), dropout)
        rotary = turns(given.positions, self.d_head, self.n_ctx, self.rope_base, x.dtype)
        x, _ = self.stack(x, Setting(given.mask, rotary, dropout), listener=below, start=start, stop=stop)
        return x if stop is not None or self.ln_final is None else self.ln_final(x, under(below, "ln_final."))

    def weights(self, lent: nn.Embedding) -> dict[str, Tensor]:
        """``encoder.W_E``, ``encoder.blocks.0.attn.W_Q``, ``encoder.ln_final.w`` …"""
        final = prefixed("ln_final.", self.ln_final.weights()) if self.ln_final is not None else {}
        return self.stack.weights() | prefixed(PREFIX, self.embed.weights(lent) | final)

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        final = prefixed("ln_final.", NORM_SITES) if self.ln_final is not None else {}
        return prefixed(PREFIX, self.embed.sites()) | self.stack.sites(rotary=self.rope_base is not None) | prefixed(PREFIX, final)
