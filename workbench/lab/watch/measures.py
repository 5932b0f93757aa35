"""What can be watched while a model trains: each measure gives a few numbers a look, with the null each is read against.

A watch is prepared once, on the model before its first step, and then asks the same of it at every look. Numbers come from the
instruments and suites themselves (``head-scores``, ``probing``, ``occupation-pronoun``); the entropy of attention is computed here.

    entropy of a head = mean over queries of - sum over keys of A[q, k] ln A[q, k]      (nats)

Its null is a head that attends evenly to every key it gives any weight: the mean of ln(number of such keys).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from evals.runner import run_suite
from evals.suites.occupation_pronoun import SUITE as OCCUPATIONS
from evals.suites.occupation_pronoun import OccupationPronounSpec
from probes.head_scores import INSTRUMENT as HEADS
from probes.head_scores import HeadScoresSpec
from probes.probing import INSTRUMENT as PROBES
from probes.probing import ProbingSpec
from probes.target import device_of
from probes.token_items import control_ids, vocabulary_size
from workbench.core.batch import IGNORE, PairBatch, SequenceBatch, TokenBatch
from workbench.core.errors import BadValue
from workbench.core.measure import Needs
from workbench.core.protocol import HookedModel, Inputs, silent
from workbench.core.sites import Site
from workbench.data.worlds.town import Town, TownSpec
from workbench.lab.inputs import town_labels
from workbench.lab.watch.spec import WatchSpec

PERIOD = 25
PATTERNS = "*attn.hook_pattern"
Rows = Any
"""A ``RowData``."""


@dataclass(frozen=True)
class Ground:
    """What a training offers to ask about: the ``world`` its text comes from, if it is a generated one, and its held-out ``rows``."""

    world: TownSpec | None = None
    rows: Rows = None


@dataclass(frozen=True)
class Reading:
    """One number of one look. ``null``: what a model without the property shows; ``planted``: the truth, where it is known (NaN: not).
    A ``value`` of NaN has its ``reason``."""

    part: str
    value: float
    null: float = math.nan
    planted: float = math.nan
    reason: str = ""


Look = Callable[[HookedModel], list[Reading]]


@dataclass(frozen=True)
class Watch:
    """A measure. ``needs`` of the model, ``world`` where it asks about the town; ``ready(model, ground, spec)`` gives what asks it.
    ``null`` says in words what its null is."""

    name: str
    unit: str
    ready: Callable[[HookedModel, Ground, WatchSpec], Look]
    needs: Needs = field(default_factory=Needs)
    world: bool = False
    null: str = ""

    def objections(self, model: HookedModel, ground: Ground) -> list[str]:
        """Why it cannot be watched here: clauses, empty where it can."""
        out = self.needs.objections(model)
        if self.world and ground.world is None:
            out.append("it asks about the people of the generated town, and this recipe trains on something else")
        return out


# --- attention ----------------------------------------------------------------------------------------------


def entropies(
    pattern: Float[Tensor, "batch head query key"], asked: Bool[Tensor, "batch query"]
) -> tuple[Float[Tensor, " head"], Float[Tensor, ""]]:
    """The mean entropy (nats) of each head over the queries asked, and that of an even head; in float64."""
    weights = pattern.double()
    each = torch.special.entr(weights).sum(-1)
    even = (weights > 0).sum(-1).double().log()
    chosen = asked[:, None].expand(each.shape[:3])
    count = asked.sum()
    if not count:
        raise BadValue("the rows watched", "no queries", "rows with at least one token that is read")
    zero = torch.zeros((), dtype=each.dtype)
    if not bool(torch.isfinite(each[chosen]).all()):
        raise BadValue("the attention pattern", "NaN or infinity", "finite numbers", do="The weights are broken.")
    return torch.where(chosen, each, zero).sum((0, 2)) / count, torch.where(chosen, even, zero).sum() / (count * pattern.shape[1])


def queries_of(batch: Any, site: Site, shape: tuple[int, int]) -> Bool[Tensor, "batch query"]:
    """Which queries of a site are counted: those that predict a token (decoders), else those that are no padding."""
    targets, mask = getattr(batch, "targets", None), getattr(batch, "mask", None)
    predicts = isinstance(batch, TokenBatch) or (isinstance(batch, SequenceBatch) and site.stack == "decoder")
    if predicts and targets is not None and tuple(targets.shape) == shape:
        return (targets != IGNORE).cpu()
    if not predicts and mask is not None and tuple(mask.shape) == shape:
        return mask.cpu()
    return torch.ones(shape, dtype=torch.bool)


def _entropy(model: HookedModel, ground: Ground, spec: WatchSpec) -> Look:
    if ground.rows is None:
        raise BadValue("the rows watched", None, "those of a training")
    batch = ground.rows.batch(range(min(spec.rows, len(ground.rows)))).to(device_of(model))
    noised = getattr(model, "noised", None)
    if isinstance(batch, PairBatch) and noised is not None:
        batch = noised(batch)  # the same noise at every look
    sites = model.sites().select(PATTERNS)

    def look(model: HookedModel) -> list[Reading]:
        trace = model.run(batch, capture=sites, logits=None)
        out: list[Reading] = []
        for site in sites:
            pattern = trace[site].detach().cpu()
            asked = queries_of(batch, site, (pattern.shape[0], pattern.shape[2]))
            found, even = entropies(pattern, asked)
            out += [Reading(head_name(site, head), float(value), float(even)) for head, value in enumerate(found.tolist())]
        return out

    return look


def head_name(site: Site, head: int) -> str:
    """``L1H0``, the stack before it where there are several, and *cross* where another stack is read."""
    cross = "cross" if ".cross_attn." in site.name else ""
    return " ".join(part for part in (site.stack, cross, f"L{site.layer}H{head}") if part)


def _heads(score: str) -> Callable[[HookedModel, Ground, WatchSpec], Look]:
    def ready(model: HookedModel, ground: Ground, spec: WatchSpec) -> Look:
        asked = HeadScoresSpec(sequences=spec.rows, period=_period(model), seed=spec.seed)

        def look(model: HookedModel) -> list[Reading]:
            found = HEADS(model, Inputs(None), asked).values.sel(score=score)
            null = float(found.uniform)
            return [
                Reading(f"L{int(layer)}H{int(head)}", float(found.attention.values[i, j]), null)
                for i, layer in enumerate(found["layer"].values)
                for j, head in enumerate(found["head"].values)
            ]

        return look

    return ready


def _period(model: HookedModel) -> int:
    """How many random tokens are repeated: as ``head-scores`` has it, or fewer where context or vocabulary have no room."""
    bos = model.tokenizer is not None and model.tokenizer.bos_id is not None
    room = (int(getattr(model.config, "n_ctx", 2 * PERIOD + 1)) - bos) // 2
    size = vocabulary_size(model)
    usable = PERIOD if size is None else size - len(control_ids(model.tokenizer))
    return max(2, min(PERIOD, room, usable))


# --- probing and bias ---------------------------------------------------------------------------------------


def _probing(model: HookedModel, ground: Ground, spec: WatchSpec) -> Look:
    assert ground.world is not None, "objections() has refused a training without a world"
    inputs = town_labels(model, Town(ground.world), count=spec.documents)
    asked = ProbingSpec(seed=spec.seed, resamples=400)

    def look(model: HookedModel) -> list[Reading]:
        found = PROBES(model, inputs, asked).values.isel(split=0, labels=0).sel(network="model")
        hit, control = (found.accuracy.sel(task=task).values for task in ("labels", "control"))
        return [Reading(_place(str(site)), float(h), float(c)) for site, h, c in zip(found.site.values, hit, control, strict=True)]

    return look


def _place(site: str) -> str:
    """``embedding``, ``after layer 0`` …"""
    return f"after layer {site.split('.')[1]}" if site.startswith("blocks.") else site.removeprefix("hook_").replace("embed", "embedding")


def _bias(model: HookedModel, ground: Ground, spec: WatchSpec) -> Look:
    assert ground.world is not None, "objections() has refused a training without a world"
    asked = OccupationPronounSpec(world=ground.world, contexts=spec.contexts, seed=spec.seed)

    def look(model: HookedModel) -> list[Reading]:
        found = run_suite(OCCUPATIONS, model, asked, progress=silent).values
        dose = Reading("measured dose", float(found.dose), 0.0, asked.world.dose)
        gap = Reading("gap to the plan", float(found.gap))
        floor = found.attrs["floor"]
        # A share of two tiny probabilities would look like a bias: below the suite's floor nothing is said.
        return [replace(one, value=math.nan, reason=floor) if floor else one for one in (dose, gap)]

    return look


ENTROPY = Watch("attention-entropy", "nats", _entropy, Needs(sites=(PATTERNS,)), null="an even head")
PREVIOUS, DUPLICATE, INDUCTION = (
    Watch(name, "attention", _heads(name), HEADS.needs, null="an even head") for name in ("previous-token", "duplicate-token", "induction")
)
PROBING = Watch("probe-accuracy", "accuracy", _probing, PROBES.needs, world=True, null="control tasks")
BIAS_GAP = Watch("bias-gap", "dose, and gap in probability", _bias, OCCUPATIONS.needs, world=True, null="no link")
