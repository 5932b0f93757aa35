"""The encoder-decoder from its config and named weights alone: the layers of the decoder-only twin, and another that meets the source."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.reference.attention import attention
from tests.reference.gpt import Plain


class PlainPair(Plain):
    """``PlainPair(model).of(source, tokens, mask)`` → every site's value by name."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        c = model.config
        self.c = SimpleNamespace(**c.model_dump(), n_kv_heads=c.n_heads, norm="layer")

    def of(self, source: Tensor, tokens: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        real = torch.ones_like(source).bool() if mask is None else mask
        x = self._embedded("encoder.", source)
        for i in range(self.c.n_layers_encoder):
            x = self._layer(f"encoder.blocks.{i}.", x, self._places(source), real.unsqueeze(1).expand(-1, source.shape[1], -1))
        memory = self._normed("encoder.ln_final", x) if self.c.norm_placement == "pre" else x
        x = self._embedded("decoder.", tokens)
        for i in range(self.c.n_layers_decoder):
            x = self._met(f"decoder.blocks.{i}.", x, memory, real.unsqueeze(1).expand(-1, tokens.shape[1], -1))
        x = self._normed("decoder.ln_final", x) if self.c.norm_placement == "pre" else x
        self.at["unembed.hook_in"] = x
        self.at["unembed.hook_logits"] = x @ self.w("W_U") + self.w("b_U")
        return self.at

    def _places(self, ids: Tensor) -> Tensor:
        return torch.arange(ids.shape[1]).expand(ids.shape)

    def _embedded(self, stack: str, ids: Tensor) -> Tensor:
        scale = math.sqrt(self.c.d_model) if self.c.scale_embed else 1.0
        x = self.at[f"{stack}hook_embed"] = self.w(f"{stack}W_E")[ids] * scale
        if self.c.positions == "learned":
            self.at[f"{stack}hook_pos_embed"] = self.w(f"{stack}W_pos")[self._places(ids)]
            x = x + self.at[f"{stack}hook_pos_embed"]
        return self._normed(f"{stack}ln_embed", x) if self.c.embed_norm else x

    def _met(self, at: str, x: Tensor, memory: Tensor, allowed: Tensor) -> Tensor:
        """A layer of the decoder: attention to itself, to the source, and the MLP."""
        keep, pre = self.at, self.c.norm_placement == "pre"
        keep[at + "hook_resid_pre"] = keep[at + "hook_attn_in"] = x
        for word in "qkv":
            keep[f"{at}hook_{word}_input"] = torch.stack([x] * self.c.n_heads, dim=2)
        causal = torch.ones(x.shape[1], x.shape[1]).tril().bool().expand(len(x), -1, -1)
        read = self._normed(at + "ln1", x) if pre else x
        x = self._added(at, "attn", "ln1", x, self._attention(at + "attn.", read, self._places(x[..., 0]), causal))
        keep[at + "hook_resid_mid"] = keep[at + "hook_cross_attn_in"] = x
        read = self._normed(at + "ln2", x) if pre else x
        x = self._added(at, "cross_attn", "ln2", x, self._meeting(at + "cross_attn.", read, memory, allowed))
        keep[at + "hook_resid_mid_cross"] = keep[at + "hook_mlp_in"] = x
        read = self._normed(at + "ln3", x) if pre else x
        x = keep[at + "hook_resid_post"] = self._added(at, "mlp", "ln3", x, self._mlp(at + "mlp.", read))
        return x

    def _added(self, at: str, word: str, norm: str, x: Tensor, out: Tensor) -> Tensor:
        self.at[f"{at}hook_{word}_out"] = out
        return x + out if self.c.norm_placement == "pre" else self._normed(at + norm, x + out)

    def _meeting(self, at: str, x: Tensor, memory: Tensor, allowed: Tensor) -> Tensor:
        keep, w, heads = self.at, self.w, range(self.c.n_heads)
        for word, stream in (("q", x), ("k", memory), ("v", memory)):
            keep[f"{at}hook_{word}"] = torch.stack(
                [stream @ w(f"{at}W_{word.upper()}")[h] + w(f"{at}b_{word.upper()}")[h] for h in heads], 2
            )
        q, k, v = (keep[f"{at}hook_{word}"] for word in "qkv")
        keep[at + "hook_attn_scores"], keep[at + "hook_pattern"], keep[at + "hook_z"] = attention(q, k, v, allowed)
        keep[at + "hook_result"] = torch.stack([keep[at + "hook_z"][:, :, h] @ w(f"{at}W_O")[h] for h in heads], dim=2)
        return keep[at + "hook_result"].sum(2) + w(f"{at}b_O")
