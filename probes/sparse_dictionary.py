"""A sparse dictionary of one site: how much of the model's working it keeps, and what its features are.

A dictionary is read from a folder, or trained here on some of the sentences (``probes.dictionaries``); every number is of the others:

    recovered        share of the loss that ablation would cost and the reconstruction does not, against zero and against the mean
    explained        1 - squared error / squared distance to the mean, over all tokens and coordinates
    active           features active at a token (L0); share of features that never are (dead), and that are almost always (dense)

Beside each stand the same training with the decoder's directions *frozen* as they were drawn, and *random* directions with nothing trained:
what they reach too is no merit of the dictionary's directions. Nothing here says that a feature is what a person would call a concept, or
that the model uses it: change it (``direction``) and look.

Sources: Gao et al. 2024 (arXiv:2406.04093), Bussmann et al. 2024 (arXiv:2412.06410), Rajamanoharan et al. 2024 (arXiv:2404.16014 and
2407.14435); transcoders: Dunefsky et al. 2024 (arXiv:2406.11944); loss recovered against zero and mean, and the baselines: Bricken et al.,
Towards Monosemanticity, 2023; Korznikov et al. 2026 (arXiv:2602.14111).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
import xarray as xr
from pydantic import Field
from torch import Tensor

from probes.attention import check_cells
from probes.dictionaries.baselines import random_twin
from probes.dictionaries.dictionary import Dictionary
from probes.dictionaries.evaluation import Losses, Tally, losses, rows_at
from probes.dictionaries.files import HEAD, check_fits, load
from probes.dictionaries.spec import DictionarySpec, Kind, Origin, TrainingSpec
from probes.dictionaries.training import train
from probes.probe_labels import held_out, sentence_groups
from probes.target import model_dtype
from probes.token_items import TokenItems, origin, read_items
from workbench.core.charts.lines import bars_with_interval
from workbench.core.errors import BadValue, UnknownName
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress, silent
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.resampling import bootstrap, fewest, ratio

TRAINED, FROZEN, RANDOM = "trained", "frozen", "random"
ABLATIONS = ("zero", "mean")
TOP, CONTEXT = 5, 6
"""Tokens a feature promotes or suppresses that are told, and tokens of context before an example."""


class SparseDictionarySpec(Spec):
    """Which site, which dictionary, and how it is trained where none is given."""

    site: str = Field(default="", description="what is read; '' is the stream after the middle layer")
    site_out: str = Field(default="", description="what is rebuilt, for a transcoder; '' is the site that is read")
    dictionary: str = Field(default="", description="folder of a trained dictionary; '' trains one on some of the items")
    kind: Kind = Field(default="topk", description="topk, batch-topk, jumprelu or gated")
    d_sae: int = Field(default=0, ge=0, description="features; 0 is four times the width of the site")
    k: int = Field(default=8, ge=1, description="features active at a token: exactly (topk) or on average")
    steps: int = Field(default=1000, ge=1, description="training steps")
    rows: int = Field(default=256, ge=1, description="tokens in a step")
    lr: float | None = Field(default=None, gt=0, le=1, description="rate of Adam; None is 2e-4 / sqrt(d_sae / 2**14)")
    test_share: float = Field(default=0.3, gt=0, lt=1, description="share of sentence groups scored and never trained on")
    dense: float = Field(default=0.1, gt=0, lt=1, description="share of tokens above which a feature counts as dense")
    shown: int = Field(default=12, ge=1, description="features shown: those that add most")
    examples: int = Field(default=5, ge=1, description="tokens shown of each, where it is strongest")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="level of the intervals")
    resamples: int = Field(default=1000, ge=400, description="bootstrap resamples of sentence groups")
    seed: int = Field(default=0, ge=0, description="seed of split, first weights, draws and bootstrap")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=100_000_000, ge=1, description="numbers of activations kept for training at most")
    tokens_a_pass: int = Field(default=4096, ge=1, description="tokens in one forward pass at most")


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: SparseDictionarySpec, progress: Progress) -> SparseDictionaryResult:
    """Train where no dictionary is given, and score. Raises BadValue for inputs that cannot be meant, Incompatible for a dictionary of
    another model or site."""
    for name in ("targets", "foils"):
        if getattr(inputs, name) is not None:
            raise BadValue(f"inputs.{name}", "given", "left out: the loss is of the tokens that follow")
    items = read_items(model, inputs, bos=spec.bos)
    sites = _sites(model, spec)
    groups = sentence_groups(items, inputs.groups)
    if spec.dictionary:
        found, trained_on = _read(model, spec, sites), 0
        chosen = list(range(len(items)))
    else:
        test = held_out(groups, spec.test_share, spec.seed, "different sentences or groups")
        chosen = [i for i in range(len(items)) if groups[i] in test]
        found, trained_on = _trained(model, items, [i for i in range(len(items)) if groups[i] not in test], spec, sites, progress)
    mean = rows_at(model, items, chosen, sites[1:], spec.tokens_a_pass, silent)[0].double().mean(0)
    tallies = {name: Tally(d, spec.examples if name == TRAINED else 0) for name, d in found.items()}
    tallies[RANDOM] = Tally(random_twin(found[TRAINED], _active(model, items, chosen, found[TRAINED], spec, sites), spec.seed + 1))
    scored = losses(model, items, chosen, tallies, sites, mean, spec.tokens_a_pass, progress)
    if not int(scored.tokens.sum()):
        raise BadValue("the tokens that follow", 0, "at least one", do="Give items of two tokens or more.")
    values, notes = _values(scored, tallies, groups[chosen], trained_on, spec)
    values |= _shown(model, items, tallies[TRAINED], spec)
    return SparseDictionaryResult(
        kind=INSTRUMENT.name,
        values=xr.Dataset(values, coords={"dictionary": list(tallies), "ablation": list(ABLATIONS)}),
        spec=spec.model_dump(mode="json"),
        provenance=origin(
            model, seed=spec.seed, dtype=model_dtype(model), groups=groups, **items.data(),
            **{f"{name}.{key}": value for name, d in found.items() for key, value in d.state_dict().items()},
        ),
        notes=(*_notes(items, spec, sites, trained_on, tallies), *notes),
    )  # fmt: skip


def _sites(model: HookedModel, spec: SparseDictionarySpec) -> tuple[str, str]:
    """The site that is read and the one that is rebuilt. Raises BadValue for one that has not one vector a token."""
    table = model.sites()
    depth = 1 + max((site.layer for site in table.values() if site.layer is not None), default=0)
    names = spec.site or f"blocks.{depth // 2}.hook_resid_post", spec.site_out
    for name in filter(None, names):
        if name not in table:
            table[name]  # raises, with the nearest names
        if table[name].axes[:2] != ("batch", "pos") or len(table[name].axes) != 3:
            raise BadValue(f"the axes of site '{name}'", table[name].axes, "batch, pos and one more: a dictionary reads one vector a token")
    return names[0], names[1] or names[0]


def _read(model: HookedModel, spec: SparseDictionarySpec, sites: tuple[str, str]) -> dict[str, Dictionary]:
    """The dictionary of a folder and, where it is kept inside, its twin with a frozen decoder."""
    out = {TRAINED: load(spec.dictionary).dictionary}
    inside = Path(spec.dictionary) / FROZEN
    if (inside / HEAD).is_file():
        out[FROZEN] = load(inside).dictionary
        if out[FROZEN].spec.d_sae != out[TRAINED].spec.d_sae:
            raise BadValue(f"the features of '{inside}'", out[FROZEN].spec.d_sae, f"{out[TRAINED].spec.d_sae}, as those of its twin")
    for d in out.values():
        check_fits(d, model, sites[0], sites[1] if sites[1] != sites[0] else "")
    return out


def trained_alone(model: HookedModel, inputs: Inputs, spec: SparseDictionarySpec, progress: Progress = silent) -> Dictionary:
    """The dictionary that ``compute`` would train, on all of the items, without its twin. Raises BadValue as ``compute`` does."""
    items = read_items(model, inputs, bos=spec.bos)
    return _trained(model, items, list(range(len(items))), spec, _sites(model, spec), progress, names=(TRAINED,))[0][TRAINED]


def _trained(
    model: HookedModel, items: TokenItems, chosen: list[int], spec: SparseDictionarySpec, sites: tuple[str, str], progress: Progress,
    names: tuple[str, ...] = (TRAINED, FROZEN),
) -> tuple[dict[str, Dictionary], int]:  # fmt: skip
    """A dictionary and its twin with a frozen decoder, trained on the chosen items' tokens; how many those are."""
    paired = sites[0] != sites[1]
    rows = rows_at(model, items, chosen, sites if paired else sites[:1], spec.tokens_a_pass, progress)
    check_cells(sum(part.numel() for part in rows), spec.max_cells, "activations")
    if not len(rows[0]):
        raise BadValue("the tokens to train on", 0, "at least one that is no control token")
    width = rows[0].shape[1]
    told = {"kind": spec.kind, "d_in": width, "d_sae": spec.d_sae or 4 * width, "k": spec.k, "d_out": rows[1].shape[1] if paired else None}
    shape = DictionarySpec.parse(told)
    about = Origin(model=model.family, model_digest=model.digest(), site=sites[0], site_out=sites[1] if paired else "")
    out: dict[str, Dictionary] = {}
    for number, name in enumerate(names):
        d = Dictionary(shape, seed=spec.seed, origin=about)
        d.to(rows[0].dtype if rows[0].dtype in (torch.float32, torch.float64) else torch.float32)
        settings = TrainingSpec(
            steps=spec.steps, rows=spec.rows, lr=spec.lr, frozen=name == FROZEN, seed=spec.seed, dead_after=max(1, 40 * spec.rows),
            resample_every=max(1, spec.steps // 8),
        )  # fmt: skip
        heard = lambda done, total, words="", past=number: progress(past * total + done, len(names) * total, words)  # noqa: E731
        train(d, lambda first: draws(rows, spec.rows, spec.seed, first), settings, progress=heard)
        out[name] = d
    return out, len(rows[0])


def draws(rows: list[Tensor], size: int, seed: int, first: int) -> Iterator[Any]:
    """Batches drawn from rows with replacement, from batch ``first`` on; batch i is always the same."""
    number = first
    while True:
        draw = torch.Generator().manual_seed((seed << 32) + number)
        at = torch.randint(0, len(rows[0]), (size,), generator=draw)
        batch = [part[at].float() if part.dtype not in (torch.float32, torch.float64) else part[at] for part in rows]
        yield (batch[0], batch[1]) if len(batch) > 1 else batch[0]
        number += 1


def _active(
    model: HookedModel, items: TokenItems, chosen: list[int], d: Dictionary, spec: SparseDictionarySpec, sites: tuple[str, str]
) -> float:
    """How many features the dictionary has active at a token, so that random directions are given as many."""
    if d.spec.kind == "topk":
        return float(d.spec.k)
    rows = rows_at(model, items, chosen, sites[:1], spec.tokens_a_pass, silent)[0]
    with torch.no_grad():
        counts = [(d.encode(part.to(d.decoder)) > 0).sum() for part in rows.split(2048)]
    return float(sum(counts)) / len(rows)


# --- scores ---------------------------------------------------------------------------------------------------


def _values(
    scored: Losses, tallies: dict[str, Tally], groups: np.ndarray, trained_on: int, spec: SparseDictionarySpec
) -> tuple[dict[str, Any], list[str]]:
    total, tokens = scored.total.numpy(), scored.tokens.numpy()
    own, ablated, kept = total[0], total[1:3], total[3:]
    per = lambda sums: sums.sum(-1) / tokens.sum()  # noqa: E731
    recovered, notes = np.full((3, len(tallies), 2), np.nan), []
    for a, name in enumerate(ABLATIONS):
        cost = _interval(ablated[a] - own, tokens, groups, spec)
        if not (cost[1] > 0 or (np.isnan(cost[1]) and cost[0] > 1e-6)):
            notes.append(
                f"Ablation by {name} costs {cost[0]:.2g} nats a token here, not surely more than nothing: nothing can be recovered."
            )
            continue
        for n in range(len(tallies)):
            recovered[:, n, a] = _interval(ablated[a] - kept[n], ablated[a] - own, groups, spec)
    both = ("dictionary", "ablation")
    of = lambda read: ("dictionary", np.array([read(tally) for tally in tallies.values()], dtype=float))  # noqa: E731
    values: dict[str, Any] = {f"recovered{end}": (both, recovered[i]) for i, end in enumerate(("", "_low", "_high"))}
    values |= {
        "loss": ("dictionary", per(kept)), "own_loss": per(own), "ablated_loss": ("ablation", per(ablated)),
        "explained": of(lambda t: t.explained), "active": of(lambda t: t.active), "dead": of(lambda t: (t.fired == 0).double().mean()),
        "dense": of(lambda t: (t.density > spec.dense).double().mean()), "features": next(iter(tallies.values())).dictionary.spec.d_sae,
        "n_train": trained_on, "n_test": int(tokens.sum()),
        "density": (("dictionary", "feature"), np.stack([t.density.numpy() for t in tallies.values()])),
    }  # fmt: skip
    return values, notes


def _interval(top: np.ndarray, bottom: np.ndarray, groups: np.ndarray, spec: SparseDictionarySpec) -> tuple[float, float, float]:
    """The ratio of two sums with its interval, sentence groups being resampled whole; NaN bounds where they are too few or all alike."""
    value = float(top.sum() / bottom.sum())
    if len(np.unique(groups)) < fewest(spec.level):
        return value, np.nan, np.nan
    try:
        found = bootstrap(np.stack([top, bottom], 1), ratio, clusters=groups, level=spec.level, draws=spec.resamples, seed=spec.seed)
    except BadValue:  # the same in every resample
        return value, np.nan, np.nan
    return found.value, min(found.interval.low, value), max(found.interval.high, value)


def _shown(model: HookedModel, items: TokenItems, tally: Tally, spec: SparseDictionarySpec) -> dict[str, Any]:
    """The features that add most: where they are strongest, and which answers their direction raises and lowers."""
    shown = tally.energy.argsort(descending=True, stable=True)[: spec.shown]
    shown = shown[tally.energy[shown] > 0]
    if not len(shown):
        shown = torch.zeros(1, dtype=torch.long)
    place, width = tally.place[shown], items.width
    text = np.array([[_context(items, int(p)) for p in row] for row in place], dtype=object)
    out: dict[str, Any] = {
        "shown_feature": ("shown", shown.numpy()), "example": (("shown", "example_rank"), text),
        "example_item": (("shown", "example_rank"), torch.where(place >= 0, place // width, -1).numpy()),
        "example_pos": (("shown", "example_rank"), torch.where(place >= 0, place % width, -1).numpy()),
        "example_active": (("shown", "example_rank"), tally.best[shown].double().numpy()),
    }  # fmt: skip
    effects = logit_effects(model, tally.dictionary, shown)
    if effects is not None:
        top = min(TOP, effects.shape[1])
        for word, largest in (("raised", True), ("lowered", False)):
            value, ids = effects.topk(top, dim=1, largest=largest)
            out[f"{word}_effect"] = (("shown", "answer_rank"), value.double().numpy())
            out[f"{word}_id"] = (("shown", "answer_rank"), ids.numpy())
            out[f"{word}"] = (("shown", "answer_rank"), np.array([_pieces(model, row) for row in ids.tolist()], dtype=object))
    return out


def logit_effects(model: HookedModel, dictionary: Dictionary, features: Tensor) -> Tensor | None:
    """What a feature of size 1 adds to each answer on the direct way, ``[feature, answer]``, less the mean over answers: its direction
    through the final norm's gain and the unembedding, the norm's scale left at 1. None where the model does not show these weights, or the
    direction is not as wide as the stream."""
    try:
        unembed = model.weight("W_U").detach().double()
    except UnknownName:
        return None
    direction = torch.stack([dictionary.direction(int(f)) for f in features]).double().to(unembed.device)
    if direction.shape[1] != unembed.shape[0]:
        return None
    with contextlib.suppress(UnknownName):  # no norm, or one without a gain
        direction = direction * model.weight("ln_final.w").detach().double()
    effect = direction @ unembed
    return (effect - effect.mean(1, keepdim=True)).cpu()


def _context(items: TokenItems, place: int) -> str:
    """An example's token between angle brackets, after the tokens before it."""
    if place < 0:
        return ""
    row, pos = divmod(place, items.width)
    before = "".join(items.pieces[row, max(0, pos - CONTEXT) : pos])
    return f"{before}«{items.pieces[row, pos]}»"


def _pieces(model: HookedModel, ids: list[int]) -> list[str]:
    return [model.tokenizer.pieces([i])[0] if model.tokenizer is not None else str(i) for i in ids]


def _notes(items: TokenItems, spec: SparseDictionarySpec, sites: tuple[str, str], trained_on: int, tallies: dict[str, Tally]) -> list[str]:
    d = tallies[TRAINED].dictionary
    way = f"reads '{sites[0]}'" + (f" and gives '{sites[1]}'" if sites[0] != sites[1] else "")
    made = f"trained on {trained_on} tokens of other sentences" if trained_on else f"read from '{Path(spec.dictionary).name}'"
    out = [f"A {d.spec.kind} dictionary of {d.spec.d_sae} features that {way}, {made}; control tokens are left out.", items.added]
    if not trained_on:
        out.append("Whether it was trained on these sentences is not known here.")
    if FROZEN not in tallies:
        out.append(f"No twin with a frozen decoder is in its folder ('{FROZEN}/'): what training the encoder alone reaches is not known.")
    return out


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SparseDictionaryResult(Result):
    """By dictionary (trained, frozen, random) and ablation (zero, mean): ``recovered`` with its interval; by dictionary ``loss`` (nats),
    ``explained``, ``active``, shares ``dead`` and ``dense``; ``own_loss`` and ``ablated_loss``. Aside: ``density`` of each feature, and of
    the features shown examples and the answers raised and lowered."""

    columns: ClassVar[tuple[str, ...]] = (
        "dictionary", "ablation", "recovered", "recovered_low", "recovered_high", "loss", "own_loss", "ablated_loss", "explained", "active",
        "dead", "dense", "features", "n_train", "n_test",
    )  # fmt: skip
    aside: ClassVar[tuple[str, ...]] = ("feature", "shown", "example_rank", "answer_rank")

    def features(self) -> pd.DataFrame:
        """The features shown: number, share of tokens, strongest token in its context, answers raised and lowered."""
        v: Any = self.values
        rows = []
        for i, feature in enumerate(v.shown_feature.values):
            row = {"feature": int(feature), "density": float(v.density.sel(dictionary=TRAINED).values[feature]),
                   "strongest": float(v.example_active.values[i, 0]), "example": str(v.example.values[i, 0])}  # fmt: skip
            for word in ("raised", "lowered"):
                if word in v:
                    row[word] = " ".join(f"'{piece}'" for piece in v[word].values[i])
            rows.append(row)
        return pd.DataFrame(rows)

    def summary(self) -> str:
        """Each dictionary's scores, then the features that add most."""
        v: Any = self.values
        zero, mean = (float(v.ablated_loss.sel(ablation=name)) for name in ABLATIONS)
        lines = [f"{self.kind}: loss {float(v.own_loss):.3f} nats as it is, {zero:.3f} with zero in its place, {mean:.3f} with the mean."]
        for name in v.dictionary.values:
            one = v.sel(dictionary=name)
            said = ", ".join(f"{_told(one, a)} against {a}" for a in ABLATIONS)
            lines.append(
                f"{name}: recovers {said}; explains {float(one.explained):.3f} of the variance with {float(one.active):.1f} of "
                f"{int(v.features)} features active; {100 * float(one.dead):.0f} % dead, {100 * float(one.dense):.0f} % dense."
            )
        frame = self.features()
        lines += [
            f"feature {row['feature']} ({100 * row['density']:.1f} % of tokens): {row['example']}"
            + (f"; raises {row['raised']}" if "raised" in row else "")
            for row in frame.head(5).to_dict("records")
        ]
        return "\n".join([*lines, *self.notes])

    def plot(self) -> Any:
        """The loss recovered by each dictionary against each ablation; the variance explained where nothing can be recovered."""
        v: Any = self.values
        frame = pd.DataFrame(self.to_frame())
        if bool(np.isfinite(v.recovered.values).any()):
            frame = frame.dropna(subset=["recovered"])
            rows = pd.DataFrame(
                {
                    "label": frame["dictionary"] + ", against " + frame["ablation"], "value": frame["recovered"],
                    "low": frame["recovered_low"], "high": frame["recovered_high"],
                }
            )  # fmt: skip
            titles = {"title": "Loss recovered by the reconstruction", "value": "share of the loss recovered", "reference": "nothing lost"}
        else:
            rows = pd.DataFrame({"label": v.dictionary.values, "value": v.explained.values, "low": np.nan, "high": np.nan})
            titles = {"title": "Variance explained by the reconstruction", "value": "share of the variance", "reference": "all of it"}
        return bars_with_interval(rows, "label", "value", "low", "high", titles=titles, reference=1.0)


def _told(one: Any, ablation: str) -> str:
    cell = one.sel(ablation=ablation)
    value, low, high = (float(cell[name]) for name in ("recovered", "recovered_low", "recovered_high"))
    if np.isnan(value):
        return "nothing that can be told"
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


INSTRUMENT = Instrument(
    name="sparse-dictionary",
    question="Which few of many directions is a site a sum of, and how much of the model's working do they keep?",
    spec=SparseDictionarySpec,
    needs=Needs(reads=("tokens",), one_way=True, abilities=frozenset({"logits", "edit"}), sites=("blocks.*.hook_resid_post",)),
    compute=compute,
    items=300,
)  # fmt: skip
