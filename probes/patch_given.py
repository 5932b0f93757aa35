"""The two inputs of a patching: read, checked to be alike, and the activations that are put in place of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from probes.patch_metric import Metric, PatchQuantity, Read, target_quantity
from probes.places import Places, answers_of, is_own_batch, place_target, read_places, stack_of
from probes.target import device_of, read_target
from probes.token_items import TokenItems, read_items
from workbench.core.errors import BadValue
from workbench.core.protocol import Edit, FromTrace, HookedModel, Inputs, Trace, Zero
from workbench.core.sites import Site

Replacement = Literal["counterfactual", "zero", "mean", "resample"]


@dataclass(frozen=True)
class Side:
    """One input, clean or corrupt: its items, run as tokens or as a batch of the family's own type."""

    model: HookedModel
    items: TokenItems | Places

    def __len__(self) -> int:
        return len(self.items)

    def batch(self, rows: slice | Sequence[int]) -> Any:
        """What a run of the chosen rows is given."""
        device = device_of(self.model)
        if isinstance(self.items, Places):
            return self.items.batch.rows(rows).to(device)
        ids, real = self.items.ids[rows].to(device), self.items.real[rows].to(device)
        padded = getattr(self.model, "padded", None)
        return padded(ids, real) if padded is not None else ids


@dataclass(frozen=True)
class Given:
    """``clean`` and, where there is one, ``other``: the corrupt input, item by item, or the rows that means and samples are taken of."""

    clean: Side
    other: Side | None
    metric: Metric
    asked: Tensor | None
    together: bool

    def logits(self, rows: slice) -> Any:
        """Which logits a run of the chosen rows is asked for."""
        return "all" if self.asked is None else self.asked[rows]

    def shared(self, rows: slice) -> int:
        """How many first tokens are the same in clean and corrupt items: where no token reads what comes after it, so is all of these."""
        if self.other is None or getattr(self.clean.model, "both_ways", False) or "cache" not in self.clean.model.abilities:
            return 0
        if not (isinstance(self.clean.items, TokenItems) and isinstance(self.other.items, TokenItems)):
            return 0
        differs = (self.clean.items.ids[rows] != self.other.items.ids[rows]).any(0)
        return int(differs.int().argmax()) if bool(differs.any()) else len(differs)


def read_given(
    model: HookedModel, inputs: Inputs, replacement: Replacement, quantity: PatchQuantity, position: int | None, stack: str, bos: bool,
    own: Read | None,
) -> Given:  # fmt: skip
    """Read and check both inputs. Raises BadValue: a model that drops activations at random, a corrupt input that is missing, or is not of
    the clean one's lengths, and whatever the items and the target alone would be refused for."""
    _check_still(model)
    whole = is_own_batch(model, inputs.batch)
    if stack and not whole:
        raise BadValue("stack", stack, "left out for token ids or text; give a batch of the family's own type")
    chosen = stack_of(model, stack)
    clean = Side(model, read_places(model, inputs, chosen) if whole else read_items(model, inputs, bos=bos))
    other = _other(model, inputs, replacement, chosen, bos, whole)
    if replacement == "counterfactual":
        assert other is not None
        _check_alike(clean.items, other.items)
    return Given(clean, other, *_metric(clean, inputs, quantity, position, own, chosen))


def _check_still(model: Any) -> None:
    """Raise BadValue where a run could differ from the next."""
    drops = getattr(model.config, "dropout", 0.0) or any(
        isinstance(part, torch.nn.Dropout) and part.p > 0 for part in getattr(model, "modules", list)()
    )
    if getattr(model, "training", False) and drops:
        raise BadValue(
            "the model's mode", "training, with dropout", "evaluation: two runs of one input must be equal", do="Call `model.eval()`."
        )


def _other(model: HookedModel, inputs: Inputs, replacement: Replacement, stack: str, bos: bool, whole: bool) -> Side | None:
    given = inputs.reference
    if replacement == "zero":
        if given is not None:
            raise BadValue("inputs.reference", "given", "left out where activations are replaced by zero")
        return None
    if given is None:
        if replacement == "counterfactual":
            raise BadValue(
                "inputs.reference", None, "given: the corrupt input, of the clean one's token lengths",
                do="Give it (`--set inputs.corrupt=\"…\"` beside `--text`), or choose `replacement` zero, mean or resample.",
            )  # fmt: skip
        return Side(model, read_places(model, inputs, stack) if whole else read_items(model, inputs, bos=bos))
    if isinstance(given, Inputs):
        pool = given
    else:
        lengths = inputs.lengths if isinstance(given, Tensor) and not whole and len(given) == len(inputs.batch) else None
        pool = Inputs(given, lengths)
    if is_own_batch(model, pool.batch) != whole:
        raise BadValue("inputs.reference", type(pool.batch).__name__, f"of the kind of inputs.batch, {type(inputs.batch).__name__}")
    return Side(model, read_places(model, pool, stack) if whole else read_items(model, pool, bos=bos))


def _check_alike(clean: TokenItems | Places, corrupt: TokenItems | Places) -> None:
    if len(clean) != len(corrupt):
        raise BadValue("the number of corrupt items", len(corrupt), f"{len(clean)}, one for each clean item")
    ours, theirs = clean.lengths.tolist(), corrupt.lengths.tolist()
    for item, (length, found) in enumerate(zip(ours, theirs, strict=True)):
        if length != found:
            raise BadValue(
                f"the length of corrupt item {item}", f"{found} tokens", f"{length} tokens, as the clean item's: activations are exchanged "
                "position by position", do=f"Clean: {_said(clean, item)}. Corrupt: {_said(corrupt, item)}.",
            )  # fmt: skip
    if clean.pieces.shape != corrupt.pieces.shape:
        raise BadValue("the shape of inputs.reference", corrupt.pieces.shape, f"{clean.pieces.shape}, as inputs.batch")


