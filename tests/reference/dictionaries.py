"""The losses of sparse dictionaries written out densely and left to automatic differentiation: the slow, obvious twin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probes.dictionaries.dictionary import Dictionary
from probes.dictionaries.spec import TrainingSpec


def dense_features(d: Dictionary, pre: Tensor, *, training: bool) -> Tensor:
    """Every feature of every row ``[row, d_sae]`` from the encoder's outputs, in normalised units."""
    if d.spec.kind == "topk":
        kept = torch.zeros_like(pre, dtype=torch.bool)
        for row in range(len(pre)):
            kept[row, pre[row].argsort(descending=True)[: d.spec.k]] = True
        return pre.relu() * kept
    if d.spec.kind == "batch-topk":
        if not training:
            return pre * (pre > d.threshold)
        order = pre.flatten().argsort(descending=True)[: d.spec.k * len(pre)]
        kept = torch.zeros(pre.numel(), dtype=torch.bool)
        kept[order] = True
        return pre.relu() * kept.reshape(pre.shape)
    if d.spec.kind == "gated":
        u = pre - d.gate_bias
        return (u * d.magnitude_log.exp() + d.magnitude_bias).relu() * (pre > 0)
    return pre * (pre > d.threshold)


class Jump(torch.autograd.Function):
    """pre where pre > threshold, and the count of those, with the rectangle's estimate of the threshold's gradient."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, width: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(pre, threshold)
        ctx.width = width
        on = (pre > threshold).to(pre.dtype)
        return pre * on, on

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        of_value, of_count = slopes
        pre, threshold = ctx.saved_tensors
        near = (((pre - threshold) / ctx.width).abs() < 0.5) & (pre > 0)
        of_threshold = -(near * (threshold * of_value + of_count)).sum(0) / ctx.width
        return of_value * (pre > threshold), of_threshold, None


def dense_loss(d: Dictionary, z: Tensor, y: Tensor, spec: TrainingSpec, price: float) -> Tensor:
    """The whole training loss of normalised rows, differentiable in every parameter of ``d``."""
    c = z if d.spec.transcoder else z - d.decoder_bias
    bias = d.gate_bias if d.spec.kind == "gated" else d.encoder_bias
    pre = c @ d.encoder.T + bias
    if d.spec.kind == "jumprelu":
        jump: Any = Jump.apply
        features, on = jump(pre, d.threshold, spec.bandwidth)
        more = price * on.sum() / len(z)
    else:
        features, more = dense_features(d, pre, training=True), torch.zeros(())
    loss = (features @ d.decoder + d.decoder_bias - y).square().sum() / y.numel() + more
    if d.spec.kind == "gated":
        gate = pre.relu()
        by_gate = gate @ d.decoder.detach() + d.decoder_bias.detach()
        loss = loss + price * gate.sum() / len(z) + (by_gate - y).square().sum() / y.numel()
    return loss


def dense_forward(d: Dictionary, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features in the units of the output site and the reconstruction, of raw rows, by the formulas alone."""
    z = (x - d.input.centre) * d.input.scale
    c = z if d.spec.transcoder else z - d.decoder_bias
    bias = d.gate_bias if d.spec.kind == "gated" else d.encoder_bias
    features = dense_features(d, c @ d.encoder.T + bias, training=False)
    y = features @ d.decoder + d.decoder_bias
    return features / d.output.scale, y / d.output.scale + d.output.centre
