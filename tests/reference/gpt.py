"""The decoder-only model from its config and named weights alone, by the equations of the design; shares no code with the blocks.

Everything it computes is returned by site name, so that it also is the twin of what a run captures.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.reference.attention import attention, turned


def _norm(kind: str, x: Tensor, w: Tensor, b: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(scale, normalized, output)."""
    if kind == "layer":
        x = x - x.sum(-1, keepdim=True) / x.shape[-1]
    scale = ((x**2).sum(-1, keepdim=True) / x.shape[-1] + eps) ** 0.5
    out = x / scale * w
    return scale, x / scale, out if b is None else out + b


def _act(name: str, x: Tensor) -> Tensor:
    if name == "relu":
        return torch.where(x > 0, x, torch.zeros_like(x))
    if name == "swiglu":
        return x / (1 + torch.exp(-x))
    if name == "gelu":
        return x * 0.5 * (1 + torch.special.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class Plain:
    """``Plain(model)(tokens, positions, allowed)`` → every site's value by name."""

    def __init__(self, model: Any) -> None:
        self.c, self.w = model.config, model.weight
        self.at: dict[str, Tensor] = {}

    def __call__(self, tokens: Tensor, positions: Tensor | None = None, allowed: Tensor | None = None) -> dict[str, Tensor]:
        n_batch, n_pos = tokens.shape
        positions = torch.arange(n_pos).expand(n_batch, n_pos) if positions is None else positions
        allowed = torch.ones(n_pos, n_pos).tril().bool().expand(n_batch, n_pos, n_pos) if allowed is None else allowed
        x = self.at["hook_embed"] = self.w("W_E")[tokens]
        if self.c.positions == "learned":
            self.at["hook_pos_embed"] = self.w("W_pos")[positions]
            x = x + self.at["hook_pos_embed"]
        for i in range(self.c.n_layers):
            x = self._layer(f"blocks.{i}.", x, positions, allowed)
        if self.c.norm_placement == "pre":
            x = self._normed("ln_final", x)
        self.at["unembed.hook_in"] = x
        self.at["unembed.hook_logits"] = x @ self.w("W_U") + self.w("b_U")
        return self.at

    def _normed(self, name: str, x: Tensor) -> Tensor:
        bias = self.w(f"{name}.b") if self.c.norm == "layer" else None
        scale, normalized, out = _norm(self.c.norm, x, self.w(f"{name}.w"), bias, self.c.norm_eps)
        self.at[f"{name}.hook_scale"], self.at[f"{name}.hook_normalized"] = scale, normalized
        return out

    def _layer(self, at: str, x: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
        c, keep = self.c, self.at
        keep[at + "hook_resid_pre"] = keep[at + "hook_attn_in"] = x
        for word, heads in (("q", c.n_heads), ("k", c.n_kv_heads), ("v", c.n_kv_heads)):
            keep[f"{at}hook_{word}_input"] = torch.stack([x] * heads, dim=2)
        read = self._normed(at + "ln1", x) if c.norm_placement == "pre" else x
        out = self._attention(at + "attn.", read, positions, allowed)
        keep[at + "hook_attn_out"] = out
        x = x + out
        if c.norm_placement == "post":
            x = self._normed(at + "ln1", x)
        keep[at + "hook_resid_mid"] = x
        if c.act != "none":
            keep[at + "hook_mlp_in"] = x
            read = self._normed(at + "ln2", x) if c.norm_placement == "pre" else x
            keep[at + "hook_mlp_out"] = self._mlp(at + "mlp.", read)
            x = x + keep[at + "hook_mlp_out"]
            if c.norm_placement == "post":
                x = self._normed(at + "ln2", x)
        keep[at + "hook_resid_post"] = x
        return x

    def _attention(self, at: str, x: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
        c, keep, w = self.c, self.at, self.w
        for word, heads in (("q", c.n_heads), ("k", c.n_kv_heads), ("v", c.n_kv_heads)):
            each = [x @ w(f"{at}W_{word.upper()}")[h] + w(f"{at}b_{word.upper()}")[h] for h in range(heads)]
            keep[f"{at}hook_{word}"] = torch.stack(each, dim=2)
        q, k, v = (keep[f"{at}hook_{word}"] for word in "qkv")
        if c.positions == "rope":
            for word, value in (("q", q), ("k", k)):
                out = value.clone()
                for b in range(value.shape[0]):
                    for p in range(value.shape[1]):
                        for h in range(value.shape[2]):
                            out[b, p, h] = turned(value[b, p, h], int(positions[b, p]), c.rope_base)
                keep[f"{at}hook_rot_{word}"] = out
            q, k = keep[at + "hook_rot_q"], keep[at + "hook_rot_k"]
        keep[at + "hook_attn_scores"], keep[at + "hook_pattern"], z = attention(q, k, v, allowed)
        keep[at + "hook_z"] = z
        keep[at + "hook_result"] = torch.stack([z[:, :, h] @ w(f"{at}W_O")[h] for h in range(c.n_heads)], dim=2)
        return keep[at + "hook_result"].sum(2) + w(f"{at}b_O")

    def _mlp(self, at: str, x: Tensor) -> Tensor:
        keep, w = self.at, self.w
        if self.c.act == "swiglu":
            keep[at + "hook_pre"] = x @ w(f"{at}W_gate") + w(f"{at}b_gate")
            keep[at + "hook_pre_linear"] = x @ w(f"{at}W_in") + w(f"{at}b_in")
            keep[at + "hook_post"] = _act("swiglu", keep[at + "hook_pre"]) * keep[at + "hook_pre_linear"]
        else:
            keep[at + "hook_pre"] = x @ w(f"{at}W_in") + w(f"{at}b_in")
            keep[at + "hook_post"] = _act(self.c.act, keep[at + "hook_pre"])
        return keep[at + "hook_post"] @ w(f"{at}W_out") + w(f"{at}b_out")
