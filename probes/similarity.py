"""How alike layers are, within a model and between models, and where two models part: linear CKA, Procrustes distance, differences.

Sites are compared by what they say of the same tokens (``probes.alignment``): every site with every site of the model itself, and of each
other model given: a fine-tuned one, a checkpoint, one of another seed, an untrained copy. Where another model has the same sites, its
activations are also held against the model's axis by axis. Beside every number stands what it is where tokens are dealt anew.

Source: Kornblith, Norouzi, Lee and Hinton, Similarity of Neural Network Representations Revisited, ICML 2019 (arXiv:1905.00414). Ding,
Denain and Steinhardt, Grounding Representation Similarity with Statistical Testing, NeurIPS 2021 (arXiv:2108.01661).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from probes.alignment import DIFFERENCES, MEASURES, Own, differences, jackknife, measures, own, sums, unvarying
from probes.places import noise_note
from probes.similarity_read import ITSELF, Rows, blocks_of, check_same, features, others_of, read_rows, sites_in
from probes.similarity_result import SimilarityResult
from probes.target import model_dtype
from probes.token_items import origin
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.spec import Spec

BOUNDS = {"cka": (0.0, 1.0), "cka_debiased": (-1.0, 1.0), "procrustes": (0.0, 2**0.5), "relative": (0.0, np.inf),
          "explained": (-np.inf, 1.0), "shift": (0.0, 1.0)}  # fmt: skip
FEW = 10
"""Tokens a feature below which the bias of CKA is said to matter."""


class SimilaritySpec(Spec):
    """What is compared, on which tokens, and with which null."""

    sites: tuple[str, ...] = Field(
        default=("*blocks.0.hook_resid_pre", "*blocks.*.hook_resid_post"), min_length=1, description="names or globs of sites"
    )
    stack: str = Field(default="", description="the stack compared, of a model with several; '' takes the first")
    controls: bool = Field(default=False, description="compare control tokens too, which are the same in every item and often far out")
    draws: int = Field(default=5, ge=1, le=1000, description="how often tokens are dealt anew for the null")
    blocks: int = Field(default=10, ge=4, le=100, description="blocks of sentence groups that are left out in turn for the intervals")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="level of the intervals")
    seed: int = Field(default=0, ge=0, description="seed of blocks and null")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=200_000_000, ge=1, description="numbers of features kept at most, of all models together")
    tokens_a_pass: int = Field(default=16384, ge=1, description="tokens in one forward pass at most")


# --- compute ------------------------------------------------------------------------------------------------


@dataclass
class Side:
    """One model's vectors by site, and what each brings to every pair."""

    x: dict[str, Float[Tensor, "token feature"]]
    still: list[str]
    whole: dict[str, Own] = field(default_factory=dict)
    undivided: dict[str, Own] = field(default_factory=dict)


def compute(model: HookedModel, inputs: Inputs, spec: SimilaritySpec, progress: Progress) -> SimilarityResult:
    """Compare all pairs of sites. Raises BadValue for inputs that cannot be meant, Incompatible for a model that reads them otherwise,
    and EmptySelection for sites that are not there."""
    rows, others = read_rows(model, inputs, spec), others_of(model, inputs.reference)
    for name, other in others.items():
        check_same(model, other, name, inputs, rows, spec)
    block = blocks_of(rows.groups, spec.blocks, spec.seed)
    every, left = {ITSELF: model, **others}, spec.max_cells
    sides: dict[str, Side] = {}
    for name, one in every.items():
        found = features(one, rows, sites_in(one, rows, spec), spec, left)
        left -= sum(x.numel() for x in found.values())
        sides[name] = _side(found, block)
    pairs: dict[tuple[str, str, str], np.ndarray] = {}
    done, total = 0, sum(len(sides[ITSELF].x) * len(side.x) for side in sides.values())
    deals = _deals(rows.tokens, spec)
    for name, side in sides.items():
        for a in sides[ITSELF].x:
            for b in side.x:
                twin = pairs.get((ITSELF, b, a)) if name == ITSELF else None  # all measures are the same either way round
                pairs[name, a, b] = _pair(sides[ITSELF], a, side, b, block, deals) if twin is None else twin
                done += 1
                progress(done, total, "pairs")
    digests = {f"other.{name}": one.digest() for name, one in others.items()}
    return SimilarityResult(
        kind=INSTRUMENT.name,
        values=_values(sides, pairs, {name: _apart(sides[ITSELF], side, block, deals) for name, side in sides.items()}, rows, spec),
        spec=spec.model_dump(mode="json"),
        provenance=origin(
            model, seed=spec.seed, dtype=model_dtype(model), groups=rows.groups, kept=rows.kept, **rows.items.data(), **digests
        ),
        notes=(*_notes(model, others, sides, rows, block), *noise_note(rows.items)),
    )  # fmt: skip


