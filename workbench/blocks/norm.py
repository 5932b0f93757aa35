"""Layer norm (Ba et al. 2016) and RMS norm (Zhang and Sennrich 2019) with their two sites.

    layer: hook_scale = sqrt(var(x) + eps),    hook_normalized = (x - mean(x)) / hook_scale
    rms:   hook_scale = sqrt(mean(x²) + eps),  hook_normalized = x / hook_scale
    output = hook_normalized * w + b

The fused kernel computes the output whoever listens; edits enter as differences (see ``listen``), so the numbers of a run
that only records are those of a run that does not.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from workbench.blocks.listen import Listener

NormKind = Literal["layer", "rms"]
SITES = {"hook_scale": ("batch", "pos", "one"), "hook_normalized": ("batch", "pos", "d_model")}


class Norm(nn.Module):
    """A norm over the last axis. RMS norm has no bias."""

    def __init__(self, kind: NormKind, width: int, *, eps: float, bias: bool) -> None:
        super().__init__()
        self.kind, self.width, self.eps = kind, width, eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias and kind == "layer" else None

    def forward(self, x: Float[Tensor, "batch pos d_model"], listener: Listener | None = None) -> Float[Tensor, "batch pos d_model"]:
        """The normalised ``x``."""
        return self.listened(x, listener)[0] if listener is not None else self._fused(x, self.weight, self.bias)

    def listened(
        self, x: Float[Tensor, "batch pos d_model"], listener: Listener | None
    ) -> tuple[Float[Tensor, "batch pos d_model"], Float[Tensor, "batch pos 1"] | None]:
        """The output, and the scale where an edit replaced it (else None)."""
        out = self._fused(x, self.weight, self.bias)
        if listener is None or not listener.wants(*SITES):
            return out, None
        if not listener.enters(*SITES):
            if listener.wants("hook_scale"):
                listener.hear("hook_scale", self.scale(x))
            if listener.wants("hook_normalized"):
                listener.hear("hook_normalized", self._fused(x, None, None))
            return out, None
        own = self.scale(x)
        scale = listener.hear("hook_scale", own)
        plain = self._fused(x, None, None)
        normalized = plain * (own / scale) if listener.enters("hook_scale") else plain
        normalized = listener.hear("hook_normalized", normalized)
        if listener.enters(*SITES):
            out = out + (normalized - plain) * self.weight
        return out, scale if listener.edits("hook_scale") else None

    def scale(self, x: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any 1"]:
        """What ``x`` is divided by; computed in at least float32."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.kind == "layer":
            wide = wide - wide.mean(-1, keepdim=True)
        # one pass over the stream in place of two, and no copy of it
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        return (length.square() / self.width + self.eps).sqrt().to(self.weight.dtype)

    def per_reader(
        self, x: Float[Tensor, "batch pos reader d_model"], scale: Float[Tensor, "batch pos 1"] | None
    ) -> Float[Tensor, "batch pos reader d_model"]:
        """The output for inputs that differ by reader; with ``scale`` (frozen by an edit) instead of their own."""
        if scale is None:
            return self._fused(x, self.weight, self.bias)
        centred = x - x.mean(-1, keepdim=True) if self.kind == "layer" else x
        out = centred / scale.unsqueeze(2) * self.weight
        return out if self.bias is None else out + self.bias

    def _fused(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        x = x.to(self.weight.dtype)  # under autocast what a linear map says is narrow, and a norm is not computed in that
        if self.kind == "layer":
            return functional.layer_norm(x, (self.width,), weight, bias, self.eps)
        return functional.rms_norm(x, (self.width,), weight, self.eps)

    def weights(self) -> dict[str, Tensor]:
        """``w`` [d_model] and, for a layer norm, ``b`` (zeros where there is none)."""
        if self.kind == "rms":
            return {"w": self.weight}
        return {"w": self.weight, "b": self.bias if self.bias is not None else torch.zeros_like(self.weight)}
