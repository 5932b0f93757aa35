"""What a concept's directions are fitted to: labelled tokens, their vectors at the chosen sites, and the slopes of an answer there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.probe_labels import Task, held_out, make_splits, read_labels, sentence_groups
from probes.target import Quantity, Target, device_of, read_target
from probes.token_items import TokenItems, rows_a_pass, slices
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.sites import Site


@runtime_checkable
class Reading(Protocol):
    """The fields of a spec that say what is read."""

    @property
    def sites(self) -> tuple[str, ...]: ...
    @property
    def concept(self) -> str: ...
    @property
    def position(self) -> int | None: ...
    @property
    def test_share(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def max_cells(self) -> int: ...
    @property
    def tokens_a_pass(self) -> int: ...
    @property
    def quantity(self) -> Quantity: ...
    @property
    def bos(self) -> bool: ...


@dataclass(frozen=True)
class Concept:
    """The tokens of one label set: flat positions in the batch, whether the concept is there, which train, and sentence groups."""

    name: str
    concept: str
    where: Int[Tensor, " token"]
    present: Bool[Tensor, " token"]
    train: Bool[Tensor, " token"]
    groups: np.ndarray


@dataclass(frozen=True)
class Read:
    """Vectors at every labelled token (flat positions ``where``, sorted) by site, and an answer's slopes there."""

    where: Int[Tensor, " token"]
    features: Mapping[str, Float[Tensor, "token feature"]]
    gradients: Mapping[str, Float[Tensor, "token feature"]] | None = None

    @property
    def sites(self) -> list[str]:
        """The sites, from the first to the last."""
        return list(self.features)

    def at(self, site: str, one: Concept) -> Float[Tensor, "token feature"]:
        """The vectors of a concept's tokens."""
        return self.features[site][torch.searchsorted(self.where, one.where)]

    def slopes(self, site: str, one: Concept) -> Float[Tensor, "token feature"]:
        """The answer's slopes at a concept's tokens."""
        assert self.gradients is not None, "targets were given"
        return self.gradients[site][torch.searchsorted(self.where, one.where)]


def read_concepts(items: TokenItems, inputs: Inputs, spec: Reading) -> tuple[list[Concept], np.ndarray]:
    """The label sets of ``inputs`` as a concept against the rest, on one split by sentence groups; and the group of every item.

    Raises BadValue where the concept is not among the classes, is not named among several, or is on one side of the split alone.
    """
    groups = sentence_groups(items, inputs.groups)
    test = held_out(groups, spec.test_share, spec.seed, "different sentences or groups")
    out = []
    for task in read_labels(items, inputs.labels, spec.position):
        of = groups[task.where // items.ids.shape[1]]
        (split,) = make_splits(task, of, test, new_types=False, fraction=spec.test_share, seed=spec.seed)
        concept = _chosen(task, spec.concept)
        present = task.codes == task.classes.index(concept)
        for words, side in (("training", split.train), ("held-out", split.test)):
            if present[side].all() or not present[side].any():
                raise BadValue(f"the {words} tokens of '{task.name}'", "of one side alone", f"some with '{concept}' and some without",
                               do="Give more sentences.")  # fmt: skip
        tensors = (torch.from_numpy(np.ascontiguousarray(array)) for array in (task.where, present, split.train))
        out.append(Concept(task.name, concept, *tensors, groups=of))
    return out, groups


def _chosen(task: Task, concept: str) -> str:
    if not concept:
        if len(task.classes) > 2:
            raise BadValue(f"the classes of '{task.name}'", f"{len(task.classes)} of them", "two, or one named as the concept",
                           do=f"Set concept to one of {', '.join(task.classes[:12])}.")  # fmt: skip
        return list(task.classes)[-1]
    if concept not in task.classes:
        raise BadValue("concept", concept, f"a class of '{task.name}': {', '.join(task.classes[:12])}")
    return concept


def read_features(
    model: HookedModel, inputs: Inputs, items: TokenItems, concepts: list[Concept], spec: Reading, progress: Progress
) -> Read:  # fmt: skip
    """One pass over all items; with ``inputs.targets`` a second one, for the slopes. Raises BadValue and Incompatible."""
    sites, where = token_sites(model, spec.sites), torch.cat([one.where for one in concepts]).unique()
    target = None
    if inputs.targets is not None:
        if "grad" not in model.abilities:
            raise Incompatible(
                "concept-direction", f"this {model.family} model", ["the model does not offer grad"], do="Leave targets out."
            )
        target = read_target(model, items, inputs, spec.quantity, None)
    elif inputs.foils is not None:
        raise BadValue("inputs.foils", "given", "left out where there are no targets")
    kept: dict[str, list[Tensor]] = {site.name: [] for site in sites}
    slopes: dict[str, list[Tensor]] = {site.name: [] for site in sites}
    width = items.ids.shape[1]
    for part in slices(len(items), rows_a_pass(spec.tokens_a_pass, width)):
        inside = where[(where >= part.start * width) & (where < part.stop * width)] - part.start * width
        trace = model.run(items.given(model, part, device_of(model)), capture=sites, logits=None)
        for site in sites:
            flat = trace[site].detach().flatten(2).flatten(0, 1)
            _check(flat, site, len(where) * len(sites), spec.max_cells)
            kept[site.name].append(flat[inside.to(flat.device)].cpu())
        if target is not None:
            for name, slope in _slopes(model, items, part, target, sites).items():
                slopes[name].append(slope[inside.to(slope.device)].cpu())
        progress(part.stop, len(items), "items")
    joined = {name: torch.cat(rows) for name, rows in kept.items()}
    return Read(where, joined, {name: torch.cat(rows) for name, rows in slopes.items()} if target is not None else None)


def token_sites(model: HookedModel, wanted: tuple[str, ...]) -> tuple[Site, ...]:
    """The sites chosen, each with one vector a token. Raises EmptySelection and BadValue."""
    sites = model.sites().select(wanted)
    for site in sites:
        if site.axes[:2] != ("batch", "pos"):
            raise BadValue(f"the axes of site '{site.name}'", site.axes, "batch and pos first: a direction is of one vector a token")
    return sites


def _slopes(model: HookedModel, items: TokenItems, part: slice, target: Target, sites: tuple[Site, ...]) -> dict[str, Tensor]:
    """The gradient of the summed answers at every token (an item's answer depends on its own tokens alone)."""
    given, rows = items.given(model, part, device_of(model)), target.rows(part)
    with torch.enable_grad():
        trace = model.run(given, capture=sites, logits="all", grad=True)
        assert trace.logits is not None
        at = trace.logits[torch.arange(len(rows.positions)), rows.positions.to(trace.logits.device)]
        places: list[Any] = [trace[site] for site in sites]
        found = torch.autograd.grad(rows.read(at).sum(), places, allow_unused=True)
    return {site.name: (torch.zeros_like(place) if slope is None else slope).detach().flatten(2).flatten(0, 1)
            for site, place, slope in zip(sites, places, found, strict=True)}  # fmt: skip


def _check(flat: Tensor, site: Site, rows: int, most: int) -> None:
    if rows * flat.shape[1] > most:
        raise BadValue(
            "the size of the features", f"{rows * flat.shape[1]:,} numbers", f"at most max_cells = {most:,}",
            do="Give fewer items or sites, or raise max_cells.",
        )  # fmt: skip
    if not bool(torch.isfinite(flat).all()):
        raise BadValue(f"the activation at '{site.name}'", "NaN or infinity", "finite numbers", do="The weights are broken.")
