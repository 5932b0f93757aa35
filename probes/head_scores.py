"""Head scores: how much each head behaves as a previous-token, duplicate-token, induction or positional head, and how even its rows are.

With A[q, k] a head's pattern and t the tokens, the score is the mean over queries of the attention on the keys in question:

    previous-token    k = q - 1
    duplicate-token   every k < q with t[k] = t[q]
    induction         every k < q, k >= 1, with t[k - 1] = t[q]: the token after an earlier occurrence of this one

Queries without such a key are not counted; control tokens count neither as query nor as key. Without a batch the instrument
makes sequences [BOS] s s, with s distinct random tokens, on which induction can only come from the repeat. ``uniform`` is the
score of a head that attends evenly to all it may see: the null beside every score. ``positional`` and the entropies are defined in
``probes.head_rows``.

Source: Elhage et al., A Mathematical Framework for Transformer Circuits, 2021 (previous-token, induction); Olsson et al.,
In-context Learning and Induction Heads, 2022 (arXiv:2209.11895; repeated random tokens, prefix matching); Wang et al.,
Interpretability in the Wild, 2022 (arXiv:2211.00593; duplicate-token heads).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from probes.attention import PATTERNS, pattern_passes, pattern_sites
from probes.head_rows import Positional, entropy_sums, offsets_of, positional, ratio_error, seen_keys
from probes.panels import joined
from probes.target import model_dtype
from probes.token_items import TokenItems, control_ids, origin, read_items, vocabulary_size
from workbench.core.charts.heat import grid
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.sites import Site
from workbench.core.spec import Spec

BY_KEY = ("previous-token", "duplicate-token", "induction")
SCORES = (*BY_KEY, "positional")


class HeadScoresSpec(Spec):
    """On what the heads are scored. ``sequences`` and ``period`` are for the random tokens made when no batch is given."""

    sequences: int = Field(default=16, ge=2, description="random sequences")
    period: int = Field(default=25, ge=2, description="random tokens before they are repeated")
    seed: int = Field(default=0, ge=0, description="seed of the random tokens")
    bos: bool = Field(default=True, description="put a BOS before text and random tokens, where the tokenizer has one")
    tokens_a_pass: int = Field(default=4096, ge=1, description="tokens in one forward pass at most")


# --- compute ------------------------------------------------------------------------------------------------


def repeated_random(model: HookedModel, spec: HeadScoresSpec) -> Tensor:
    """Ids ``[sequences, (1 +) 2 * period]``: a BOS where there is one, then distinct random tokens twice.

    Raises BadValue where the vocabulary has too few tokens or the context is too short.
    """
    size = vocabulary_size(model)
    if size is None:
        raise BadValue("inputs.batch", None, "given, because the model's config does not tell its vocabulary")
    special = control_ids(model.tokenizer)
    usable = np.setdiff1d(np.arange(size), special)
    if spec.period > len(usable):
        raise BadValue("period", spec.period, f"at most the {len(usable)} tokens of the vocabulary that are no control tokens")
    bos = model.tokenizer.bos_id if model.tokenizer is not None and spec.bos else None
    context, length = getattr(model.config, "n_ctx", None), 2 * spec.period + (bos is not None)
    if context is not None and length > context:
        raise BadValue("period", spec.period, f"at most {(context - (bos is not None)) // 2}: its repeat must fit the context of {context}")
    rng = np.random.default_rng(spec.seed)
    once = np.stack([rng.choice(usable, spec.period, replace=False) for _ in range(spec.sequences)])
    rows = np.concatenate([once, once], axis=1)
    if bos is not None:
        rows = np.concatenate([np.full((spec.sequences, 1), bos), rows], axis=1)
    return torch.from_numpy(rows).long()


def keys_in_question(items: TokenItems) -> Bool[Tensor, "score batch query key"]:
    """For each score, which keys of which query are meant."""
    ids, width = items.ids, items.ids.shape[1]
    usable = items.real & ~items.control
    both = usable[:, :, None] & usable[:, None, :]
    query, key = torch.arange(width)[:, None], torch.arange(width)[None, :]
    same = ids[:, :, None] == ids[:, None, :]
    after_same = torch.zeros_like(same)
    after_same[:, :, 1:] = (same & both)[:, :, :-1]  # key k where t[k - 1] = t[q], and t[k - 1] is no control token
    return torch.stack([both & (key == query - 1), both & same & (key < query), both & after_same & (key < query)])


def score_patterns(
    patterns: Float[Tensor, "layer batch head query key"], asked: Bool[Tensor, "score batch query key"]
) -> Float[Tensor, "score layer head batch"]:
    """Attention on the keys in question, summed over an item's queries, in float64."""
    return torch.einsum("lbhqk,sbqk->slhb", patterns.double(), asked.double())


