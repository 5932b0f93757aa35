"""Layers, and the residual stream through them.

    placement pre, none:  resid_mid = resid_pre + attn_out,        resid_post = resid_mid + mlp_out   (exactly)
    placement post:       resid_mid = ln1(resid_pre + attn_out),   resid_post = ln2(resid_mid + mlp_out)

``attn_in`` and ``mlp_in`` are what the sublayer reads of the stream, before a norm of its own; ``q_input`` … are the same seen by
one head's reader. Editing them changes that reader alone. Without an MLP (``mlp=None``) there are no MLP sites and
``resid_post = resid_mid``; both are heard.

With cross-attention a layer reads another stream between the two, and the norms are, as in TransformerLens, ln1 for attention, ln2 for
cross-attention, ln3 for the MLP:

    placement pre:   resid_mid_cross = resid_mid + cross_attn_out,        resid_post = resid_mid_cross + mlp_out
    placement post:  resid_mid_cross = ln2(resid_mid + cross_attn_out),   resid_post = ln3(resid_mid_cross + mlp_out)

With modulation (Peebles and Xie 2022, adaLN-Zero) a condition shifts and scales what each sublayer reads and gates what it adds;
``attn_out`` and ``mlp_out`` are what is added, after the gate, so the equations stand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from workbench.blocks.attention import READERS, Attention
from workbench.blocks.cache import KVCache, LayerCache, Step, StepLayer
from workbench.blocks.embed import RESIDUAL, Axes
from workbench.blocks.inputs import Chosen
from workbench.blocks.listen import Listener, hear, under
from workbench.blocks.mask import AttentionMask
from workbench.blocks.mlp import MLP
from workbench.blocks.modulation import Modulation, Turn
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm
from workbench.blocks.rotary import Rotary
from workbench.core.errors import BadValue, UnknownName

Placement = Literal["pre", "post", "none"]
PRE, MID, CROSS, POST = 0, 1, 2, 3
_WORDS = ("pre", "mid", "mid_cross", "post")
POINTS = tuple(f"hook_resid_{word}" for word in _WORDS)
"""The last words of the names of places on the stream, where runs start and stop."""
_POINT = re.compile(r"(?P<prefix>(?:\w+\.)??)blocks\.(?P<layer>\d+)\.hook_resid_(?P<word>pre|mid|mid_cross|post)")


@dataclass(frozen=True)
class Setting:
    """What all layers of one pass share. ``dropout`` is the probability of dropping a sublayer's output element.

    ``memory`` ``[batch, key, d_model]`` is the stream that cross-attention reads, ``seen`` which of it (None: all); ``condition``
    ``[batch, d_condition]`` is what modulated layers heed. ``only`` are the positions that the last layer's queries, and all that
    follows them, run at (None: all).
    """

    mask: AttentionMask
    rotary: Rotary | None = None
    dropout: float = 0.0
    memory: Float[Tensor, "batch key d_model"] | None = None
    seen: AttentionMask | None = None
    condition: Float[Tensor, "batch d_condition"] | None = None
    only: Chosen | None = None


@dataclass(frozen=True)
class Left:
    """What a layer leaves for later tokens: its own keys and values, and those of the stream it met (None where it did not)."""

    own: LayerCache | StepLayer | None = None
    met: LayerCache | None = None


class Block(nn.Module):
    """One layer, made of ready parts. ``norm`` makes as many norms as ``placement`` has places for; it is given unless that is none."""

    def __init__(
        self,
        attn: Attention,
        mlp: MLP | None,
        norm: Callable[[], Norm] | None,
        *,
        placement: Placement,
        cross_attn: Attention | None = None,
        modulation: Modulation | None = None,
    ) -> None:
        super().__init__()
        assert (norm is None) == (placement == "none"), "norms are given exactly where they are placed"
        assert modulation is None or placement == "pre", "a modulation acts on what a sublayer reads after its norm"
        self.placement: Placement = placement
        self.attn, self.cross_attn, self.mlp, self.modulation = attn, cross_attn, mlp, modulation
        self.norms: dict[str, str] = {}  # which norm each sublayer has
        for sublayer, part in (("attn", attn), ("cross_attn", cross_attn), ("mlp", mlp)):
            if norm is not None and part is not None:
                self.norms[sublayer] = f"ln{len(self.norms) + 1}"
                setattr(self, self.norms[sublayer], norm())

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        setting: Setting,
        *,
        past: Left | None = None,
        listener: Listener | None = None,
        first: int = PRE,
        last: int = POST,
    ) -> tuple[Float[Tensor, "batch out d_model"], Left]:
        """The stream at point ``last`` from the stream at point ``first`` (``PRE``, ``MID``, ``CROSS``, ``POST``; both are heard), and
        what attention leaves where it ran."""
        left, past = Left(), past or Left()
        turns = self.modulation(setting.condition, listener) if self.modulation is not None else {}
        if first == PRE:
            x = hear(listener, "hook_resid_pre", x)
            if last == PRE:
                return x, left
            if setting.only is not None and setting.only.count == 0:
                return x[:, :0], Left(self._held(x, setting, past.own, listener))
            out, own = self._attend(x, setting, turns.get("attn"), past.own, listener)
            x = x if setting.only is None else setting.only.take(x)
            x, left = self._added(x, out, "attn", turns, setting, listener), Left(own)
        if first <= MID:
            x = hear(listener, "hook_resid_mid", x)
            if last == MID:
                return x, left
            if self.cross_attn is not None:
                read = self._read(hear(listener, "hook_cross_attn_in", x), "cross_attn", turns, listener)
                source = past.met if past.met is not None else setting.memory
                assert source is not None, "cross-attention has a stream to read"
                seen = setting.seen or AttentionMask()
                if setting.only is not None and seen.allowed is not None:
                    seen = AttentionMask(allowed=seen.allowed[:, :, : x.shape[1]])  # one rule for every query
                out, met = self.cross_attn.meet(read, source, seen, under(listener, "cross_attn."))
                x, left = self._added(x, out, "cross_attn", turns, setting, listener), Left(left.own, met)
        if first <= CROSS:
            if self.cross_attn is not None:
                x = hear(listener, "hook_resid_mid_cross", x)
                if last == CROSS:
                    return x, left
            if self.mlp is not None:
                read = self._read(hear(listener, "hook_mlp_in", x), "mlp", turns, listener)
                x = self._added(x, self.mlp(read, under(listener, "mlp.")), "mlp", turns, setting, listener)
        return hear(listener, "hook_resid_post", x), left

    def _norm(self, sublayer: str) -> Norm | None:
        norm = getattr(self, self.norms[sublayer]) if sublayer in self.norms else None
        assert norm is None or isinstance(norm, Norm)
        return norm

    def _read(self, source: Tensor, sublayer: str, turns: Mapping[str, Turn], listener: Listener | None) -> Tensor:
        """What a sublayer reads of ``source``: after its norm and modulation, where they are placed before it."""
        norm = self._norm(sublayer)
        if norm is not None and self.placement == "pre":
            source = norm(source, under(listener, f"{self.norms[sublayer]}."))
        return turns[sublayer].read(source) if sublayer in turns else source

    def _added(
        self, x: Tensor, out: Tensor, sublayer: str, turns: Mapping[str, Turn], setting: Setting, listener: Listener | None
    ) -> Tensor:
        if setting.dropout:
            out = functional.dropout(out, setting.dropout, training=True)
        if sublayer in turns:
            out = turns[sublayer].write(out)
        x = x + hear(listener, f"hook_{sublayer}_out", out)
        norm = self._norm(sublayer)
        if norm is None or self.placement != "post":
            return x
        return norm(x, under(listener, f"{self.norms[sublayer]}."))

    def _attend(
        self, x: Tensor, setting: Setting, turn: Turn | None, past: LayerCache | StepLayer | None, listener: Listener | None
    ) -> tuple[Tensor, LayerCache]:
        source = hear(listener, "hook_attn_in", x)
        read, scale, norm = source, None, self._norm("attn") if self.placement == "pre" else None
        if norm is not None:
            read, scale = norm.listened(source, under(listener, "ln1."))
        read = turn.read(read) if turn is not None else read
        readers = None if listener is None else self._readers(source, norm, scale, turn, listener)
        return self.attn(
            read, setting.mask, rotary=setting.rotary, past=past, listener=under(listener, "attn."), readers=readers, only=setting.only
        )  # fmt: skip

    def _held(self, x: Tensor, setting: Setting, past: LayerCache | StepLayer | None, listener: Listener | None) -> LayerCache:
        """What attention leaves for later tokens, and nothing of what it says."""
        read = hear(listener, "hook_attn_in", x)
        norm = self._norm("attn") if self.placement == "pre" else None
        return self.attn.held(norm(read) if norm is not None else read, rotary=setting.rotary, past=past, listener=under(listener, "attn."))

    def _readers(self, source: Tensor, norm: Norm | None, scale: Tensor | None, turn: Turn | None, listener: Listener) -> dict[str, Tensor]:
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
            change = new - old if norm is None else norm.per_reader(new, scale) - norm.per_reader(old, scale)
            out[word] = turn.scaled(change) if turn is not None else change
        return out

    def weights(self) -> dict[str, Tensor]:
        """The weights of all parts by name, such as ``attn.W_Q`` and ``ln1.w``."""
        parts = {"attn": self.attn, "cross_attn": self.cross_attn, "mlp": self.mlp, "modulation": self.modulation}
        parts |= {self.norms[sublayer]: self._norm(sublayer) for sublayer in self.norms}
        return {f"{name}.{word}": w for name, part in parts.items() if part is not None for word, w in part.weights().items()}

    def sites(self, *, rotary: bool = False) -> dict[str, tuple[str, ...]]:
        """Site names and axes in the order of a run."""
        shared = ("batch", "pos", "kv_head", "d_model")
        inputs = {"hook_q_input": ("batch", "pos", "head", "d_model"), "hook_k_input": shared, "hook_v_input": shared}
        table: dict[str, tuple[str, ...]] = self.modulation.sites() if self.modulation is not None else {}
        table |= {"hook_resid_pre": RESIDUAL}
        table |= self._sublayer("attn", self.attn.sites(rotary=rotary), inputs) | {"hook_resid_mid": RESIDUAL}
        if self.cross_attn is not None:
            table |= self._sublayer("cross_attn", self.cross_attn.sites(cross=True)) | {"hook_resid_mid_cross": RESIDUAL}
        if self.mlp is not None:
            table |= self._sublayer("mlp", self.mlp.sites())
        return table | {"hook_resid_post": RESIDUAL}

    def _sublayer(self, name: str, own: Mapping[str, Axes], inputs: Mapping[str, Axes] | None = None) -> dict[str, Axes]:
        """A sublayer's sites with those of its norm, which come before or after it."""
        norm = {f"{self.norms[name]}.{site}": axes for site, axes in NORM_SITES.items()} if name in self.norms else {}
        body = {**(inputs or {}), **{f"{name}.{site}": axes for site, axes in own.items()}, f"hook_{name}_out": RESIDUAL}
        return {f"hook_{name}_in": RESIDUAL, **(norm | body if self.placement == "pre" else body | norm)}


