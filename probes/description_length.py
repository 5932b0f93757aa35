"""Minimum description length of labels given representations: how much data a probe needs, not only how well it ends.

The labels of the training tokens are sent in portions. The first goes under a uniform code; each next one under a logistic probe that was
fitted to all before it:

    bits = t_1 log2 K  -  sum_i log2 p_(fitted to portions 1..i)(labels of portion i + 1)        compression = n log2 K / bits

A probe's p is mixed with the uniform one, (t p + 1) / (t + K) after t labels, so that every label can be sent. The same fits, scored on
held-out sentences, are the sample-size curve. Control tasks and shuffled labels are sent in the same way.

Source: Voita and Titov, Information-Theoretic Probing with Minimum Description Length, EMNLP 2020 (arXiv:2003.12298), section 2.2; online
(prequential) codes: Dawid 1984, Rissanen 1984.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from probes import logistic
from probes.probe_labels import (
    TASKS,
    Split,
    Task,
    codes_tensor,
    control_codes,
    held_out,
    make_splits,
    read_labels,
    sentence_groups,
    shuffled_codes,
)
from probes.probing import networks_of, sites_of
from probes.target import device_of, model_dtype
from probes.token_items import TokenItems, origin, read_items, rows_a_pass, slices
from workbench.core.charts.lines import curve_with_band
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.sites import Site
from workbench.core.spec import Spec
from workbench.core.stats.resampling import bootstrap, fewest

PORTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Shares of the training tokens after which a new probe is fitted, as in the paper."""


class DescriptionLengthSpec(Spec):
    """Where labels are read from, and how they are sent."""

    sites: tuple[str, ...] = Field(default=("hook_embed", "blocks.*.hook_resid_post"), min_length=1, description="names or globs of sites")
    position: int | None = Field(default=None, description="where labels of whole items are read: None is the last real token")
    strength: float = Field(default=1e-3, gt=0, description="penalty of the probes, as a share of the features' mean variance")
    test_share: float = Field(default=0.3, gt=0, lt=1, description="share of sentence groups held out for the sample-size curve")
    least: int = Field(default=5, ge=1, description="classes of fewer labelled tokens are left out, and named")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="level of the intervals")
    resamples: int = Field(default=1000, ge=400, description="bootstrap resamples of sentence groups")
    seed: int = Field(default=0, ge=0, description="seed of split, order, controls and shuffles")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=200_000_000, ge=1, description="numbers of features kept at most")
    tokens_a_pass: int = Field(default=16384, ge=1, description="tokens in one forward pass at most")


@dataclass(frozen=True)
class Sent:
    """What one site's representations made of one task's labels: bits of each training token in the order sent ``[token, set]``, and
    whether each held-out token was right after each portion ``[portion, token, set]``; sets are those of ``TASKS``."""

    bits: Float[Tensor, "token set"]
    right: Float[Tensor, "portion held set"]


def online_code(
    x: Float[Tensor, "token feature"], y: Int[Tensor, "token set"], ends: list[int], classes: int, strength: float
) -> tuple[Float[Tensor, "token set"], list[logistic.LogisticProbe]]:
    """Bits of each label ``[token, set]`` when they are sent in the order given, a new probe after each of ``ends``; and the probes."""
    bits = torch.full(y.shape, float(np.log2(classes)), dtype=torch.float64)
    fitted: list[logistic.LogisticProbe] = []
    for number, end in enumerate(ends):
        fitted.append(logistic.fit(x[None, :end], y[:end], classes, strength=strength))
        if end == len(x):
            break
        part = slice(end, ends[number + 1])
        p = fitted[-1].scores(x[None, part])[0].double().softmax(-1)
        p = (end * p + 1) / (end + classes)
        bits[part] = -p.gather(-1, y[part, :, None])[..., 0].log2()
    return bits, fitted


