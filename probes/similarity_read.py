"""Vectors of the same tokens in several models: tokens of text, or positions of one stack of any family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.places import Places, is_own_batch, read_places, stack_of
from probes.probe_labels import sentence_groups
from probes.target import device_of
from probes.token_items import TokenItems, read_items, rows_a_pass, slices
from workbench.core.errors import BadValue, EmptySelection, Incompatible
from workbench.core.protocol import HookedModel, Inputs
from workbench.core.sites import Site


@runtime_checkable
class Reading(Protocol):
    """The fields of a spec that say what is read."""

    @property
    def sites(self) -> tuple[str, ...]: ...
    @property
    def stack(self) -> str: ...
    @property
    def controls(self) -> bool: ...
    @property
    def bos(self) -> bool: ...
    @property
    def max_cells(self) -> int: ...
    @property
    def tokens_a_pass(self) -> int: ...


@dataclass(frozen=True)
class Rows:
    """The items, which of their positions are compared, and the sentence group of each of those."""

    items: TokenItems | Places
    stack: str
    kept: Bool[Tensor, "batch pos"]
    groups: Int[np.ndarray, " token"]

    @property
    def tokens(self) -> int:
        """How many positions are compared."""
        return int(self.kept.sum())


def others_of(model: HookedModel, reference: Any) -> dict[str, HookedModel]:
    """The models compared with ``model``, by name. Raises BadValue for what is no model, or no name."""
    if reference is None:
        return {}
    given = reference if isinstance(reference, Mapping) else {getattr(reference, "name", "") or "the other model": reference}
    for name, other in given.items():
        if not isinstance(other, HookedModel):
            raise BadValue("inputs.reference", type(other).__name__, "a model, or a mapping of names to models")
        if not isinstance(name, str) or not name or name == ITSELF:
            raise BadValue("a name in inputs.reference", name, f"a word other than '{ITSELF}'")
    if not given or (not isinstance(reference, Mapping) and reference.digest() == model.digest()):
        raise BadValue("inputs.reference", "the model itself" if given else "an empty mapping", "another model, or left out")
    return dict(given)


ITSELF = "itself"


def read_rows(model: HookedModel, inputs: Inputs, spec: Reading) -> Rows:
    """What is compared. Raises BadValue for a batch that cannot be meant, and for fewer than four positions."""
    stack = stack_of(model, spec.stack)
    if is_own_batch(model, inputs.batch):
        items: TokenItems | Places = read_places(model, inputs, stack)
        groups = _place_groups(len(items), inputs)
    else:
        items = read_items(model, inputs, bos=spec.bos)
        groups = sentence_groups(items, inputs.groups)
    kept = items.real if spec.controls else items.real & ~items.control
    if int(kept.sum()) < 4:
        raise BadValue("the number of tokens compared", int(kept.sum()), "at least 4, control tokens not counted", do="Give more text.")
    return Rows(items, stack, kept, np.repeat(groups, kept.sum(1).numpy()))


def _place_groups(count: int, inputs: Inputs) -> np.ndarray:
    if inputs.groups is None:
        return np.arange(count)
    if len(inputs.groups) != count:
        raise BadValue("the length of inputs.groups", len(inputs.groups), f"{count}, one an item")
    return np.unique([str(name) for name in inputs.groups], return_inverse=True)[1]


def sites_in(model: HookedModel, rows: Rows, spec: Reading) -> tuple[Site, ...]:
    """The chosen sites of the stack that is compared. Raises EmptySelection, and BadValue for one without a vector a position."""
    chosen = tuple(site for site in model.sites().select(spec.sites) if site.stack == rows.stack)
    if not chosen:
        raise EmptySelection("site", ", ".join(spec.sites), [site.name for site in model.sites().values() if site.stack == rows.stack],
                             where=f"in the stack '{rows.stack}'")  # fmt: skip
    for site in chosen:
        if site.axes[:2] != ("batch", "pos"):
            raise BadValue(f"the axes of site '{site.name}'", site.axes, "batch and pos first: vectors of the same positions are compared")
    return chosen


def check_same(model: HookedModel, other: HookedModel, name: str, inputs: Inputs, rows: Rows, spec: Reading) -> None:
    """Raise Incompatible unless ``other`` reads the items as the same positions as ``model`` does."""
    why = ""
    if isinstance(rows.items, TokenItems):
        if getattr(other, "reads", "tokens") != "tokens":
            why = f"it reads {getattr(other, 'reads', 'something else')}, and the items are tokens"
        elif not torch.equal(read_items(other, inputs, bos=spec.bos).ids, rows.items.ids):
            why = "its tokenizer makes other tokens of the texts, or numbers them differently"
    elif other.family != model.family:
        why = f"it is a {other.family} model, and such a batch is read by {model.family} models"
    if why:
        raise Incompatible("similarity", f"the model '{name}'", [why], do="Compare models that read the same inputs as the same positions.")


def features(
    model: HookedModel, rows: Rows, sites: tuple[Site, ...], spec: Reading, most: int
) -> dict[str, Float[Tensor, "token feature"]]:  # fmt: skip
    """The vectors of the compared positions at each site. ``most``: how many numbers are left to keep. Raises BadValue."""
    found: dict[str, list[Tensor]] = {site.name: [] for site in sites}
    for part, given in _passes(model, rows, spec):
        trace = model.run(given, capture=sites, logits=None)
        kept = rows.kept[part]
        for site in sites:
            value = trace[site].detach().flatten(2)
            if value.shape[:2] != kept.shape:
                raise BadValue(f"the positions of '{site.name}'", tuple(value.shape[:2]), f"{tuple(kept.shape)}, as in its stack")
            if not bool(value.isfinite().all()):
                raise BadValue(f"the activation at '{site.name}'", "NaN or infinity", "finite numbers", do="The weights are broken.")
            found[site.name].append(value[kept.to(value.device)].cpu())
            if (size := rows.tokens * sum(rest[0].shape[1] for rest in found.values() if rest)) > most:
                raise BadValue("the size of the features", f"over {size:,} numbers", f"at most max_cells = {spec.max_cells:,} in all",
                               do="Give fewer items or sites, or raise max_cells.")  # fmt: skip
    return {name: torch.cat(parts) for name, parts in found.items()}


def _passes(model: HookedModel, rows: Rows, spec: Reading) -> Iterator[tuple[slice, Any]]:
    device = device_of(model)
    if isinstance(rows.items, Places):
        yield from rows.items.passes(device)
        return
    for part in slices(len(rows.items), rows_a_pass(spec.tokens_a_pass, rows.items.width)):
        yield part, rows.items.given(model, part, device)


def blocks_of(groups: Int[np.ndarray, " token"], count: int, seed: int) -> Int[Tensor, " token"]:
    """``count`` blocks of whole groups, about as many groups in each; one block where there are too few groups for so many."""
    names, of = np.unique(groups, return_inverse=True)
    if len(names) < count:
        return torch.zeros(len(groups), dtype=torch.long)
    dealt = np.random.default_rng([seed, 9]).permutation(len(names)) % count
    return torch.from_numpy(dealt[of])
