"""Normalisation folded into the weights, exactly: another form of the same dictionary, which reads raw rows.

With input centre c and scale s, output centre c' and scale s' (of an autoencoder the same two):

    E'     = E s / s'
    b_enc' = b_enc / s'                             of a transcoder also - s / s' c E, since it has no b_dec to take c up
    b_dec' = b_dec / s' + c'
    t'     = t / s'                                 thresholds; b_gate and b_mag likewise, r stays

The decoder keeps its rows of length 1 and features come out in the units of the output site, as they did before. A fold is computed in
float64 and compared with what it was made from, on rows about the centre, before it is believed: one that forgets a term (the bias of the
decoder, the threshold) is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probes.dictionaries.dictionary import Dictionary
from probes.dictionaries.normalisation import identity
from workbench.core.errors import BadValue

ROWS, BOUND = 64, 1e-9
"""Rows that a fold is tried on, and how far it may be off in float64, relative to the largest number."""


def folded(dictionary: Dictionary) -> Dictionary:
    """The same dictionary with nothing left to normalise. Raises BadValue where the two do not agree."""
    wide = dictionary.copied().double()
    out = wide.copied()
    with torch.no_grad():
        _fold(out)
    with torch.no_grad():
        check(wide, out)
    return out.to(dictionary.decoder.dtype)


def _fold(d: Dictionary) -> None:
    reads, gives = d.input, d.output
    s, t = reads.scale.clone(), gives.scale.clone()
    biases = [d.gate_bias, d.magnitude_bias] if d.spec.kind == "gated" else [d.encoder_bias]
    if d.spec.transcoder:
        shift = s * (d.encoder @ reads.centre)
        for bias in biases:
            gain = d.magnitude_log.exp() if bias is biases[-1] and d.spec.kind == "gated" else 1.0
            bias.sub_(shift * gain)
    for bias in biases:
        bias.div_(t)
    d.encoder.mul_(s / t)
    d.decoder_bias.copy_(gives.undo(d.decoder_bias))
    if d.spec.kind in ("batch-topk", "jumprelu"):
        d.threshold.div_(t)
    for side, width in (("in", d.spec.d_in), ("out", d.spec.width_out)):
        none = identity(width, d.decoder.dtype)
        getattr(d, f"centre_{side}").copy_(none.centre)
        getattr(d, f"scale_{side}").copy_(none.scale)


def check(apart: Dictionary, together: Dictionary) -> None:
    """Raises BadValue where two forms of one dictionary, in float64, read or rebuild raw rows differently."""
    draw = torch.Generator().manual_seed(0)
    reads = apart.input
    rows = reads.undo(torch.randn(ROWS, apart.spec.d_in, generator=draw, dtype=torch.float64))
    for what in ("encode", "forward"):
        one, other = (getattr(d, what)(rows) for d in (apart, together))
        off = _gap(one, other)
        if not off <= BOUND:
            raise BadValue(
                f"the gap of `{what}` between the dictionary and its folded form", off, f"at most {BOUND}",
                do="The fold leaves out a term: do not use it.",
            )  # fmt: skip


def _gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max().clamp(min=1e-300))