def compute(model: HookedModel, inputs: Inputs, spec: HeadScoresSpec, progress: Progress) -> HeadScoresResult:
    """Score every head. Raises BadValue for inputs that cannot be meant."""
    made = inputs.batch is None
    if made:
        if inputs.lengths is not None:
            raise BadValue("inputs.lengths", "given", "left out where no batch is given")
        inputs = replace(inputs, batch=repeated_random(model, spec))
    items = read_items(model, inputs, bos=spec.bos)
    sites = pattern_sites(model, None)
    found = _measure(model, items, sites, spec.tokens_a_pass, progress)
    values = xr.Dataset(
        {
            "attention": (("score", "layer", "head"), np.concatenate([found.score, found.position.score[None]])),
            "se": (("score", "layer", "head"), np.concatenate([found.se, found.position.error[None]])),
            "uniform": ("score", np.append(found.uniform, found.position.uniform)),
            "queries": ("score", np.append(found.queries, found.position.queries)),
            "offset": (("layer", "head"), found.position.offset),
            "entropy": (("layer", "head"), found.entropy[0]),
            "entropy_se": (("layer", "head"), found.entropy[1]),
            "entropy_share": (("layer", "head"), found.entropy[2]),
            "rows": ("layer", found.rows),
            "rows_left_out": ("layer", int(items.real.sum()) - found.rows),
        },
        coords={"score": list(SCORES), "layer": [site.layer for site in sites], "head": np.arange(found.score.shape[2])},
    )
    return HeadScoresResult(
        kind=INSTRUMENT.name,
        values=values,
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed if made else None, dtype=model_dtype(model), ids=items.ids, lengths=items.lengths),
        notes=_notes(made, items, spec, values.queries.values),
    )


@dataclass(frozen=True)
class _Found:
    """By score ``[score, layer, head]``, of positions, and entropy: its mean, its error, its mean share ``[3, layer, head]``."""

    score: Float[np.ndarray, "score layer head"]
    se: Float[np.ndarray, "score layer head"]
    uniform: Float[np.ndarray, " score"]
    queries: np.ndarray
    position: Positional
    entropy: Float[np.ndarray, "3 layer head"]
    rows: np.ndarray


def _measure(model: HookedModel, items: TokenItems, sites: Sequence[Site], tokens_a_pass: int, progress: Progress) -> _Found:
    """One pass over the items: patterns are reduced and not kept."""
    asked, seen = keys_in_question(items), seen_keys(model, items, sites)
    offsets = offsets_of(items.real & ~items.control, asked[1:].any(-1).any(0), seen)
    kept: list[tuple[Tensor, ...]] = []
    for part, patterns in pattern_passes(model, items, sites, tokens_a_pass, progress):
        real = items.real[part]
        visible = seen[:, None] & real[:, None, :] & real[:, :, None]  # layer batch query key
        room = visible.sum(-1)
        even = (visible.double() / room.clamp_min(1)[..., None])[
            :, :, None
        ]  # a head that attends evenly: the null, as the mean of the layers
        flat = [score_patterns(even, asked[:, part]), offsets.sums(even, part)]
        flat = [one.mean((1, 2)) for one in flat]
        kept.append((score_patterns(patterns, asked[:, part]), offsets.sums(patterns, part), *flat, *entropy_sums(patterns, room),
                     (room > 1).sum(-1)[:, None]))  # fmt: skip
    sums, at_offset, flat, flat_at, entropy, share, rows = (torch.cat(parts, -1).double().numpy() for parts in zip(*kept, strict=True))
    queries = asked.any(-1).sum(-1).double().numpy()  # score batch
    total = queries.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        score, uniform = sums.sum(-1) / total[:, None, None], flat.sum(-1) / total
        means = [each.sum(-1) / rows.sum(-1) for each in (entropy, share)]
    return _Found(
        score,
        ratio_error(sums, queries[:, None, None]),
        uniform,
        total.astype(np.int64),
        positional(at_offset, flat_at, offsets),
        np.stack([means[0], ratio_error(entropy, rows), means[1]]),
        rows.sum((1, 2)).astype(np.int64),
    )


