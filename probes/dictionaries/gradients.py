"""One training step's loss and gradients, in closed form on the entries that matter.

Over n rows, with y the normalised target, d its width, f the entries' values and u_i the product of a row with encoder row i:

    reconstruction   |f D + b_dec - y|^2 / (n d)
    topk, batch-topk nothing more; the gradient passes where a value is kept and above 0
    jumprelu         + price * (number of entries above their threshold) / n. Through the step, the gradient of threshold t_i is estimated
                     with a rectangle of width w about it: -t_i / w of the value's gradient, -price / (n w) of the count's
    gated            + price * sum relu(gate) / n + |relu(gate) D' + b' - y|^2 / (n d), D' and b' held fixed; through the gate's step
                     itself nothing passes

An entry that is not active, nor within the rectangle, has no gradient at all, so none of this needs the dense product with the decoder, and
the encoder's gradient is a sum over entries too. b_dec is also subtracted from what is read: its share is -(gradient of the encoder's bias)
E, one product with a vector. What is found equals automatic differentiation of the dense formulas (tests, float64).

Sources: Gao et al. 2024, Bussmann et al. 2024, Rajamanoharan et al. 2024 (both), as in ``dictionary``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.dictionaries.codes import ByFeature, Entries, top_of_batch, top_of_rows, where
from probes.dictionaries.dictionary import GATHER, Dictionary
from probes.dictionaries.spec import TrainingSpec


@dataclass(frozen=True)
class Step:
    """What a step found, as tensors on the device: ``loss`` of the reconstruction, entries ``active`` a row, the ``residual``
    ``[row, d_out]`` in normalised units, the entries and their values."""

    loss: Float[Tensor, ""]
    active: Float[Tensor, ""]
    residual: Float[Tensor, "row d_out"]
    entries: Entries
    value: Float[Tensor, " entry"]


@dataclass(frozen=True)
class _Read:
    """Entries with the encoder's product there, their values, and how the gradient of a value becomes that of ``pre`` and of vectors."""

    entries: Entries
    pre: Float[Tensor, " entry"]
    value: Float[Tensor, " entry"]


def gradients(
    d: Dictionary, z: Tensor, y: Tensor, spec: TrainingSpec, price: Tensor, *, guess: float = 0.0, room: Tensor | None = None
) -> Step:  # fmt: skip
    """Put the gradient of every parameter into its ``.grad``; ``z`` and ``y`` are normalised. ``guess``: see ``top_of_batch``; ``room``
    ``[row, d_sae]`` is memory to compute in."""
    with torch.no_grad():
        c = d.centred(z)
        read = _read(d, z, spec, guess, room)
        entries, scale = read.entries, 2.0 / y.numel()
        out, back = _decode(d, entries, read.value)
        residual = y - out
        g = -scale * residual
        by_feature = entries.by_feature()
        d.decoder.grad = None if spec.frozen else by_feature.total(read.value, g)
        d.decoder_bias.grad = g.sum(0)
        slope = back(g)
        extra = torch.zeros_like(read.pre)
        if d.spec.kind == "gated":
            extra = _gate_back(d, read, y, price, scale)
        pre_slope = _pre_back(d, read, slope, extra, by_feature, spec, price)
        d.encoder.grad = by_feature.total(pre_slope, c)
        if not d.spec.transcoder:
            d.decoder_bias.grad -= by_feature.sums(pre_slope) @ d.encoder
        active = (read.value > 0).sum() / len(z)
        return Step(residual.square().mean(), active, residual, entries, read.value)


def _read(d: Dictionary, z: Tensor, spec: TrainingSpec, guess: float, room: Tensor | None) -> _Read:
    pre = d.pre(z, room)
    kind = d.spec.kind
    if kind == "topk":
        entries, at = top_of_rows(pre, d.spec.k)
        return _Read(entries, at, at.relu())
    if kind == "batch-topk":
        entries, at = top_of_batch(pre, d.spec.k, guess)
        return _Read(entries, at, at)
    if kind == "gated":
        entries, at = where(pre > 0, pre)
        return _Read(entries, at, d.magnitude(entries, at).relu())
    entries, at = where(pre > (d.threshold - spec.bandwidth / 2).clamp(min=0), pre)
    return _Read(entries, at, at * (at > d.threshold[entries.feature]))


def _decode(d: Dictionary, entries: Entries, value: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The normalised reconstruction, and the function that takes its gradient to the values'."""
    if len(entries.feature) * GATHER > len(entries.offset) * d.spec.d_sae:  # hardly sparse (yet)
        row, feature = entries.row, entries.feature
        return entries.dense(value) @ d.decoder + d.decoder_bias, lambda g: (g @ d.decoder.T)[row, feature]
    with torch.enable_grad():
        leaf = value.detach().requires_grad_()
        out = entries.total(leaf, d.decoder.detach())
    return out.detach() + d.decoder_bias, lambda g: torch.autograd.grad(out, leaf, g)[0]


def _pre_back(
    d: Dictionary, read: _Read, slope: Tensor, extra: Tensor, by_feature: ByFeature, spec: TrainingSpec, price: Tensor
) -> Tensor:  # fmt: skip
    """The gradient of the encoder's product at each entry; those of the kind's own vectors are put into place."""
    kind, feature = d.spec.kind, read.entries.feature
    if kind == "gated":
        on = slope * (read.value > 0)
        gain = d.magnitude_log.exp()
        u = read.pre - d.gate_bias[feature]
        d.magnitude_bias.grad = by_feature.sums(on)
        d.magnitude_log.grad = by_feature.sums(on * u) * gain
        d.gate_bias.grad = by_feature.sums(extra)
        return on * gain[feature] + extra
    if kind == "jumprelu":
        threshold = d.threshold[feature]
        near = (read.pre - threshold).abs() < spec.bandwidth / 2
        rows = len(read.entries.offset)
        d.threshold.grad = by_feature.sums(near * (threshold * slope + price / rows) / -spec.bandwidth)
    found = slope * (read.value > 0)
    d.encoder_bias.grad = by_feature.sums(found)
    return found


def _gate_back(d: Dictionary, read: _Read, y: Tensor, price: Tensor, scale: float) -> Tensor:
    """The gradient that the gate gets from its own reconstruction and its price."""
    out, back = _decode(d, read.entries, read.pre)
    return back(scale * (out - y)) + price / len(y)


def auxiliary(d: Dictionary, z: Tensor, residual: Tensor, dead: Int[Tensor, " dead"], spec: TrainingSpec) -> Tensor:
    """Let the dead features explain what is left over, and add the gradients: ``weight * |relu(top of dead) D - residual|^2 / (n d)``,
    the top ``d_in / 2`` of them a row, and less where there are fewer (Gao et al. 2024, A.2). What is left over is held fixed."""
    c = d.centred(z)
    most = max(1, d.spec.d_in // 2)
    with torch.enable_grad():
        encoder, bias, decoder = (x.detach()[dead].requires_grad_() for x in (d.encoder, d.encoder_bias, d.decoder))
        pre = c @ encoder.T + bias
        value, index = pre.topk(min(most, len(dead)), sorted=False)
        said = torch.zeros_like(pre).scatter(1, index, value.relu()) @ decoder
        loss = spec.auxiliary * min(1.0, len(dead) / most) * (said - residual).square().mean()
        found = torch.autograd.grad(loss, [encoder, bias] if spec.frozen else [encoder, bias, decoder])
    for parameter, gradient in zip((d.encoder, d.encoder_bias, d.decoder), found, strict=False):
        assert parameter.grad is not None
        parameter.grad.index_add_(0, dead, gradient)
    return loss.detach()
