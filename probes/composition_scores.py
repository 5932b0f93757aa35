"""Composition scores: how much of what one head writes can reach the query, key or value of a later head, by the weights alone.

With W_OV = W_V W_O of the writer and, of the reader, W_QK = W_Q W_K^T and W_OV (rows are input, columns output):

    Q: |W_OV W_QK| / (|W_OV| |W_QK|)     K: |W_OV W_QK^T| / (|W_OV| |W_QK|)     V: |W_OV W_OV'| / (|W_OV| |W_OV'|)     (Frobenius norms)

No product of d_model x d_model is formed: with W_V = Q R (QR), |W_V X| = |R X|, which is also exact to rounding where the score is zero.
Matrices of random directions score about 1 / sqrt(d_model), not 0: ``baseline`` is the mean of random matrices of the same shapes, drawn
here, ``excess`` what is above it, ``notable`` a pair above what the best of as many random pairs reaches with probability ``level``.

The norm before the reader is part of what it reads: with ``fold_norm`` its gain is multiplied into the reader's matrices and, for a layer
norm, the mean is taken out. Biases, the norm's scale and rotary turns (which depend on the distance of two tokens) are left out.

Source: Elhage et al., A Mathematical Framework for Transformer Circuits, 2021 (section "Three kinds of composition").
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from probes.attention import check_cells
from probes.panels import joined
from probes.places import prefix_of, stack_of
from probes.read_out import depth_of, weight_or_none
from probes.target import model_dtype
from probes.token_items import origin
from workbench.core.charts.heat import grid
from workbench.core.errors import BadValue, Incompatible
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.spec import Spec

KINDS = ("Q", "K", "V")
SHOWN = 24
"""Heads on a side of a chart at most."""


class CompositionScoresSpec(Spec):
    """Which layers, how the norm counts, and what the null is made of."""

    layers: tuple[int, ...] | None = Field(default=None, description="layers, counted from 0, two at least; None is all")
    stack: str = Field(default="", description="whose layers, in a family of several stacks; '' is the first")
    fold_norm: bool = Field(default=True, description="multiply the norm's gain (and a layer norm's centring) into the reader")
    draws: int = Field(default=400, ge=20, description="pairs of random matrices drawn")
    level: float = Field(default=0.01, gt=0, lt=1, description="chance that random matrices have one notable pair of any kind")
    seed: int = Field(default=0, ge=0, description="seed of the random matrices")
    max_cells: int = Field(default=20_000_000, ge=1, description="numbers kept at most")


# --- the maths ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heads:
    """The matrices of some heads in float64, each as it is read: ``W_Q``, ``W_K``, ``W_V`` ``[head, d_model, d_head]``, ``W_O``
    ``[head, d_head, d_model]``."""

    q: Float[Tensor, "head d_model d_head"]
    k: Float[Tensor, "head d_model d_head"]
    v: Float[Tensor, "head d_model d_head"]
    o: Float[Tensor, "head d_head d_model"]

    def written(self) -> Float[Tensor, "head small d_model"]:
        """``R W_O`` with ``W_V = Q R``: as long as W_OV in every product from the right."""
        return triangle(self.v) @ self.o

    def readers(self) -> dict[str, tuple[Tensor, Tensor]]:
        """For each kind the matrix ``[head, d_model, d_head]`` that reads and the small one ``[head, small, d_head]`` that the rest is
        as long as: ``|X W_Q W_K^T| = |X W_Q R^T|``."""
        last = triangle(self.o.transpose(1, 2))
        return {"Q": (self.q, triangle(self.k)), "K": (self.k, triangle(self.q)), "V": (self.v, last)}


def triangle(matrix: Float[Tensor, "head tall thin"]) -> Float[Tensor, "head small thin"]:
    """The R of ``matrix = Q R``."""
    return torch.linalg.qr(matrix, mode="r").R


def scores(writers: Heads, readers: Heads) -> Float[Tensor, "kind writer reader"]:
    """The composition of every writer with every reader; NaN where a head's matrices are zero."""
    written = writers.written()
    length = written.flatten(1).norm(dim=1)
    out = []
    for into, rest in readers.readers().values():
        meets = torch.einsum("wsm,rmd->wrsd", written, into)
        product = torch.einsum("wrsd,rtd->wrst", meets, rest).flatten(2).norm(dim=2)
        own = torch.einsum("rsd,rtd->rst", triangle(into), rest).flatten(1).norm(dim=1)
        out.append(product / (length[:, None] * own[None, :]))
    return torch.stack(out)