def _said(items: TokenItems | Places, item: int) -> str:
    return " | ".join(str(piece) for piece in items.pieces[item] if piece != "")


def _metric(
    clean: Side, inputs: Inputs, quantity: PatchQuantity, position: int | None, own: Read | None, stack: str
) -> tuple[Metric, Tensor | None, bool]:
    """The metric, the positions its logits are read at (None: the logits have none), and whether items are answers to each other."""
    model, items = clean.model, clean.items
    last = [site.stack for site in model.sites().values() if site.layer is not None][-1]
    if own is not None or quantity == "kl":  # neither is read for one answer
        inputs = replace(inputs, targets=torch.zeros(len(items), dtype=torch.long), foils=None)
        quantity = "logit" if own is not None else "kl"
    together, answers = answers_of(model, stack, last, target_quantity(quantity))
    if isinstance(items, TokenItems) and not getattr(model, "both_ways", False):
        target = read_target(model, items, inputs, target_quantity(quantity), position)
        return Metric(quantity, target, answers, own), target.positions[:, None], together
    first = model.run(clean.batch(slice(0, len(items) if together else 1))).logits
    if first is None:
        raise BadValue("the model's logits", None, "there: a metric reads them")
    if isinstance(items, TokenItems):
        ends = items.lengths - 1
    else:
        ends = items.ends if first.ndim == 3 and stack == last and first.shape[1] == items.width else None
    target = place_target(answers(first), inputs, target_quantity(quantity), position, len(items), ends)
    asked = target.positions[:, None] if answers(first).ndim == 3 else None
    return Metric(quantity, target, answers, own), asked, together


# --- what is put there ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """What replaces the activations of some rows: zeros, or what ``trace`` holds."""

    trace: Trace | None

    def edit(self, site: Site, at: dict[str, Any]) -> Edit:
        """The edit of one cell."""
        return Zero(site.name, at=at) if self.trace is None else FromTrace(site.name, trace=self.trace, at=at)


def means_of(side: Side, sites: Sequence[Site], like: TokenItems | Places) -> dict[str, Tensor]:
    """The mean activation of each site over the rows of ``side``, position by position over real ones ``[1, …]``. Raises BadValue where an
    item of ``like`` has a position that no row has, or its rows are of another width."""
    if side.items.width < like.width:
        raise BadValue(
            "the width of inputs.reference", side.items.width, f"{like.width} positions, as the items: the mean is taken by position"
        )
    real = side.items.real[:, : like.width]
    if bool((like.real.any(0) & ~real.any(0)).any()):
        raise BadValue(
            "inputs.reference", f"no real token at position {int((~real.any(0)).int().argmax())}", "one at each position of an item"
        )
    sums: dict[str, Tensor] = {}
    for start in range(0, len(side), ROWS):
        rows = slice(start, min(len(side), start + ROWS))
        trace = side.model.run(side.batch(rows), capture=sites, logits=None)
        for site in sites:
            total = (_cut(trace[site], site, like.width).double() * _weights(site, real[rows]).to(trace[site].device)).sum(0, keepdim=True)
            sums[site.name] = sums[site.name] + total if site.name in sums else total
    counts = {site.name: _weights(site, real).sum(0, keepdim=True).clamp(min=1) for site in sites}
    return {name: total / counts[name].to(total.device) for name, total in sums.items()}


ROWS = 16


def _cut(value: Tensor, site: Site, width: int) -> Tensor:
    for word in ("pos", "query", "key"):
        if word in site.axes and site.axes[0] == "batch" and value.shape[site.axis(word)] > width:
            value = value.narrow(site.axis(word), 0, width)
    return value


def _weights(site: Site, real: Tensor) -> Tensor:
    """Which entries of a site count: ``real [batch, pos]`` along the site's own positions, all where it has none."""
    word = next((w for w in ("pos", "query") if w in site.axes), None)
    shape = [real.shape[0], *[1] * (len(site.axes) - 1)]
    if word is None:
        return torch.ones(shape, dtype=torch.float64)
    shape[site.axis(word)] = real.shape[1]
    return real.double().reshape(shape)


def donors_of(side: Side, like: TokenItems | Places, *, own: bool, seed: int) -> np.ndarray:
    """For each item the row of ``side`` whose activations it gets: drawn at random from rows at least as long, never itself (``own``: the
    rows are the items). Raises BadValue where there is none."""
    draw = np.random.default_rng(seed)
    lengths = side.items.lengths.numpy()
    out = np.zeros(len(like), dtype=np.int64)
    for item, length in enumerate(like.lengths.tolist()):
        fit = [row for row in range(len(side)) if lengths[row] >= length and not (own and row == item)]
        if not fit or side.items.width != like.width:
            raise BadValue(
                f"the rows to sample for item {item}", f"{len(fit)} of {length} tokens or more, in a batch of {side.items.width} positions",
                f"at least one other, in a batch of {like.width} positions",
            )  # fmt: skip
        out[item] = fit[int(draw.integers(len(fit)))]
    return out


def of_means(means: dict[str, Tensor], sites: Sequence[Site], rows: int, dtype: Callable[[str], torch.dtype]) -> Trace:
    """The means as what a run of ``rows`` rows would have captured."""
    at = {site.name: means[site.name].to(dtype(site.name)).expand(rows, *means[site.name].shape[1:]) for site in sites}
    return Trace(None, at, {site.name: site for site in sites})
