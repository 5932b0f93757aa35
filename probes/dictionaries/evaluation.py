"""How much of a model's working a dictionary keeps: loss with its reconstruction in the activations' place, and what its features do.

    recovered = (loss without - loss with the reconstruction) / (loss without - loss as it is)

*loss* is the mean cross-entropy of the token that follows, in nats; *without* puts zero, or the mean activation, in the same places.
1: nothing is lost; 0: no better than nothing there. Zero ablation often wrecks a model outright, which flatters all, so both stand
side by side. Control tokens keep their own activation in every case: theirs are unlike any other, and no dictionary is trained on them.

    explained = 1 - sum |y - reconstruction|^2 / sum |y - mean y|^2          over all tokens and coordinates together
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.dictionaries.dictionary import Dictionary
from probes.target import device_of
from probes.token_items import TokenItems, rows_a_pass, slices
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel, Progress, Replace

AT_ONCE = 2048
"""Rows whose features are held at a time."""


class Tally:
    """What a dictionary did with rows: sums that a stream of any length adds to, and each feature's strongest rows."""

    def __init__(self, dictionary: Dictionary, examples: int = 0) -> None:
        self.dictionary = dictionary
        count, width = dictionary.spec.d_sae, dictionary.spec.width_out
        self.rows = 0
        self.error, self.second = (torch.zeros((), dtype=torch.float64) for _ in range(2))
        self.first = torch.zeros(width, dtype=torch.float64)
        self.fired = torch.zeros(count, dtype=torch.long)
        self.energy = torch.zeros(count, dtype=torch.float64)
        self.best = torch.zeros(count, examples)
        self.place = torch.full((count, examples), -1, dtype=torch.long)

    def add(self, x: Float[Tensor, "row d_in"], y: Float[Tensor, "row d_out"], place: Int[Tensor, " row"]) -> Float[Tensor, "row d_out"]:
        """Count raw rows, and return their reconstruction. ``place`` numbers them."""
        d, out = self.dictionary, []
        for part in torch.arange(len(x)).split(AT_ONCE):
            with torch.no_grad():
                features = d.encode(x[part].to(d.decoder))
                out.append(d.decode(features).to(y))
            features = features.cpu()
            self.fired += (features > 0).sum(0)
            self.energy += features.double().square().sum(0)
            if self.best.shape[1]:
                both = torch.cat([self.best, features.T.float()], 1)
                places = torch.cat([self.place, place[part].expand(len(both), -1)], 1)
                self.best, at = both.topk(self.best.shape[1])
                self.place = places.gather(1, at).masked_fill(self.best <= 0, -1)
        found = torch.cat(out)
        wide = y.double().cpu()
        self.error += (wide - found.double().cpu()).square().sum()
        self.first += wide.sum(0)
        self.second += wide.square().sum()
        self.rows += len(x)
        return found

    @property
    def explained(self) -> float:
        """Explained variance; NaN where the rows do not vary."""
        spread = float(self.second - self.first.square().sum() / self.rows)
        return 1 - float(self.error) / spread if spread > 0 else float("nan")

    @property
    def active(self) -> float:
        """Features active in a row, on average (L0)."""
        return float(self.fired.sum()) / self.rows

    @property
    def density(self) -> Float[Tensor, " feature"]:
        """The share of rows each feature is active in."""
        return self.fired.double() / self.rows


@dataclass(frozen=True)
class Losses:
    """By case and item: the summed cross-entropy ``[case, item]`` (nats), and how many tokens it is of ``[item]``. Cases: the model as it
    is, zero, mean, then the dictionaries."""

    total: Float[Tensor, "case item"]
    tokens: Int[Tensor, " item"]


def passes(model: HookedModel, items: TokenItems, chosen: Sequence[int], tokens: int) -> Iterator[tuple[Tensor, TokenItems]]:
    """The chosen items in parts, the numbers of each."""
    for part in slices(len(chosen), rows_a_pass(tokens, items.width)):
        numbers = torch.tensor(list(chosen[part]))
        yield (
            numbers,
            TokenItems(
                items.ids[numbers],
                items.lengths[numbers],
                items.control[numbers],
                items.pieces[numbers.numpy()],
                items.bos_added,
                items.framed,
            ),
        )


def rows_at(
    model: HookedModel, items: TokenItems, chosen: Sequence[int], sites: Sequence[str], tokens: int, progress: Progress
) -> list[Float[Tensor, "row _"]]:
    """The activations of every real token that is no control token, for each of ``sites``. Raises BadValue for NaN."""
    kept: list[list[Tensor]] = [[] for _ in sites]
    device, done = device_of(model), 0
    for numbers, some in passes(model, items, chosen, tokens):
        trace = model.run(some.given(model, slice(None), device), capture=list(sites), logits=None)
        for site, place in zip(sites, kept, strict=True):
            place.append(checked(trace[site].detach().cpu()[some.real & ~some.control], site))
        done += len(numbers)
        progress(done, len(chosen), "items")
    return [torch.cat(place) for place in kept]


def checked(rows: Tensor, site: str) -> Tensor:
    """``rows``, finite. Raises BadValue."""
    if not bool(torch.isfinite(rows).all()):
        raise BadValue(f"the activation at '{site}'", "NaN or infinity", "finite numbers", do="The weights are broken.")
    return rows


def losses(
    model: HookedModel, items: TokenItems, chosen: Sequence[int], tallies: Mapping[str, Tally], sites: tuple[str, str],
    mean: Float[Tensor, " d_out"], tokens: int, progress: Progress,
) -> Losses:  # fmt: skip
    """Run every chosen item as it is and with each replacement at the second of ``sites``; the dictionaries read the first. Their tallies
    count the tokens on the way."""
    device, done, width = device_of(model), 0, items.width
    totals, counts = [], []
    for numbers, some in passes(model, items, chosen, tokens):
        batch = some.given(model, slice(None), device)
        trace = model.run(batch, capture=list(dict.fromkeys(sites)))
        x, y = (trace[site].detach() for site in sites)
        counted = some.real & ~some.control
        place = (numbers[:, None] * width + torch.arange(width))[counted]
        here = counted.to(y.device)
        rows = checked(x[here], sites[0]), checked(y[here], sites[1])
        found = [_cross_entropy(_logits(trace.logits), some)]
        for value in (torch.zeros_like(rows[1]), mean.to(y).expand_as(rows[1]), *(tally.add(*rows, place) for tally in tallies.values())):
            changed = y.clone()
            changed[here] = value
            found.append(_cross_entropy(_logits(model.run(batch, edit=[Replace(sites[1], value=changed)]).logits), some))
        totals.append(torch.stack(found))
        counts.append((_asked(some)).sum(1))
        done += len(numbers)
        progress(done, len(chosen), "items")
    return Losses(torch.cat(totals, 1), torch.cat(counts))


def _asked(items: TokenItems) -> Bool[Tensor, "item _"]:
    """Where a real token follows."""
    return items.real[:, 1:]


def _cross_entropy(logits: Float[Tensor, "item pos token"], items: TokenItems) -> Float[Tensor, " item"]:
    """The summed surprise at the tokens that follow, in nats."""
    logs = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    each = -logs.gather(-1, items.ids[:, 1:, None].to(logs.device))[..., 0].double().cpu()
    return torch.where(_asked(items), each, 0.0).sum(1)


def _logits(found: Tensor | None) -> Tensor:
    assert found is not None, "logits were asked for"
    if not bool(torch.isfinite(found).all()):
        raise BadValue("the model's logits", "NaN or infinity", "finite numbers", do="The weights are broken.")
    return found.detach()