def heads_of(model: HookedModel, stack: str, layer: int, *, fold_norm: bool) -> Heads:
    """A layer's heads; with grouped keys and values each head has those of its group. Raises BadValue for NaN or infinity."""
    at = f"{prefix_of(stack)}blocks.{layer}."
    q, k, v, o = (model.weight(f"{at}attn.W_{word}").double().cpu() for word in "QKVO")
    k, v = (one.repeat_interleave(len(q) // len(one), 0) for one in (k, v))
    if not all(bool(torch.isfinite(one).all()) for one in (q, k, v, o)):
        raise BadValue(f"the weights of '{at}attn'", "NaN or infinity", "finite numbers", do="The weights are broken.")
    if fold_norm and f"{at}ln1.hook_scale" in model.sites():
        gain, shift = (weight_or_none(model, f"{at}ln1.{letter}") for letter in "wb")
        if gain is None:
            raise Incompatible("composition-scores", f"this {model.family} model", [f"'{at}ln1.w' cannot be read"],
                               do="Set fold_norm to false.")  # fmt: skip
        q, k, v = (one * gain.cpu()[:, None] for one in (q, k, v))
        if shift is not None:  # a layer norm
            q, k, v = (one - one.mean(1, keepdim=True) for one in (q, k, v))
    return Heads(q, k, v, o)


def random_scores(like: Heads, draws: int, seed: int) -> Float[Tensor, "kind draw"]:
    """The scores of pairs of heads whose matrices are standard normal, of the same shapes."""
    made = torch.Generator().manual_seed(seed)
    wide, thin = like.q.shape[1:]
    out = []
    for _ in range(draws):
        drawn = [torch.randn(2, wide, thin, generator=made, dtype=torch.float64) for _ in range(4)]
        one, two = (Heads(drawn[0][[i]], drawn[1][[i]], drawn[2][[i]], drawn[3][[i]].transpose(1, 2)) for i in (0, 1))
        out.append(scores(one, two)[:, 0, 0])
    return torch.stack(out, 1)


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: CompositionScoresSpec, progress: Progress) -> CompositionScoresResult:
    """Score every pair. Raises BadValue for layers that are not there and for inputs, of which there are none."""
    given = [name for name, value in vars(inputs).items() if value is not None]
    if given:
        raise BadValue(f"inputs.{given[0]}", "given", "left out: this instrument reads weights alone")
    stack = stack_of(model, spec.stack)
    layers = _layers(model, stack, spec)
    each = [heads_of(model, stack, layer, fold_norm=spec.fold_norm) for layer in layers]
    n_heads = len(each[0].q)
    names = [f"L{layer}H{head}" for layer in layers for head in range(n_heads)]
    check_cells(len(KINDS) * len(names) ** 2, spec.max_cells, "composition scores")
    found = torch.full((len(KINDS), len(names), len(names)), float("nan"), dtype=torch.float64)
    for late in range(1, len(layers)):
        for early in range(late):
            found[:, early * n_heads : (early + 1) * n_heads, late * n_heads : (late + 1) * n_heads] = scores(each[early], each[late])
        progress(late, len(layers) - 1, "layers")
    null = random_scores(each[0], spec.draws, spec.seed).numpy()
    pairs = len(KINDS) * len(layers) * (len(layers) - 1) // 2 * n_heads**2
    baseline, spread = null.mean(1), null.std(1, ddof=1)
    bar = np.maximum(baseline + NormalDist().inv_cdf(1 - spec.level / pairs) * spread, null.max(1))
    score = found.numpy()
    where = ("composition", "writer", "reader")
    values = xr.Dataset(
        {
            "score": (where, score),
            "excess": (where, score - baseline[:, None, None]),
            "notable": (where, score > bar[:, None, None]),
            "baseline": ("composition", baseline),
            "baseline_sd": ("composition", spread),
            "bar": ("composition", bar),
        },
        coords={"composition": list(KINDS), "writer": names, "reader": names},
    )
    return CompositionScoresResult(
        kind=INSTRUMENT.name,
        values=values,
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed, dtype=model_dtype(model)),
        notes=_notes(model, stack, spec, score, pairs),
    )


