"""A sparse dictionary: activations as sums of few of many directions.

    z = normalised(x)                                   normalisation of the input site, kept with the weights
    pre = (z - b_dec) E + b_enc                         a transcoder reads z itself
    f = sparse(pre)                                     by kind, below
    y = f D + b_dec, undone                             normalisation of the output site

    topk         the k largest of a row, none below 0               Gao et al. 2024 (arXiv:2406.04093)
    batch-topk   in training the k * rows largest of a batch; then  pre where pre > t, t the least that was kept in training
                                                                    Bussmann et al. 2024 (arXiv:2412.06410)
    jumprelu     pre where pre > t, t of each feature, learned      Rajamanoharan et al. 2024 (arXiv:2407.14435)
    gated        relu(exp(r) u + b_mag) where u + b_gate > 0, u = (z - b_dec) E
                                                                    Rajamanoharan et al. 2024 (arXiv:2404.16014)

Directions (rows of D) have length 1, and ``encode`` tells features in the units of the output site: a feature of 2 adds a vector of length
2. So neither depends on whether the normalisation is still apart or has been folded into the weights.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from probes.dictionaries.codes import Entries, top_of_rows, where
from probes.dictionaries.normalisation import Normalisation, identity
from probes.dictionaries.spec import DictionarySpec, Origin
from workbench.core.errors import BadValue

GATHER = 8
"""Where fewer than one in this many features is active, a product with the decoder gathers rows instead of multiplying all."""


class Dictionary(nn.Module):
    """Encoder and decoder with their normalisation. Tensors: ``encoder`` ``[d_sae, d_in]``, ``decoder`` ``[d_sae, d_out]`` and biases."""

    encoder_bias: Tensor
    threshold: Tensor
    gate_bias: Tensor
    magnitude_bias: Tensor
    magnitude_log: Tensor
    centre_in: Tensor
    scale_in: Tensor
    centre_out: Tensor
    scale_out: Tensor

    def __init__(self, spec: DictionarySpec, *, seed: int = 0, origin: Origin | None = None) -> None:
        super().__init__()
        self.spec, self.origin = spec, origin or Origin()
        draw = torch.Generator().manual_seed(seed)
        rows = torch.randn(spec.d_sae, spec.width_out, generator=draw)
        self.decoder = nn.Parameter(unit(rows))
        self.decoder_bias = nn.Parameter(torch.zeros(spec.width_out))
        reads = unit(torch.randn(spec.d_sae, spec.d_in, generator=draw)) if spec.transcoder else self.decoder.detach().clone()
        self.encoder = nn.Parameter(reads)
        for name in _vectors(spec):
            self.register_parameter(name, nn.Parameter(torch.zeros(spec.d_sae)))
        if spec.kind == "batch-topk":
            self.register_buffer("threshold", torch.zeros(()))
        for side, width in (("in", spec.d_in), ("out", spec.width_out)):
            none = identity(width)
            self.register_buffer(f"centre_{side}", none.centre)
            self.register_buffer(f"scale_{side}", none.scale)

    # --- normalisation ------------------------------------------------------------------------------------------

    @property
    def input(self) -> Normalisation:
        """The normalisation of what is read."""
        return Normalisation(self.centre_in, self.scale_in)

    @property
    def output(self) -> Normalisation:
        """The normalisation of what is given."""
        return Normalisation(self.centre_out, self.scale_out)

    def normalise(self, reads: Normalisation, gives: Normalisation | None = None) -> None:
        """Set what is done to rows. An autoencoder has one normalisation for both sides."""
        if (gives is not None) != self.spec.transcoder:
            raise BadValue("gives", "given" if gives else None, "given for a transcoder, and for nothing else")
        gives = gives or reads
        for side, one, width in (("in", reads, self.spec.d_in), ("out", gives, self.spec.width_out)):
            if one.centre.shape != (width,) or not float(one.scale) > 0:
                found = f"centre {tuple(one.centre.shape)}, scale {float(one.scale)}"
                raise BadValue("a normalisation", found, f"of width {width} and a scale above 0")
            getattr(self, f"centre_{side}").copy_(one.centre)
            getattr(self, f"scale_{side}").copy_(one.scale)

    # --- reading ------------------------------------------------------------------------------------------------

    def encode(self, x: Float[Tensor, "*row d_in"]) -> Float[Tensor, "*row d_sae"]:
        """Features of raw rows, in the units of the output site."""
        entries, value = self.code(self._flat(x))
        return (entries.dense(value) / self.scale_out).unflatten(0, x.shape[:-1])

    def decode(self, features: Float[Tensor, "*row d_sae"]) -> Float[Tensor, "*row d_out"]:
        """The raw row that features add up to."""
        if features.shape[-1] != self.spec.d_sae:
            raise BadValue("the width of the features", features.shape[-1], f"d_sae = {self.spec.d_sae}")
        return features @ self.decoder + self.output.undo(self.decoder_bias)

    def forward(self, x: Float[Tensor, "*row d_in"]) -> Float[Tensor, "*row d_out"]:
        """The reconstruction of raw rows (of the other site, for a transcoder)."""
        entries, value = self.code(self._flat(x))
        return self.output.undo(self.put_together(entries, value)).unflatten(0, x.shape[:-1])

    def direction(self, feature: int) -> Float[Tensor, " d_out"]:
        """The unit vector that a feature adds at the output site. Raises BadValue for one that is not there."""
        if not 0 <= feature < self.spec.d_sae:
            raise BadValue("feature", feature, f"from 0 to {self.spec.d_sae - 1}")
        return unit(self.decoder.detach()[feature])

    def code(self, x: Float[Tensor, "row d_in"]) -> tuple[Entries, Float[Tensor, " entry"]]:
        """Which features are active in raw rows and how much, in normalised units."""
        pre = self.pre(self.input(x))
        kind = self.spec.kind
        if kind == "topk":
            entries, value = top_of_rows(pre, self.spec.k)
            return entries, value.relu()
        if kind == "gated":
            entries, gate = where(pre > 0, pre)
            return entries, self.magnitude(entries, gate).relu()
        return where(pre > self.threshold.clamp(min=0), pre)

    def pre(self, z: Float[Tensor, "row d_in"], out: Tensor | None = None) -> Float[Tensor, "row d_sae"]:
        """What is compared with the threshold, of normalised rows: of a gated dictionary, its gate."""
        bias = self.gate_bias if self.spec.kind == "gated" else self.encoder_bias
        c = self.centred(z)
        return F.linear(c, self.encoder, bias) if out is None else torch.addmm(bias, c, self.encoder.T, out=out)

    def centred(self, z: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_in"]:
        """What the encoder is multiplied with."""
        return z if self.spec.transcoder else z - self.decoder_bias

    def magnitude(self, entries: Entries, gate: Float[Tensor, " entry"]) -> Float[Tensor, " entry"]:
        """How much the entries of a gated dictionary would be, before anything below 0 is cut."""
        u = gate - self.gate_bias[entries.feature]
        return self.magnitude_log.exp()[entries.feature] * u + self.magnitude_bias[entries.feature]

    def put_together(self, entries: Entries, value: Float[Tensor, " entry"]) -> Float[Tensor, "row d_out"]:
        """The normalised rows that entries add up to."""
        if len(entries.feature) * GATHER <= len(entries.offset) * self.spec.d_sae:
            return entries.total(value, self.decoder) + self.decoder_bias
        return entries.dense(value) @ self.decoder + self.decoder_bias

    def _flat(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.spec.d_in or x.ndim < 2:
            raise BadValue("the shape of the rows", tuple(x.shape), f"[…, {self.spec.d_in}]: this dictionary reads vectors of that width")
        return x.flatten(0, -2)

    # --- other forms ----------------------------------------------------------------------------------------------

    def copied(self) -> Dictionary:
        """A dictionary of its own with the same numbers."""
        return copy.deepcopy(self)


def _vectors(spec: DictionarySpec) -> tuple[str, ...]:
    """The vectors ``[d_sae]`` of a kind besides the two matrices."""
    if spec.kind == "gated":
        return ("gate_bias", "magnitude_bias", "magnitude_log")
    return ("encoder_bias", "threshold") if spec.kind == "jumprelu" else ("encoder_bias",)


def unit(rows: Float[Tensor, "*row width"]) -> Float[Tensor, "*row width"]:
    """Rows of length 1."""
    return rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-12)