@dataclass(frozen=True)
class Point:
    """A place on the residual stream: a layer and one of its points."""

    layer: int
    at: int

    def __le__(self, other: Point) -> bool:
        return (self.layer, self.at) <= (other.layer, other.at)


class Stack(nn.Module):
    """Layers one after another. ``prefix`` (``encoder.`` …) is what its sites' names begin with.

    With ``depth`` above the number of blocks, neighbouring layers share one (Lan et al. 2020): each layer has sites and names of weights of
    its own, and the weights are there once.
    """

    def __init__(self, blocks: Sequence[Block], prefix: str = "", *, depth: int = 0) -> None:
        super().__init__()
        self.blocks, self.prefix, self.depth = nn.ModuleList(blocks), prefix, depth or len(blocks)

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        setting: Setting,
        *,
        past: KVCache | Step | None = None,
        listener: Listener | None = None,
        start: Point | None = None,
        stop: Point | None = None,
    ) -> tuple[Float[Tensor, "batch out d_model"], KVCache]:
        """The stream at ``stop`` (default: after the last layer) from the stream at ``start`` (default: before the first), and the
        keys and values of the layers that ran. ``listener`` is already under the prefix."""
        begin = start or Point(0, PRE)
        end = stop or Point(self.depth - 1, POST)
        left: list[Left] = []
        inner = setting if setting.only is None else replace(setting, only=None)
        for i in range(begin.layer, end.layer + 1):
            x, kept = self.blocks[i * len(self.blocks) // self.depth](
                x,
                setting if i == self.depth - 1 else inner,
                past=Left(past.layers[i], past.memory[i] if past.memory else None) if past is not None else None,
                listener=under(listener, f"blocks.{i}."),
                first=begin.at if i == begin.layer else PRE,
                last=end.at if i == end.layer else POST,
            )
            left.append(kept)
        own, met = (tuple(kv for one in left if (kv := getattr(one, name)) is not None) for name in ("own", "met"))
        return x, KVCache(own, met)

    def point(self, name: str) -> Point:
        """The point a residual site's name means; UnknownName otherwise."""
        match = _POINT.fullmatch(name)
        known = [site for site in self.sites() if _POINT.fullmatch(site)]
        if match is None or name not in known:
            raise UnknownName("residual site", name, known, hint="A run starts and stops on the residual stream only.")
        return Point(int(match["layer"]), _WORDS.index(match["word"]))

    @property
    def crossed(self) -> bool:
        """Whether layers read another stream."""
        return any(block.cross_attn is not None for block in self.layers())

    def entry(self, layer: int) -> Point:
        """Where a layer begins."""
        return Point(layer, PRE)

    def weights(self) -> dict[str, Tensor]:
        """The weights of all layers, such as ``blocks.0.attn.W_Q``."""
        return {f"{self.prefix}blocks.{i}.{name}": w for i, block in enumerate(self.layers()) for name, w in block.weights().items()}

    def sites(self, *, rotary: bool = False) -> dict[str, tuple[str, ...]]:
        """Site names and axes in the order of a run."""
        found = ((i, block.sites(rotary=rotary)) for i, block in enumerate(self.layers()))
        return {f"{self.prefix}blocks.{i}.{site}": axes for i, table in found for site, axes in table.items()}

    def layers(self) -> list[Block]:
        """The block of each layer; of a layer in a wrapper (a compiled one), the block inside."""
        blocks = [part for layer in self.blocks for part in layer.modules() if isinstance(part, Block)]
        assert len(blocks) == len(self.blocks), "each layer is a block or holds one"
        return [blocks[i * len(blocks) // self.depth] for i in range(self.depth)]
