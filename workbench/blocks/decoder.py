"""The decoder of an encoder-decoder (Vaswani et al. 2017): tokens, written one after another, about a memory that cross-attention reads.

Families differ in what encodes (text, sound, pictures) and share this. One makes its parts, and in ``_pass``:

    given = self.decoder.passage(batch.tokens, ask)
    memory = Memory(self._encoded(batch, ask), mask) if given.past is None else None
    return self.decoder(given, memory, ask)

and in ``loss``: ``self.decoder.loss(batch, memory, dropout)``. A past holds the memory's keys and values, and which of it is real, so
a run that continues one needs no encoder. Sites and stack have the prefix ``decoder.``; ``unembed.`` has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from workbench.blocks.cache import KVCache
from workbench.blocks.embed import Axes, Embed, Unembed
from workbench.blocks.ending import ending
from workbench.blocks.inputs import Chosen, Passage, chosen, passage
from workbench.blocks.listen import Listener, under
from workbench.blocks.losses import next_token_nll
from workbench.blocks.mask import AttentionMask, attention_mask
from workbench.blocks.model import Ask, prefixed
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm
from workbench.blocks.rotary import Rotary
from workbench.blocks.stack import Block, Setting, Stack
from workbench.core.batch import SequenceBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import Resume

PREFIX = "decoder."


@dataclass(frozen=True)
class Memory:
    """What an encoder said: its last stream, and which of it is real (None: all)."""

    stream: Float[Tensor, "batch key d_model"]
    mask: Bool[Tensor, "batch key"] | None = None

    def expand(self, rows: int) -> Memory:
        """The memory of ``rows`` rows of tokens; one row is shared by all. Raises BadValue where the numbers differ."""
        held = self.stream.shape[0]
        if held not in (1, rows):
            raise BadValue("the rows of tokens", rows, f"{held}, as the source has")
        return self if held == rows else Memory(self.stream.expand(rows, -1, -1), None if self.mask is None else self.mask.expand(rows, -1))


class Decoder(nn.Module):
    """Embedding, layers with cross-attention, final norm (None where the layers' norms follow their sums) and unembedding.

    ``n_ctx`` is the most tokens it reads. Self-attention is turned by position where ``rope_base`` is given; cross-attention never is.
    """

    def __init__(
        self,
        embed: Embed,
        blocks: Sequence[Block],
        ln_final: Norm | None,
        unembed: Unembed,
        *,
        n_ctx: int,
        rope_base: float | None = None,
    ) -> None:
        super().__init__()
        self.embed, self.stack, self.ln_final, self.unembed = embed, Stack(blocks, PREFIX), ln_final, unembed
        self.n_layers, self.n_ctx, self.rope_base, self.d_head = len(blocks), n_ctx, rope_base, blocks[0].attn.d_head
        self.d_vocab, self.d_model = embed.token.weight.shape

    def passage(self, tokens: Int[Tensor, "batch pos"] | None, ask: Ask, mask: Bool[Tensor, "rows key"] | None = None) -> Passage:
        """The decoder's part of what a run was given, checked: tokens, or a residual of this stack, and the past; a ``mask`` of the
        source given besides a past must be the one that the past was made with. Raises BadValue."""
        resume = ask.resume
        if resume.past is not None:
            for word, place in (("start", ask.starts), ("stop", ask.stops)):
                if place is not None and place[0] is not self.stack:
                    raise BadValue(f"resume.{word}", getattr(resume, word), "within the decoder: the past stands for the encoder")
            if not isinstance(resume.past, KVCache) or len(resume.past.memory) != self.n_layers:
                raise BadValue("resume.past", type(resume.past).__name__, "the `past` of a Trace of this model, with its memory")
            _same_source(resume.past, mask)
        if ask.starts is None or ask.starts[0] is not self.stack:
            resume = replace(resume, start=None, residual=None)
        return passage(tokens, resume, self, tokenizer=None, like=self.embed.token.weight)

    def forward(self, given: Passage, memory: Memory | None, ask: Ask) -> tuple[Tensor | None, KVCache]:
        """The logits ``[batch, pos or chosen, d_vocab]`` (None where none are asked for or the run stops before), and what later tokens
        may reuse. ``memory`` is None exactly where ``given.past`` holds it."""
        asked = chosen(ask.logits, given) if ask.stops is None else None
        below = ask.under(PREFIX)
        if given.residual is not None:
            x = given.residual
        else:
            assert given.tokens is not None, "a passage has tokens or a residual"
            x = self.embed(given.tokens, given.positions, below)
        if memory is not None:
            memory = memory.expand(given.shape[0])
        setting, seen = self._setting(given, memory)
        only = ending(self.stack, ask, given, asked, below)
        asked, setting = asked if only is None or asked is None else Chosen(), replace(setting, only=only)
        x, past = self.stack(x, setting, past=given.past, listener=below, start=ask.start(self.stack), stop=ask.stop(self.stack))
        if ask.stops is not None:
            return None, past
        return self._read_out(x, asked, ask.listener), replace(past, seen=seen)

    def loss(self, batch: SequenceBatch, memory: Memory, dropout: float = 0.0) -> tuple[Float[Tensor, ""], int]:
        """The summed negative log-likelihood (nats) of the batch's targets and their number. Raises BadValue where there are none."""
        if batch.targets is None or batch.targets.shape != batch.tokens.shape:
            found = None if batch.targets is None else tuple(batch.targets.shape)
            raise BadValue("the batch's targets", found, f"one a token, {tuple(batch.tokens.shape)}")
        like = self.embed.token.weight
        given = passage(batch.tokens.to(like.device), Resume(), self, tokenizer=None, like=like)
        memory = memory.expand(given.shape[0])
        x = dropped(self.embed(given.tokens, given.positions), dropout)
        x, _ = self.stack(x, self._setting(given, memory, dropout)[0])
        x = self.ln_final(x) if self.ln_final is not None else x
        return next_token_nll(x, self.unembed.matrix(self.embed), batch.targets.to(x.device), bias=self.unembed.bias)

    def _setting(self, given: Passage, memory: Memory | None, dropout: float = 0.0) -> tuple[Setting, Tensor | None]:
        """What the layers share, and which of the memory is real."""
        assert (memory is None) == (given.past is not None), "the memory comes from the encoder or from the past"
        seen = memory.mask if memory is not None else given.past.seen if given.past is not None else None
        rotary = turns(given.positions, self.d_head, self.n_ctx, self.rope_base, self.embed.token.weight.dtype)
        stream = memory.stream if memory is not None else None
        met = real_keys(seen, given.shape[1], given.positions.device)
        return Setting(given.mask, rotary, dropout, memory=stream, seen=met), seen

    def _read_out(self, x: Tensor, asked: Chosen | None, listener: Listener | None) -> Tensor | None:
        final, head = under(listener, f"{PREFIX}ln_final."), under(listener, "unembed.")
        whole = final is not None or head is not None  # someone listens: the sites are heard at every position
        if asked is None and not whole:
            return None
        if asked is not None and not whole:
            x = asked.take(x)
        x = self.ln_final(x, final) if self.ln_final is not None else x
        out = self.unembed(x, self.embed, head)
        return asked.take(out) if asked is not None and whole else out if asked is not None else None

    def weights(self) -> dict[str, Tensor]:
        """``decoder.W_E``, ``decoder.blocks.0.cross_attn.W_Q``, ``decoder.ln_final.w`` …, and ``W_U``, ``b_U``."""
        final = prefixed("ln_final.", self.ln_final.weights()) if self.ln_final is not None else {}
        return self.stack.weights() | prefixed(PREFIX, self.embed.weights() | final) | self.unembed.weights(self.embed)

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        final = prefixed("ln_final.", NORM_SITES) if self.ln_final is not None else {}
        own = self.stack.sites(rotary=self.rope_base is not None)
        return prefixed(PREFIX, self.embed.sites()) | own | prefixed(PREFIX, final) | prefixed("unembed.", self.unembed.sites())


def _same_source(past: KVCache, mask: Tensor | None) -> None:
    if mask is None:
        return
    shape = (past.batch, past.memory[0][0].shape[1])
    seen = past.seen if past.seen is not None else torch.ones(shape, dtype=torch.bool, device=mask.device)
    if tuple(mask.shape[1:]) != shape[1:] or not bool((mask.to(seen.device) == seen).all()):
        raise BadValue("the batch's mask", f"another than the past's, {tuple(mask.shape)}", "left out, or the one the past was made with")


def real_keys(valid: Bool[Tensor, "batch key"] | None, query: int, device: torch.device) -> AttentionMask:
    """Every query sees every key that is real, in no order."""
    return attention_mask(query, 0, device, causal=False, valid=valid)


def turns(positions: Int[Tensor, "rows pos"], d_head: int, n_ctx: int, base: float | None, dtype: torch.dtype) -> Rotary | None:
    """The rotary turns at ``positions``; None where there is no ``base``."""
    return None if base is None else Rotary.at(positions, d_head, n_ctx=n_ctx, base=base, dtype=dtype)


def dropped(x: Tensor, dropout: float) -> Tensor:
    """``x`` with elements dropped, in training."""
    return functional.dropout(x, dropout, training=True) if dropout else x
