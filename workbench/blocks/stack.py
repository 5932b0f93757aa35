"""Layers, and the residual stream through them.

    placement pre, none:  resid_mid = resid_pre + attn_out,        resid_post = resid_mid + mlp_out   (exactly)
    placement post:       resid_mid = ln1(resid_pre + attn_out),   resid_post = ln2(resid_mid + mlp_out)

``attn_in`` and ``mlp_in`` are what the sublayer reads of the stream, before a norm of its own; ``q_input`` … are the same seen by
one head's reader. Editing them changes that reader alone. Without an MLP (``mlp=None``) there are no MLP sites and
``resid_post = resid_mid``; both are heard.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from workbench.blocks.attention import READERS, Attention
from workbench.blocks.cache import KVCache, LayerCache
from workbench.blocks.embed import RESIDUAL
from workbench.blocks.listen import Listener, hear, under
from workbench.blocks.mask import AttentionMask
from workbench.blocks.mlp import MLP
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm
from workbench.blocks.rotary import Rotary
from workbench.core.errors import BadValue, UnknownName

Placement = Literal["pre", "post", "none"]
PRE, MID, POST = 0, 1, 2
_WORDS = ("pre", "mid", "post")
_POINT = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|mid|post)")


@dataclass(frozen=True)
class Setting:
    """What all layers of one pass share. ``dropout`` is the probability of dropping a sublayer's output element."""

    mask: AttentionMask
    rotary: Rotary | None = None
    dropout: float = 0.0


class Block(nn.Module):
    """One layer, made of ready parts. Norms are given unless ``placement`` is none (``ln2`` only with an MLP)."""

    def __init__(self, attn: Attention, mlp: MLP | None, ln1: Norm | None, ln2: Norm | None, *, placement: Placement) -> None:
        super().__init__()
        assert (ln1 is None) == (placement == "none"), "a norm is given exactly where it is placed"
        assert (ln2 is None) == (placement == "none" or mlp is None), "the second norm belongs to the MLP"
        self.placement: Placement = placement
        self.attn, self.mlp, self.ln1, self.ln2 = attn, mlp, ln1, ln2

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        setting: Setting,
        *,
        past: LayerCache | None = None,
        listener: Listener | None = None,
        first: int = PRE,
        last: int = POST,
    ) -> tuple[Float[Tensor, "batch pos d_model"], LayerCache | None]:
        """The stream at point ``last`` from the stream at point ``first`` (``PRE``, ``MID``, ``POST``; both are heard), and the
        layer's keys and values where attention ran."""
        kept = None
        if first == PRE:
            x = hear(listener, "hook_resid_pre", x)
            if last == PRE:
                return x, None
            out, kept = self._attend(x, setting, past, listener)
            x = self._added(x, out, "hook_attn_out", "ln1.", setting, listener)
        if first <= MID:
            x = hear(listener, "hook_resid_mid", x)
            if last == MID:
                return x, kept
            if self.mlp is not None:
                read = hear(listener, "hook_mlp_in", x)
                if self.ln2 is not None and self.placement == "pre":
                    read = self.ln2(read, under(listener, "ln2."))
                x = self._added(x, self.mlp(read, under(listener, "mlp.")), "hook_mlp_out", "ln2.", setting, listener)
        return hear(listener, "hook_resid_post", x), kept

    def _added(self, x: Tensor, out: Tensor, name: str, norm: str, setting: Setting, listener: Listener | None) -> Tensor:
        if setting.dropout:
            out = functional.dropout(out, setting.dropout, training=True)
        x = x + hear(listener, name, out)
        if self.placement != "post":
            return x
        layer = self.ln1 if norm == "ln1." else self.ln2
        assert layer is not None, "post placement has its norms"
        return layer(x, under(listener, norm))

    def _attend(self, x: Tensor, setting: Setting, past: LayerCache | None, listener: Listener | None) -> tuple[Tensor, LayerCache]:
        source = hear(listener, "hook_attn_in", x)
        read, scale, norm = source, None, self.ln1 if self.placement == "pre" else None
        if norm is not None:
            read, scale = norm.listened(source, under(listener, "ln1."))
        readers = None if listener is None else self._readers(source, norm, scale, listener)
        return self.attn(
            read, setting.mask, rotary=setting.rotary, past=past, listener=under(listener, "attn."), readers=readers
        )  # fmt: skip

    def _readers(self, source: Tensor, norm: Norm | None, scale: Tensor | None, listener: Listener) -> dict[str, Tensor]:
        """What edits of the reader inputs add to what each head reads. Recording alone makes an expanded view, nothing more."""
        out: dict[str, Tensor] = {}
        for word in READERS:
            name = f"hook_{word}_input"
            if not listener.wants(name):
                continue
            heads = self.attn.n_heads if word == "q" else self.attn.n_kv_heads
            view = source.unsqueeze(2).expand(-1, -1, heads, -1)
            heard = listener.hear(name, view)
            if not listener.enters(name):
                continue
            if norm is not None and listener.edits(name) and listener.edits("ln1.hook_normalized"):
                raise BadValue(
                    "the set of edits", f"'{name}' with 'ln1.hook_normalized'", "one of the two in a layer: a reader has a norm of its own"
                )
            # Both sides go through the same kernel in the same layout, so equal inputs give a difference of exactly zero.
            new, old = heard.contiguous(), view.contiguous()
            out[word] = new - old if norm is None else norm.per_reader(new, scale) - norm.per_reader(old, scale)
        return out

    def weights(self) -> dict[str, Tensor]:
        """The weights of all parts by name, such as ``attn.W_Q`` and ``ln1.w``."""
        parts = {"attn": self.attn, "mlp": self.mlp, "ln1": self.ln1, "ln2": self.ln2}
        return {f"{name}.{word}": w for name, part in parts.items() if part is not None for word, w in part.weights().items()}

    def sites(self, *, rotary: bool) -> dict[str, tuple[str, ...]]:
        """Site names and axes in the order of a run."""
        shared = ("batch", "pos", "kv_head", "d_model")
        table = {"hook_resid_pre": RESIDUAL, "hook_attn_in": RESIDUAL}
        inputs = {"hook_q_input": ("batch", "pos", "head", "d_model"), "hook_k_input": shared, "hook_v_input": shared}
        ln1, ln2 = ({f"{n}.{s}": axes for s, axes in NORM_SITES.items()} if p is not None else {} for n, p in self._norms())
        attn = {f"attn.{s}": axes for s, axes in self.attn.sites(rotary=rotary).items()} | {"hook_attn_out": RESIDUAL}
        table |= (ln1 | inputs | attn) if self.placement == "pre" else (inputs | attn | ln1)
        table |= {"hook_resid_mid": RESIDUAL}
        if self.mlp is not None:
            mlp = {f"mlp.{s}": axes for s, axes in self.mlp.sites().items()} | {"hook_mlp_out": RESIDUAL}
            table |= {"hook_mlp_in": RESIDUAL} | ((ln2 | mlp) if self.placement == "pre" else (mlp | ln2))
        return table | {"hook_resid_post": RESIDUAL}

    def _norms(self) -> tuple[tuple[str, Norm | None], tuple[str, Norm | None]]:
        return ("ln1", self.ln1), ("ln2", self.ln2)