def _side(found: dict[str, Tensor], block: Tensor) -> Side:
    still = [name for name, x in found.items() if unvarying(x)]
    one = torch.zeros_like(block)
    varies = {name: x for name, x in found.items() if name not in still}
    return Side(found, still, {name: own(x, block) for name, x in varies.items()}, {name: own(x, one) for name, x in varies.items()})


def _deals(tokens: int, spec: SimilaritySpec) -> list[Int[Tensor, " token"]]:
    draw = torch.Generator().manual_seed(spec.seed)
    return [torch.randperm(tokens, generator=draw) for _ in range(spec.draws)]


def _pair(left: Side, a: str, right: Side, b: str, block: Tensor, deals: list[Tensor]) -> np.ndarray:
    """``[measure, version and null]``: all tokens, all but each block, and last the mean over dealt tokens; NaN where a side is still."""
    versions = int(block.max()) + 2 if bool(block.any()) else 1
    if a in left.still or b in right.still:
        return np.full((len(MEASURES), versions + 1), np.nan)
    x, y, one = left.x[a], right.x[b], torch.zeros_like(block)
    seen = measures(sums(x, y, block), left.whole[a], right.whole[b])
    null = np.mean([measures(sums(x, y[deal], one), left.undivided[a], right.undivided[b])[:, 0] for deal in deals], axis=0)
    return np.concatenate([seen, null[:, None]], axis=1)


def _apart(base: Side, other: Side, block: Tensor, deals: list[Tensor]) -> dict[str, np.ndarray]:
    """By site that both have with the same width: ``[measure, version and null]`` of the differences; nothing of a side with itself."""
    out = {}
    for site, x in base.x.items():
        y = other.x.get(site)
        if other is base or y is None or y.shape != x.shape or site in base.still or site in other.still:
            continue
        null = np.mean([differences(x, y[deal], torch.zeros_like(block))[:, 0] for deal in deals], axis=0)
        out[site] = np.concatenate([differences(x, y, block), null[:, None]], axis=1)
    return out


def _values(
    sides: dict[str, Side], pairs: dict[tuple[str, str, str], np.ndarray], apart: dict[str, dict[str, np.ndarray]], rows: Rows,
    spec: SimilaritySpec,
) -> xr.Dataset:  # fmt: skip
    names, sites = list(sides), list(sides[ITSELF].x)
    far = list(dict.fromkeys(site for side in sides.values() for site in side.x))
    versions = next(iter(pairs.values())).shape[1]
    whole = np.full((len(MEASURES), len(names), len(sites), len(far), versions), np.nan)
    by_site = np.full((len(DIFFERENCES), len(names), len(sites), versions), np.nan)
    for n, name in enumerate(names):
        for s, site in enumerate(sites):
            for f, other in enumerate(far):
                if (found := pairs.get((name, site, other))) is not None:
                    whole[:, n, s, f] = found
            if site in apart[name]:
                by_site[:, n, s] = apart[name][site]
    out: dict[str, Any] = {}
    for labels, dims, values in ((MEASURES, ("other", "site", "other_site"), whole), (DIFFERENCES, ("other", "site"), by_site)):
        for label, found in zip(labels, values, strict=True):
            value, low, high = jackknife(found[..., :-1], spec.level)
            least, most = BOUNDS[label]
            ends = {f"{label}_low": low, f"{label}_high": high}
            out |= {label: (dims, value), **{name: (dims, np.clip(end, least, most)) for name, end in ends.items()}}
            out[f"{label}_null"] = (dims, found[..., -1])
    out |= {"tokens": ((), rows.tokens), "groups": ((), len(np.unique(rows.groups)))}
    out["width"] = ("site", np.array([sides[ITSELF].x[site].shape[1] for site in sites]))
    return xr.Dataset(
        out, coords={"other": names, "site": sites, "other_site": far, "depth": ("site", np.arange(len(sites))),
                     "other_depth": ("other_site", np.arange(len(far)))},
    )  # fmt: skip


def _notes(model: HookedModel, others: dict[str, HookedModel], sides: dict[str, Side], rows: Rows, block: Tensor) -> tuple[str, ...]:
    out = []
    if not others:
        out.append("No other model was given: layers are compared within the model alone.")
    out += [f"'{name}' has the very weights of the model." for name, other in others.items() if other.digest() == model.digest()]
    if not bool(block.any()):
        out.append(f"{len(np.unique(rows.groups))} sentence groups are too few for intervals.")
    widest = max(x.shape[1] for side in sides.values() for x in side.x.values())
    if rows.tokens < FEW * widest:
        out.append(f"{rows.tokens} tokens for up to {widest} features: CKA without the correction is biased upward. Read cka_debiased.")
    for name, side in sides.items():
        if side.still:
            out.append(f"Nothing varies at {', '.join(side.still)} of {'the model' if name == ITSELF else name}: not compared.")
    return tuple(out)


INSTRUMENT = Instrument(
    name="similarity",
    question="How alike are layers, within a model and between models, and where do two models part?",
    spec=SimilaritySpec,
    needs=Needs(inputs=("batch",), sites=("*blocks.*",), reference="models"),
    compute=compute,
    items=96,
)
