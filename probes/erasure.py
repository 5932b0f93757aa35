"""What a model does without a concept: erased at one site, or scrubbed from every site, beside random projections of equal rank.

An eraser (``probes.concept_erasers``) takes the concept out of the activations of one site. Erased at one site, what is left in a form no
linear map reads may be made readable again by later layers, so each site is also erased together with all others: from the first on, each
eraser fitted to what the ones before it have left. Afterwards probes look for the concept at every site, on sentences that no eraser has
seen, and answers and next-token loss are measured again.

Source: Belrose, Schneider-Joseph, Ravfogel, Cotterell, Raff and Biderman, LEACE: Perfect Linear Concept Erasure in Closed Form, NeurIPS
2023 (arXiv:2306.03819), with concept scrubbing in section 6. Null-space projection: Ravfogel, Elazar, Gonen, Twiton and Goldberg, Null It
Out, ACL 2020 (arXiv:2004.07667).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from pydantic import Field, model_validator

from probes.concept_erasers import random_like
from probes.concept_read import token_sites
from probes.erasure_parts import Parts, read_parts
from probes.erasure_result import BY_ERASED, EVERY, NOTHING, WHO, ErasureResult
from probes.erasure_runs import Bench, Erasers, How, Outcome, predicts_next
from probes.over_groups import Bounded, Sampling, gap, gap_null, gap_over_groups, mean_over_groups
from probes.probe_fit import How as ProbeHow
from probes.probe_fit import make_jobs
from probes.target import Quantity, model_dtype, read_target
from probes.token_items import TokenItems, origin, read_items
from workbench.core.errors import BadValue, Incompatible
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.spec import Spec
from workbench.core.stats.intervals import mean_interval
from workbench.core.stats.resampling import fewest

FEW = 30
"""Fitting tokens a feature below which a note says that the sample is small."""
ROUNDING = 1e-6
"""A gap that is a smaller share of the largest answer is none: the rounding of single precision."""
SHUFFLES = 5
"""Probes on shuffled labels, averaged."""


class ErasureSpec(Spec):
    """Where a concept is erased, how, and what is measured afterwards."""

    sites: tuple[str, ...] = Field(
        default=("blocks.0.hook_resid_pre", "blocks.*.hook_resid_post"), min_length=1, description="names or globs of sites"
    )
    way: Literal["leace", "inlp"] = Field(default="leace", description="the eraser: least squares, or iterated null-space projection")
    where: Literal["all", "labelled", "spread", "each"] = Field(
        default="all",
        description="fitted to labelled tokens and erased at all, or there alone; or fitted to all of an item, or to each position",
    )
    labels: str = Field(default="", description="the label set erased, where several are given; '' takes the first")
    concept: str = Field(default="", description="the class whose answers the gap compares with the others'; '' takes the second of two")
    position: int | None = Field(default=None, description="where labels of whole items are read: None is the last real token")
    quantity: Quantity = Field(default="logit", description="the answer, where targets are given; 'logit-difference' is target minus foil")
    answer_at: int | None = Field(default=None, description="where the answer is read: None is the last real token")
    probe: Literal["ridge", "logistic", "mlp"] = Field(default="ridge", description="the kind of probe that looks for what is left")
    strength: float = Field(default=1e-3, gt=0, description="penalty of probes, as a share of n times the mean variance")
    rounds: int = Field(default=16, ge=1, le=1000, description="rounds of null-space projection at most")
    test_share: float = Field(default=0.25, gt=0, lt=1, description="share of sentence groups that are tested")
    probe_share: float = Field(default=0.25, gt=0, lt=1, description="share that probes are fitted to; erasers are fitted to the rest")
    randoms: int = Field(default=5, ge=2, le=200, description="random projections of equal rank")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="level of the intervals")
    resamples: int = Field(default=1000, ge=400, description="bootstrap resamples of sentence groups")
    seed: int = Field(default=0, ge=0, description="seed of split, shuffles, random projections and bootstrap")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=200_000_000, ge=1, description="numbers of features kept at most")
    tokens_a_pass: int = Field(default=16384, ge=1, description="tokens in one forward pass at most")

    @model_validator(mode="after")
    def _some_left(self) -> ErasureSpec:
        if self.test_share + self.probe_share >= 1:
            raise ValueError(
                f"test_share + probe_share below 1, not {self.test_share + self.probe_share:g}: erasers are fitted to the rest"
            )
        return self


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: ErasureSpec, progress: Progress) -> ErasureResult:
    """Erase at each site, and at all. Raises BadValue for inputs that cannot be meant, and EmptySelection for sites that are not there."""
    items = read_items(model, inputs, bos=spec.bos)
    parts = read_parts(items, inputs, spec)
    concept = _concept(parts, inputs, spec)
    bench = _bench(model, inputs, items, parts, spec)
    names = [site.name for site in bench.sites]
    steps, total = 0, 2 + (1 + spec.randoms) * (len(names) + 1)

    def stepped() -> None:
        nonlocal steps
        steps += 1
        progress(steps, total, "runs")

    plans = _plans(bench)
    stepped()
    plain = bench.outcome({})
    stepped()
    found: dict[str, list[Outcome]] = {NOTHING: [plain] * (1 + spec.randoms)}
    for erased in [*names, EVERY]:
        found[erased] = []
        for version in (plans[erased], *_random(plans[erased], spec)):
            found[erased].append(bench.outcome(version))
            stepped()
    held = parts.held.items
    facts = {"where": parts.task.where, "codes": parts.task.codes, "targets": inputs.targets, "foils": inputs.foils,
             "texts": None if inputs.texts is None else np.array(inputs.texts), "groups": parts.groups, "rows": parts.rows}  # fmt: skip
    return ErasureResult(
        kind=INSTRUMENT.name,
        values=_values(found, plans, names, parts, concept, spec, (held if bench.texts is None else bench.texts)),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed, dtype=model_dtype(model), ids=items.ids, lengths=items.lengths, **facts),
        notes=(*parts.notes, *_notes(model, inputs, parts, concept, plans, spec)),
    )


def erasers_of(model: HookedModel, inputs: Inputs, spec: ErasureSpec) -> dict[str, Erasers]:
    """The erasers that ``compute`` measures, by what is erased: to run a model with them otherwise (``probes.erasure_runs.erasing``)."""
    items = read_items(model, inputs, bos=spec.bos)
    return _plans(_bench(model, inputs, items, read_parts(items, inputs, spec), spec))


def _plans(bench: Bench) -> dict[str, Erasers]:
    """What is erased: nothing, each site alone, every site."""
    alone, every = bench.fitted(bench.sites, {}), bench.scrubbed()
    return {NOTHING: {}, **{name: {name: eraser} for name, eraser in alone.items()}, EVERY: every}


def _concept(parts: Parts, inputs: Inputs, spec: ErasureSpec) -> np.ndarray | None:
    """For each tested item whether it is of the concept; None where there is no gap to speak of: no answers, labels of tokens, or more
    than two classes of which none was named. Raises BadValue for a class that is not there, or is on one side alone."""
    task, classes = parts.task, parts.task.classes
    if spec.concept and spec.concept not in classes:
        raise BadValue("concept", spec.concept, f"a class of '{task.name}': {', '.join(classes[:12])}")
    if inputs.targets is None or not task.whole or (len(classes) > 2 and not spec.concept):
        return None
    of_item = np.zeros(len(parts.held.items), dtype=int)
    of_item[parts.held_task.where // parts.held.items.width] = parts.held_task.codes
    present = (of_item == (classes.index(spec.concept) if spec.concept else 1))[parts.test]
    if present.all() or not present.any():
        raise BadValue(f"the tested items of '{task.name}'", "of one side alone", "some with the concept and some without",
                       do="Give more sentences.")  # fmt: skip
    return present


def _bench(model: HookedModel, inputs: Inputs, items: TokenItems, parts: Parts, spec: ErasureSpec) -> Bench:
    if inputs.targets is None and inputs.foils is not None:
        raise BadValue("inputs.foils", "given", "left out where there are no targets")
    target = None
    if inputs.targets is not None:
        if "logits" not in model.abilities:
            raise Incompatible("erasure", f"this {model.family} model", ["the model does not offer logits"], do="Leave targets out.")
        target = read_target(model, items, inputs, spec.quantity, spec.answer_at).rows(torch.from_numpy(parts.rows))
    kind = ProbeHow(probe=spec.probe, strength=spec.strength, seed=spec.seed)
    (job,) = make_jobs([parts.held_task], [[parts.split]], draws=SHUFFLES, how=kind)
    return Bench(
        model=model, sites=token_sites(model, spec.sites), fit=parts.fit, held=parts.held, job=job,
        test=torch.from_numpy(np.flatnonzero(parts.test)), target=target,
        how=How(spec.way, len(parts.task.classes), spec.strength, spec.rounds, spec.max_cells, parts.check, spec.where == "each"),
        texts=read_items(model, Inputs(list(inputs.texts)), bos=spec.bos) if inputs.texts is not None else None,
        tokens_a_pass=spec.tokens_a_pass,
    )  # fmt: skip


def _random(erasers: Erasers, spec: ErasureSpec) -> Iterator[Erasers]:
    """The same ranks at the same sites, along directions drawn evenly."""
    draw = torch.Generator().manual_seed(spec.seed)
    for _ in range(spec.randoms):
        yield {site: random_like(eraser, draw) for site, eraser in erasers.items()}


def _values(
    found: dict[str, list[Outcome]], plans: dict[str, Erasers], names: list[str], parts: Parts, concept: np.ndarray | None,
    spec: ErasureSpec, priced: TokenItems,
) -> xr.Dataset:  # fmt: skip
    how, erased = Sampling(spec.level, spec.resamples, spec.seed), list(found)
    plain = found[NOTHING][0]
    groups = parts.groups[parts.test]
    long = (priced.lengths[torch.from_numpy(parts.test)] if priced is parts.held.items else priced.lengths).numpy() > 1
    loss_groups = groups[long] if priced is parts.held.items else np.arange(int(long.sum()))
    accuracy = np.full((3, len(WHO), len(erased), len(names)), np.nan)
    by = {name: np.full((3, len(WHO), len(erased)), np.nan) for name in BY_ERASED}
    null = np.full((2, len(erased)), np.nan)
    for e, name in enumerate(erased):
        own, *others = found[name]
        for s, site in enumerate(names):
            accuracy[:, 0, e, s] = mean_over_groups(own.right[site], parts.token_groups, how, (0.0, 1.0))
            accuracy[:, 1, e, s] = _spread([one.right[site].mean() for one in others], how)
        by["answer"][:, 0, e] = mean_over_groups(own.answers, groups, how)
        by["answer"][:, 1, e] = _spread([one.answers.mean() if len(one.answers) else np.nan for one in others], how)
        by["loss_change"][:, 0, e] = mean_over_groups(own.losses - plain.losses, loss_groups, how)
        by["loss_change"][:, 1, e] = _spread([(one.losses - plain.losses).mean() if len(one.losses) else np.nan for one in others], how)
        if concept is not None:
            by["gap"][:, 0, e] = gap_over_groups(own.answers, concept, groups, how)
            by["gap"][:, 1, e] = _spread([gap(one.answers, concept) for one in others], how)
            fitted = None if name == NOTHING else parts.fitted
            null[:, e] = gap_null(own.answers, concept, groups, how, fitted=fitted, rounding=ROUNDING * float(np.abs(plain.answers).max()))
    ranks = [[plans[name][site].rank if site in plans[name] else 0 for site in names] for name in erased]
    tested = parts.held_task.codes[parts.split.test]
    often = np.bincount(parts.held_task.codes[parts.split.train]).argmax()
    bounds = lambda word, dims, values: {n: (dims, v) for n, v in zip((word, f"{word}_low", f"{word}_high"), values, strict=True)}  # noqa: E731
    out: dict[str, Any] = bounds("accuracy", ("who", "erased", "site"), accuracy)
    for name, values in by.items():
        out |= bounds(name, ("who", "erased"), values)
    return xr.Dataset(
        {**out, "gap_null": ("erased", null[0]), "gap_p": ("erased", null[1]), "rank": (("erased", "site"), np.array(ranks)),
         "shuffled": ("site", [float(plain.shuffled[site].mean()) for site in names]),
         "majority": ((), float((tested == often).mean())), "loss": ((), float(plain.losses.mean()) if len(plain.losses) else np.nan),
         "n_fit": ((), len(parts.fit.where)), "n_probe": ((), int(parts.split.train.sum())), "n_test": ((), len(tested))},
        coords={"who": list(WHO), "erased": erased, "site": names, "depth": ("site", np.arange(len(names)))},
    )  # fmt: skip


def _spread(values: list[float], how: Sampling) -> Bounded:
    """The mean over random projections, with its interval."""
    drawn = np.array(values, dtype=float)
    value = float(drawn.mean())
    if not np.isfinite(value) or np.ptp(drawn) <= 1e-12 * max(1.0, abs(value)):
        return value, value, value
    found = mean_interval(drawn, how.level)
    return value, found.low, found.high


def _notes(
    model: HookedModel, inputs: Inputs, parts: Parts, concept: np.ndarray | None, plans: dict[str, Erasers], spec: ErasureSpec
) -> list[str]:  # fmt: skip
    out = []
    if inputs.targets is None:
        out.append("No targets were given, so no answer was followed.")
    elif concept is None:
        out.append("No gap is told: that takes one class an item, and two classes or one named as the concept.")
    if not predicts_next(model):
        out.append("The price is not known: this model does not predict the next token.")
    if (tested := len(np.unique(parts.token_groups))) < fewest(spec.level):
        out.append(f"{tested} sentence groups are tested, too few for an interval.")
    fitted = len(parts.fit.where) // (parts.fit.items.width if spec.where == "each" else 1)
    width = max(eraser.width for eraser in plans[EVERY].values())
    if fitted < FEW * width:
        out.append(f"Erasers are fitted to {fitted} tokens, few for {width} features: other tokens may still tell much.")
    if idle := [name for name in plans if name not in (NOTHING, EVERY) and plans[name][name].rank == 0]:
        out.append(f"Nothing linear tells the classes at {', '.join(idle)}: nothing was erased there.")
    return out


INSTRUMENT = Instrument(
    name="erasure",
    question="What does the model know and do once a concept is erased, at one layer or at every one?",
    spec=ErasureSpec,
    needs=Needs(abilities=frozenset({"edit"}), reads=("tokens",), inputs=("batch", "labels")),
    compute=compute,
)