@dataclass(frozen=True)
class Point:
    """A place on the residual stream: a layer and one of its three points."""

    layer: int
    at: int

    @classmethod
    def named(cls, name: str, n_layers: int) -> Point:
        """The point a residual site's name means; UnknownName otherwise."""
        match = _POINT.fullmatch(name)
        if match is None or int(match[1]) >= n_layers:
            known = [f"blocks.{i}.hook_resid_{word}" for i in range(n_layers) for word in _WORDS]
            raise UnknownName("residual site", name, known, hint="A run starts and stops on the residual stream only.")
        return cls(int(match[1]), _WORDS.index(match[2]))

    def __le__(self, other: Point) -> bool:
        return (self.layer, self.at) <= (other.layer, other.at)


class Stack(nn.Module):
    """Layers one after another."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        setting: Setting,
        *,
        past: KVCache | None = None,
        listener: Listener | None = None,
        start: Point | None = None,
        stop: Point | None = None,
    ) -> tuple[Float[Tensor, "batch pos d_model"], tuple[LayerCache | None, ...]]:
        """The stream at ``stop`` (default: after the last layer) from the stream at ``start`` (default: before the first)."""
        begin = start or Point(0, PRE)
        end = stop or Point(len(self.blocks) - 1, POST)
        kept: list[LayerCache | None] = []
        for i in range(begin.layer, end.layer + 1):
            x, kv = self.blocks[i](
                x,
                setting,
                past=past.layers[i] if past is not None else None,
                listener=under(listener, f"blocks.{i}."),
                first=begin.at if i == begin.layer else PRE,
                last=end.at if i == end.layer else POST,
            )
            kept.append(kv)
        return x, tuple(kept)

    def weights(self) -> dict[str, Tensor]:
        """The weights of all layers, such as ``blocks.0.attn.W_Q``."""
        return {f"blocks.{i}.{name}": w for i, block in enumerate(self._blocks()) for name, w in block.weights().items()}

    def sites(self, *, rotary: bool) -> dict[str, tuple[str, ...]]:
        """Site names and axes in the order of a run."""
        return {f"blocks.{i}.{s}": axes for i, block in enumerate(self._blocks()) for s, axes in block.sites(rotary=rotary).items()}

    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]
