"""Multi-head attention (Vaswani et al. 2017) with grouped keys and values (Ainslie et al. 2023).

The fused kernel runs unless someone listens on ``hook_attn_scores`` or ``hook_pattern``; then scores and pattern are
computed in at least float32 and kept so. Letters in einsum strings: b batch, q query, k key, h head, d d_head, m d_model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from workbench.blocks.cache import LayerCache, StepLayer, joined
from workbench.blocks.ending import queries_of, turns_of
from workbench.blocks.fused import attend
from workbench.blocks.init import linear
from workbench.blocks.inputs import Chosen
from workbench.blocks.listen import Listener, hear
from workbench.blocks.mask import AttentionMask
from workbench.blocks.rotary import Rotary

READERS = ("q", "k", "v")
Heads = Float[Tensor, "batch pos heads d_head"]


class Attention(nn.Module):
    """Attention of ``n_heads`` queries over ``n_kv_heads`` keys and values; head h reads group h // (n_heads / n_kv_heads).

    Keys and values come from the queries' own stream, or (cross-attention) from a ``source`` given at each call. ``key_bias`` false
    leaves out the keys' bias alone, which moves no pattern; ``out_bias`` says of the output map what ``bias`` says of the others.
    """

    def __init__(
        self, d_model: int, n_heads: int, n_kv_heads: int, d_head: int, *, bias: bool, key_bias: bool = True, out_bias: bool | None = None
    ) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.d_head = n_heads, n_kv_heads, d_head
        self.q = linear(d_model, n_heads * d_head, bias)
        self.k = linear(d_model, n_kv_heads * d_head, bias and key_bias)
        self.v = linear(d_model, n_kv_heads * d_head, bias)
        self.o = linear(n_heads * d_head, d_model, bias if out_bias is None else out_bias)

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        mask: AttentionMask,
        *,
        rotary: Rotary | None = None,
        past: LayerCache | StepLayer | None = None,
        listener: Listener | None = None,
        readers: Mapping[str, Float[Tensor, "batch pos reader d_model"]] | None = None,
        only: Chosen | None = None,
    ) -> tuple[Float[Tensor, "batch chosen d_model"], LayerCache]:
        """The attention output, and the keys and values of ``past`` and current tokens together.

        ``readers`` holds, for ``q``, ``k`` or ``v``, what is added to one head's input beyond ``x``; ``only`` are the positions that
        have an output (None: all).
        """
        few = only if mask.sparse is None else None  # a pattern goes by whole rows; what follows it does not
        q, k, v = (hear(listener, f"hook_{word}", heads) for word, heads in zip(READERS, self._read(x, readers or {}, few)))
        if rotary is not None:
            own = rotary if few is None else turns_of(few, rotary, len(x))
            q, k = hear(listener, "hook_rot_q", own.turn(q)), hear(listener, "hook_rot_k", rotary.turn(k))
        k, v = joined(past, k, v)
        if few is not None:
            mask = queries_of(few, mask, (x.shape[0], x.shape[1]), k.shape[1], x.device)
        out = self._mixed(q, k, v, mask, listener)
        return out if only is few or only is None else only.take(out), (k, v)

    def held(
        self,
        x: Float[Tensor, "batch pos d_model"],
        *,
        rotary: Rotary | None,
        past: LayerCache | StepLayer | None,
        listener: Listener | None,
    ) -> LayerCache:
        """The keys and values that ``forward`` gives back, without queries and output."""
        k, v = (hear(listener, f"hook_{word}", self._projected(word, x)) for word in ("k", "v"))
        return joined(past, k if rotary is None else hear(listener, "hook_rot_k", rotary.turn(k)), v)

    def meet(
        self,
        x: Float[Tensor, "batch pos d_model"],
        source: Float[Tensor, "batch key d_model"] | LayerCache,
        mask: AttentionMask,
        listener: Listener | None = None,
    ) -> tuple[Float[Tensor, "batch pos d_model"], LayerCache]:
        """Cross-attention: the output of queries from ``x`` over another stream, and that stream's keys and values.

        ``source`` is the other stream, or the keys and values an earlier call gave back; those were heard then.
        """
        q = hear(listener, "hook_q", self._projected("q", x))
        if isinstance(source, tuple):
            k, v = source
        else:
            k, v = (hear(listener, f"hook_{word}", self._projected(word, source)) for word in ("k", "v"))
        return self._mixed(q, k, v, mask, listener), (k, v)

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, listener: Listener | None) -> Tensor:
        if listener is not None and listener.wants("hook_attn_scores", "hook_pattern"):
            with torch.autocast(q.device.type, enabled=False):  # it would take the products, and so the softmax, to 16 bits
                z = self._visible(q, k, v, mask, listener)
        else:
            z = self._fused(q, k, v, mask)
        z = hear(listener, "hook_z", z)
        out = self.o(z.flatten(2))
        if listener is not None and listener.wants("hook_result"):
            result = torch.matmul(z.permute(2, 0, 1, 3).flatten(1, 2), self._w_o()).unflatten(1, z.shape[:2]).permute(1, 2, 0, 3)
            heard = listener.hear("hook_result", result)
            if listener.enters("hook_result"):
                out = out + (heard - result).sum(2)
        return out

    def _read(self, x: Tensor, readers: Mapping[str, Tensor], few: Chosen | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (of a ``few`` positions), keys and values of one stream."""
        made = self._together(x) if few is None and torch.is_autocast_enabled(x.device.type) else None
        asking = x if few is None else few.take(x)
        q, k, v = made if made is not None else (self._projected("q", asking), self._projected("k", x), self._projected("v", x))
        if few is not None and "q" in readers:
            readers = {**readers, "q": few.take(readers["q"])}
        return self._changed("q", q, readers), self._changed("k", k, readers), self._changed("v", v, readers)

    def _together(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """The three as one product, which narrows the stream once in place of three times; None where a map is no plain one. In float32
        there is nothing to narrow, and gradients keep the order of their sums."""
        layers: list[nn.Linear] = [getattr(self, word) for word in READERS]
        biased = {layer.bias is not None for layer in layers}
        if len(biased) > 1 or any(type(layer) is not nn.Linear or type(layer.weight) is not nn.Parameter for layer in layers):
            return None  # adapted, or shared among processes
        bias = torch.cat([layer.bias for layer in layers]) if biased == {True} else None
        whole = functional.linear(x, torch.cat([layer.weight for layer in layers]), bias)
        q, k, v = (part.unflatten(-1, (-1, self.d_head)) for part in whole.split([layer.out_features for layer in layers], -1))
        return q, k, v

    def _projected(self, word: str, x: Tensor) -> Heads:
        return getattr(self, word)(x).unflatten(-1, (-1, self.d_head))

    def _changed(self, word: str, heads: Heads, readers: Mapping[str, Tensor]) -> Heads:
        if word not in readers:
            return heads
        weight = rearrange(getattr(self, word).weight, "(h d) m -> h d m", d=self.d_head)
        return heads + einsum(readers[word], weight, "b q h m, h d m -> b q h d")

    def _by_head(self, shared: Float[Tensor, "batch key kv_head d_head"]) -> Float[Tensor, "batch head key d_head"]:
        """One copy of each group's keys or values a head that reads it, heads before positions."""
        by_group = shared.transpose(1, 2)
        return by_group if self.n_kv_heads == self.n_heads else by_group.repeat_interleave(self.n_heads // self.n_kv_heads, dim=1)

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask) -> Heads:
        heads = q.transpose(1, 2), self._by_head(k), self._by_head(v)
        if mask.sparse is not None:
            z = mask.sparse.attend(*heads)
        else:
            z = attend(*heads, mask)
        return z.transpose(1, 2)

    def _visible(self, q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, listener: Listener) -> Heads:
        wide = torch.promote_types(q.dtype, torch.float32)
        q_wide = q.transpose(1, 2).to(wide) / math.sqrt(self.d_head)
        scores = torch.matmul(q_wide, self._by_head(k).to(wide).transpose(2, 3))
        allowed = mask.shown(q.shape[1], k.shape[1], q.device)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -math.inf) if scores.requires_grad else scores.masked_fill_(~allowed, -math.inf)
        scores = listener.hear("hook_attn_scores", scores)
        if (allowed is None or mask.causal) and not listener.enters("hook_attn_scores"):  # every query has a key
            pattern = scores.softmax(-1)
        else:
            # Only a query with no key at all (every score -inf) becomes zeros; a NaN that came from anywhere else must stay one.
            nothing = (scores == -math.inf).all(-1, keepdim=True)
            pattern = scores.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing, 0.0)
        pattern = listener.hear("hook_pattern", pattern)
        return torch.matmul(pattern, self._by_head(v).to(wide)).transpose(1, 2).to(q.dtype)

    def _w_o(self) -> Float[Tensor, "head d_head d_model"]:
        return rearrange(self.o.weight, "m (h d) -> h d m", d=self.d_head)

    def weights(self) -> dict[str, Tensor]:
        """``W_Q`` [head, d_model, d_head], ``W_K``/``W_V`` [kv_head, …], ``W_O`` [head, d_head, d_model]; ``b_Q`` [head, d_head],
        ``b_K``, ``b_V``, ``b_O`` [d_model] (zeros where there is no bias)."""
        out: dict[str, Tensor] = {"W_O": self._w_o(), "b_O": bias_of(self.o)}
        for word in READERS:
            layer: nn.Linear = getattr(self, word)
            out[f"W_{word.upper()}"] = rearrange(layer.weight, "(h d) m -> h m d", d=self.d_head)
            out[f"b_{word.upper()}"] = rearrange(bias_of(layer), "(h d) -> h d", d=self.d_head)
        return out

    def sites(self, *, rotary: bool = False, cross: bool = False) -> dict[str, tuple[str, ...]]:
        """Site names and axes in the order of a run; keys and values of cross-attention lie along the other stack's positions."""
        query, shared = ("batch", "pos", "head", "d_head"), ("batch", "key" if cross else "pos", "kv_head", "d_head")
        table = {"hook_q": query, "hook_k": shared, "hook_v": shared}
        if rotary:
            table |= {"hook_rot_q": query, "hook_rot_k": shared}
        grid = ("batch", "head", "query", "key")
        return table | {"hook_attn_scores": grid, "hook_pattern": grid, "hook_z": query, "hook_result": ("batch", "pos", "head", "d_model")}


def bias_of(layer: nn.Linear) -> Tensor:
    """The bias, or zeros of its shape."""
    return layer.bias if layer.bias is not None else layer.weight.new_zeros(layer.out_features)