def portions(n: int, groups: np.ndarray) -> list[int]:
    """Where portions of ``n`` tokens end: at the shares of PORTIONS, moved on to the end of a sentence group, each past the one before."""
    last = np.flatnonzero(np.append(groups[1:] != groups[:-1], True)) + 1
    ends = [int(last[np.searchsorted(last, max(2, round(share * n)))]) for share in PORTIONS[:-1]]
    return sorted({*ends, n})


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: DescriptionLengthSpec, progress: Progress) -> DescriptionLengthResult:
    """Send all labels from all sites. Raises as ``probing``."""
    items = read_items(model, inputs, bos=spec.bos)
    networks, sites = networks_of(model, inputs, "description-length"), sites_of(model, spec.sites)
    tasks = read_labels(items, inputs.labels, spec.position, spec.least)
    groups = sentence_groups(items, inputs.groups)
    away = held_out(groups, spec.test_share, spec.seed, "different sentences or groups")
    splits = [
        make_splits(t, groups[t.where // items.width], away, new_types=False, fraction=spec.test_share, seed=spec.seed)[0] for t in tasks
    ]
    held = _features(networks, items, sites, tasks, spec, progress)
    plans = [_plan(task, split, groups[task.where // items.width], spec) for task, split in zip(tasks, splits, strict=True)]
    sent = {}
    for t, task in enumerate(tasks):
        at = torch.from_numpy(np.searchsorted(held.where, task.where))
        for network in networks:
            for site in sites:
                sent[t, network, site.name] = _sent(held.at[network, site.name][at], plans[t], len(task.classes), spec.strength)
    data = {f"{part}.{t.name}": getattr(t, part) for t in tasks for part in ("where", "codes", "classes", "types")}
    untrained = networks["untrained"].digest() if "untrained" in networks else None
    return DescriptionLengthResult(
        kind=INSTRUMENT.name,
        values=_values(tasks, plans, list(networks), sites, sent, spec),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed, dtype=model_dtype(model), ids=items.ids, lengths=items.lengths, groups=groups,
                          untrained=untrained, **data),
        notes=_notes(tasks, plans, networks, spec),
    )  # fmt: skip


@dataclass(frozen=True)
class _Held:
    """Features of every labelled token, by network and site, and the tokens' flat positions."""

    where: np.ndarray
    at: dict[tuple[str, str], Tensor]


def _features(
    networks: dict[str, HookedModel], items: TokenItems, sites: tuple[Site, ...], tasks: list[Task],
    spec: DescriptionLengthSpec, progress: Progress,
) -> _Held:  # fmt: skip
    where = np.unique(np.concatenate([task.where for task in tasks]))
    parts: dict[tuple[str, str], list[Tensor]] = {}
    for part in slices(len(items), rows_a_pass(spec.tokens_a_pass, items.width)):
        low, high = np.searchsorted(where, [part.start * items.width, part.stop * items.width])
        rows = torch.from_numpy(where[low:high] - part.start * items.width)
        for name, network in networks.items():
            trace = network.run(items.given(network, part, device_of(network)), capture=sites, logits=None)
            for site in sites:
                found = trace[site].detach().flatten(2).flatten(0, 1)[rows.to(device_of(network))].cpu()
                if not bool(torch.isfinite(found).all()):
                    raise BadValue(f"the activation at '{site.name}'", "NaN or infinity", "finite numbers", do="The weights are broken.")
                if (size := len(where) * found.shape[1] * len(sites) * len(networks)) > spec.max_cells:
                    raise BadValue("the size of the features", f"{size:,} numbers", f"at most max_cells = {spec.max_cells:,}",
                                   do="Give fewer items or sites, or raise max_cells.")  # fmt: skip
                parts.setdefault((name, site.name), []).append(found)
        progress(part.stop, len(items), "items")
    return _Held(where, {place: torch.cat(found) for place, found in parts.items()})


@dataclass(frozen=True)
class _Plan:
    """Training tokens in the order sent (sentence groups shuffled, each whole), where portions end, held-out tokens, the codes of every
    task's set ``[token, set]``, and the groups of both."""

    order: Tensor
    ends: list[int]
    test: Tensor
    codes: Tensor
    groups: np.ndarray
    held: np.ndarray


def _plan(task: Task, split: Split, groups: np.ndarray, spec: DescriptionLengthSpec) -> _Plan:
    train = np.flatnonzero(split.train)
    turn = np.random.default_rng([spec.seed, 4]).permutation(groups.max() + 1)
    order = train[np.argsort(turn[groups[train]], kind="stable")]
    codes = np.concatenate([task.codes[:, None], control_codes(task, 1, spec.seed), shuffled_codes(task, 1, spec.seed)], axis=1)
    ends = portions(len(order), groups[order])
    return _Plan(
        torch.from_numpy(order), ends, torch.from_numpy(np.flatnonzero(split.test)), codes_tensor(codes), groups[order], groups[split.test]
    )


def _sent(x: Float[Tensor, "token feature"], plan: _Plan, classes: int, strength: float) -> Sent:
    bits, fitted = online_code(x[plan.order], plan.codes[plan.order], plan.ends, classes, strength)
    there, truth = x[plan.test][None], plan.codes[plan.test]
    right = torch.stack([(probe.scores(there)[0].argmax(-1) == truth).double() for probe in fitted])
    return Sent(bits, right)


def _values(
    tasks: list[Task], plans: list[_Plan], networks: list[str], sites: tuple[Site, ...], sent: dict[tuple[int, str, str], Sent],
    spec: DescriptionLengthSpec,
) -> xr.Dataset:  # fmt: skip
    most = max(len(plan.ends) for plan in plans)
    whole = (len(tasks), len(TASKS), len(networks), len(sites))
    bits, accuracy = np.full((3, *whole), np.nan), np.full((*whole, most), np.nan)
    tokens = np.full((len(tasks), most), np.nan)
    for t, plan in enumerate(plans):
        tokens[t, : len(plan.ends)] = plan.ends
        for n, network in enumerate(networks):
            for i, site in enumerate(sites):
                found = sent[t, network, site.name]
                accuracy[t, :, n, i, : len(plan.ends)] = found.right.mean(1).T
                for k in range(len(TASKS)):
                    alone = k == 1 and len(np.unique(tasks[t].types)) == 1  # one word type: its control task has one class
                    bits[:, t, k, n, i] = np.nan if alone else _each(found.bits[:, k].numpy(), plan.groups, len(tasks[t].classes), spec)
                    if alone:
                        accuracy[t, k, n, i] = np.nan
    uniform = np.array([np.log2(len(t.classes)) for t in tasks])
    wide = uniform[:, None, None, None]
    dims = ("labels", "task", "network", "site")
    return xr.Dataset(
        {"bits": (dims, bits[0]), "bits_low": (dims, bits[1]), "bits_high": (dims, bits[2]),
         "compression": (dims, wide / bits[0]), "compression_low": (dims, wide / bits[2]), "compression_high": (dims, wide / bits[1]),
         "uniform": ("labels", uniform), "n": ("labels", np.array([len(p.order) for p in plans])),
         "accuracy": ((*dims, "portion"), accuracy), "tokens": (("labels", "portion"), tokens)},
        coords={"labels": [t.name for t in tasks], "task": list(TASKS), "network": networks, "site": [s.name for s in sites],
                "depth": ("site", np.arange(len(sites))), "portion": np.arange(most)},
    )  # fmt: skip


def _each(bits: np.ndarray, groups: np.ndarray, classes: int, spec: DescriptionLengthSpec) -> tuple[float, float, float]:
    """Bits a label with an interval: groups are drawn whole, the probes kept as they were fitted."""
    if len(np.unique(groups)) < fewest(spec.level):
        return float(bits.mean()), np.nan, np.nan
    most = float(np.log2(len(bits) + classes))  # what the least probability of the mixture costs
    found = bootstrap(bits, clusters=groups, level=spec.level, draws=spec.resamples, seed=spec.seed, bounds=(0.0, most))
    return found.value, max(found.interval.low, 1e-9), found.interval.high


def _notes(tasks: list[Task], plans: list[_Plan], networks: dict[str, HookedModel], spec: DescriptionLengthSpec) -> tuple[str, ...]:
    out = [] if "untrained" in networks else ["No untrained network was given: what the architecture alone gives away is not known here."]
    for task, plan in zip(tasks, plans, strict=True):
        if task.rare:
            names = ", ".join(f"'{name}' ({count})" for name, count in task.rare)
            out.append(f"'{task.name}': left out are classes of fewer than {spec.least} tokens: {names}.")
        if len(np.unique(task.types)) == 1:
            out.append(f"'{task.name}' stands on one word type only: it has no control task.")
        if len(np.unique(plan.groups)) < fewest(spec.level):
            out.append(f"'{task.name}': too few sentence groups for an interval.")
    return tuple(out)


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DescriptionLengthResult(Result):
    """``bits`` a label and ``compression`` (uniform over bits) with intervals, by labels, task, network and site; ``uniform`` bits a
    label, ``n`` labels sent; ``accuracy`` on held-out sentences after ``tokens`` were sent, by portion."""

    columns: ClassVar[tuple[str, ...]] = (
        "labels", "task", "network", "site", "depth", "portion", "bits", "bits_low", "bits_high", "compression", "compression_low",
        "compression_high", "uniform", "n", "accuracy", "tokens",
    )  # fmt: skip

    def summary(self) -> str:
        """For each label set the site that needs fewest bits, beside control, shuffled labels and the uniform code."""
        lines = [f"{self.kind}:"]
        for name in self.values["labels"].values:
            v: Any = self.values.sel(labels=name, network="model")
            best = v.isel(site=int(v.bits.sel(task="labels").values.argmin()))
            sent, control, chance = (float(best.bits.sel(task=task)) for task in TASKS)
            last = best.accuracy.sel(task="labels").dropna("portion")
            lines.append(
                f"'{name}': at {best.site.item()}, the best of {len(v.site)} sites, {sent:.3f} bits a label, {control:.3f} for "
                f"control tasks, {chance:.3f} for shuffled labels (uniform {float(best.uniform):.3f}); {int(best.n)} labels sent, held-out "
                f"accuracy {float(last[0]):.3f} after the first portion and {float(last[-1]):.3f} after all."
            )
        return "\n".join([*lines, *self.notes])

    def plot(self) -> Any:
        """Bits a label over depth with their interval, one line a network and task; the first label set."""
        v = self.values.isel(labels=0)
        frame = v.drop_vars(["accuracy", "tokens", "portion"]).to_dataframe().reset_index()
        frame = frame.dropna(subset=["bits"]).assign(line=lambda f: f["network"] + ", " + f["task"])
        titles = {
            "title": f"Describing '{v.labels.item()}'", "depth": "site, from the embedding up", "bits": "bits a label, sent online",
            "line": "network, task", "reference": "uniform code",
        }  # fmt: skip
        return curve_with_band(frame, "depth", "bits", "bits_low", "bits_high", colour="line", titles=titles, reference=float(v.uniform))


INSTRUMENT = Instrument(
    name="description-length",
    question="How few bits do labels take for someone who has the representations, and how soon are they learnt?",
    spec=DescriptionLengthSpec,
    needs=Needs(reads=("tokens",), sites=("blocks.*.hook_resid_post",), inputs=("batch", "labels")),
    compute=compute,
    floors={"organism": "town", "null": "shuffled labels at no fewer bits than their entropy"},
)