def _layers(model: HookedModel, stack: str, spec: CompositionScoresSpec) -> list[int]:
    count = depth_of(model, stack)
    chosen = sorted(set(range(count) if spec.layers is None else spec.layers))
    if len(chosen) < 2 or chosen[0] < 0 or chosen[-1] >= count or (spec.layers is not None and len(chosen) != len(spec.layers)):
        raise BadValue("layers", list(spec.layers or range(count)), f"two or more different numbers from 0 to {count - 1}")
    if f"{prefix_of(stack)}blocks.0.modulation.hook_attn_gate" in model.sites():
        raise Incompatible("composition-scores", f"the stack '{stack}' of this {model.family} model",
                           ["what a layer writes and reads there is scaled by a condition, which weights alone do not tell"],
                           do="Choose another stack.")  # fmt: skip
    return chosen


def _notes(model: HookedModel, stack: str, spec: CompositionScoresSpec, score: np.ndarray, pairs: int) -> tuple[str, ...]:
    out = ["The norm's gain was folded into the readers." if spec.fold_norm else "Weights are as they are: no norm was folded in."]
    if f"{prefix_of(stack)}blocks.0.attn.hook_rot_q" in model.sites():
        out.append("Rotary turns are left out: Q and K scores are those of tokens at one position.")
    if dead := pairs - int(np.isfinite(score).sum()):
        out.append(f"{dead} pairs have no score: a head's matrices are zero there.")
    return tuple(out)


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CompositionScoresResult(Result):
    """``score`` (0 to 1) by kind, writer and reader (NaN unless the reader's layer is the later one, or where a head's matrices are zero),
    ``excess`` above the ``baseline`` of random matrices (``baseline_sd`` their spread), ``notable`` above the ``bar``."""

    columns: ClassVar[tuple[str, ...]] = (
        "composition", "writer", "reader", "score", "excess", "notable", "baseline", "baseline_sd", "bar",
    )  # fmt: skip

    def summary(self) -> str:
        """For each kind the strongest pairs, and how many are notable."""
        lines = [f"{self.kind}:"]
        for kind in self.values.composition.values:
            v: Any = self.values.sel(composition=kind)
            frame = v.score.to_dataframe().reset_index().dropna(subset=["score"]).nlargest(3, "score")
            told = ", ".join(f"{row.writer} to {row.reader} {row.score:.3f}" for row in frame.itertuples())
            lines.append(
                f"{kind}: {told} (random matrices {float(v.baseline):.3f} ± {float(v.baseline_sd):.3f}; "
                f"{int(v.notable.values.sum())} of {int(v.score.notnull().sum())} pairs above {float(v.bar):.3f})"
            )
        return "\n".join([*lines, *self.notes])

    def plot(self) -> Any:
        """One grid a kind: writer by reader, what is above the random baseline; the strongest heads where there are many."""
        charts = []
        for kind in self.values.composition.values:
            excess: Any = self.values.excess.sel(composition=kind)
            strength = [np.nan_to_num(np.abs(excess.values), nan=0.0).max(axis) for axis in (1, 0)]
            keep = [np.sort(np.argsort(-s, kind="stable")[:SHOWN]) for s in strength]
            part = excess.isel(writer=keep[0], reader=keep[1]).to_dataframe(name="excess").reset_index()
            words = {"title": f"{kind} composition", "writer": "writes", "reader": "reads", "excess": "above random matrices"}
            charts.append(grid(part[::-1], "writer", "reader", "excess", titles=words))
        return joined(charts, "Composition of heads, above random matrices of the same shapes", columns=1)


INSTRUMENT = Instrument(
    name="composition-scores",
    question="Which heads can write into the query, key or value of which later heads?",
    spec=CompositionScoresSpec,
    needs=Needs(abilities=frozenset({"weights"}), sites=("*blocks.1.attn.hook_pattern",), additive=True, inputs=()),
    compute=compute,
)