def _notes(made: bool, items: TokenItems, spec: HeadScoresSpec, total: np.ndarray) -> tuple[str, ...]:
    out = []
    if made:
        start = "a BOS and " if bool(items.control[:, 0].all()) else ""
        out.append(f"Scored on {len(items)} sequences of {start}{spec.period} distinct random tokens, repeated once.")
    else:
        out.append(f"Scored on the {len(items)} sequences given.")
    out += [f"No query has a key for '{name}': that score is not defined here." for name, n in zip(SCORES, total, strict=True) if n == 0]
    return tuple(out)


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeadScoresResult(Result):
    """``attention`` mean attention on the keys in question (0 to 1), its ``se`` over sequences, ``uniform`` the same for
    an even head, ``queries`` how many were counted. NaN where no query counts. ``offset`` (key minus query) is where the positional score
    was found. Of each head's rows, ``entropy`` (nats) with its ``entropy_se``, and ``entropy_share`` of the most they could have;
    ``rows`` were counted, ``rows_left_out`` may see a single key."""

    columns: ClassVar[tuple[str, ...]] = (
        "score", "layer", "head", "attention", "se", "uniform", "queries", "offset", "entropy", "entropy_se", "entropy_share", "rows",
        "rows_left_out",
    )  # fmt: skip

    def summary(self) -> str:
        """The strongest head of each kind beside the even head."""
        lines = [f"{self.kind}:"]
        for name in SCORES:
            part: Any = self.values.sel(score=name)
            if int(part.queries) == 0:
                lines.append(f"{name}: no query has such a key")
                continue
            layer, head = np.unravel_index(int(part.attention.values.argmax()), part.attention.shape)
            lines.append(
                f"{name}: layer {int(part['layer'][layer])} head {int(part['head'][head])} with {float(part.attention.values.max()):.2f}"
                f"{f' at offset {int(part.offset.values[layer, head]):+d} ' if name == 'positional' else ' '}"
                f"(an even head: {float(part.uniform):.2f}; {int(part.queries)} queries)"
            )
        return "\n".join([*lines, self._evenness(), *self.notes])

    def _evenness(self) -> str:
        """How sharp the sharpest head is, and how even the evenest."""
        v: Any = self.values
        share = v.entropy_share.values
        if not np.isfinite(share).any():
            return "entropy: no row may see two keys"
        ends = [np.unravel_index(int(find(share)), share.shape) for find in (np.nanargmin, np.nanargmax)]
        said = [
            f"layer {int(v['layer'][layer])} head {int(v['head'][head])} with {v.entropy.values[layer, head]:.2f} nats "
            f"({share[layer, head]:.0%} of the most)"
            for layer, head in ends
        ]
        rows, out = int(v.rows.values.max()), int(v.rows_left_out.values.min())
        return f"entropy: from {said[0]} to {said[1]}, over {rows} rows ({out} that may see one key left out)"

    def plot(self) -> Any:
        """One layer-by-head grid a score."""
        frame = self.to_frame()
        grids = [
            grid(frame.query("score == @name"), "head", "layer", "attention", titles={"title": f"{name} score"}, signed=False)
            for name in SCORES
        ]
        even = {"title": "entropy, of the most it could be", "entropy_share": "share"}
        grids.append(grid(frame.query("score == 'positional'"), "head", "layer", "entropy_share", titles=even, signed=False))
        return joined(grids, "Attention of each head on the keys in question, and how even it is", columns=3)


INSTRUMENT = Instrument(
    name="head-scores",
    question="Which heads attend to the previous token, to duplicates, to what followed an earlier occurrence, or by position alone?",
    spec=HeadScoresSpec,
    needs=Needs(reads=("tokens",), sites=(PATTERNS,), inputs=()),
    compute=compute,
)
