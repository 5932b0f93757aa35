"""A patching made ready: both inputs read, the cells chosen, and what replaces their activations, some items at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from probes.patch_cells import WHOLE, Choice, Place, sites_of
from probes.patch_given import ROWS, Given, Side, Source, donors_of, means_of, of_means, read_given
from probes.patch_metric import Metric, Read
from probes.patch_spec import PatchSpec
from probes.places import stack_of
from probes.target import model_dtype
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel, Inputs
from workbench.core.sites import Site


@dataclass(frozen=True)
class Plan:
    """What is patched in what: the inputs, the sites of the cells, and the cells."""

    given: Given
    sites: tuple[Site, ...]
    places: Sequence[Place]
    spec: PatchSpec

    @property
    def counterfactual(self) -> bool:
        """Whether activations come from the other run of the same item, so that there is a corrupt value."""
        return self.spec.replacement == "counterfactual"

    @property
    def noising(self) -> bool:
        """Whether it is the clean input that is run."""
        return not self.counterfactual or self.spec.direction == "noising"

    @property
    def side(self) -> Side:
        """The input that is run."""
        side = self.given.clean if self.noising else self.given.other
        assert side is not None
        return side

    def real(self, place: Place, rows: slice) -> np.ndarray:
        """For which of some items ``[batch]`` a cell is at a real position, or at none."""
        real = self.side.items.real[rows].numpy()
        return real[:, place.pos] if place.pos != WHOLE and own(place) else np.ones(len(real), dtype=bool)

    def parts(self, also: Sequence[Site] = ()) -> Iterator[tuple[slice, Source]]:
        """Items in parts, with what replaces their activations at the cells' sites and at ``also``; for a counterfactual its trace has the
        logits of the run it comes from."""
        given, spec = self.given, self.spec
        sites = tuple(dict.fromkeys((*self.sites, *also)))
        count, other, items, model = len(given.clean), given.other, given.clean.items, given.clean.model
        size = count if given.together else ROWS
        sampled = spec.replacement == "resample"
        donors = donors_of(other, items, own=_same(given), seed=spec.seed) if sampled and other is not None else None
        means = means_of(other, sites, items) if spec.replacement == "mean" and other is not None else {}
        for start in range(0, count, size):
            rows = slice(start, min(count, start + size))
            if other is None:
                yield rows, Source(None)
            elif spec.replacement == "mean":
                yield rows, Source(of_means(means, sites, rows.stop - rows.start, lambda _: model_dtype(model)))
            elif donors is not None:
                yield rows, Source(model.run(other.batch(donors[rows].tolist()), capture=sites, logits=None))
            else:
                side = given.clean if spec.direction == "denoising" else other
                yield rows, Source(model.run(side.batch(rows), capture=sites, logits=given.logits(rows)))

    def metric(self, rows: slice, source: Source) -> Metric:
        """The metric of some items, for ``kl`` against the clean run's answers."""
        metric = self.given.metric.rows(rows)
        if metric.quantity != "kl":
            return metric
        if not self.noising and source.trace is not None and source.trace.logits is not None:
            return metric.compared_with(source.trace.logits)
        clean = self.given.clean
        logits = clean.model.run(clean.batch(rows), logits=self.given.logits(rows)).logits
        assert logits is not None
        return metric.compared_with(logits)

    def there(self, metric: Metric, source: Source) -> np.ndarray:
        """The values of the run that a counterfactual's activations come from."""
        assert source.trace is not None
        assert source.trace.logits is not None
        return finite(metric(source.trace.logits), "corrupt" if self.noising else "clean")


def read_plan(model: HookedModel, inputs: Inputs, spec: PatchSpec, metric: Read | None = None) -> Plan:
    """Read the inputs and choose the cells. Raises BadValue and UnknownName for what cannot be meant."""
    given = read_given(model, inputs, spec.replacement, spec.quantity, spec.position, spec.stack, spec.bos, metric)
    sites = sites_of(model, spec.components, spec.layers, stack_of(model, spec.stack))
    numbers = {"head": spec.heads, "pos": spec.positions, "neuron": spec.neurons}
    flat = tuple(site for by_layer in sites.values() for site in by_layer.values())
    return Plan(given, flat, Choice(spec.per, numbers).places(sites, shapes_of(given, flat)), spec)


def shapes_of(given: Given, sites: Sequence[Site]) -> Mapping[str, Sequence[int]]:
    """The shape of each site in a run of one item (of all, where they are answers to each other)."""
    rows = slice(0, len(given.clean) if given.together else 1)
    trace = given.clean.model.run(given.clean.batch(rows), capture=sites, logits=None)
    return {name: tuple(value.shape) for name, value in trace.at.items()}


def own(place: Place) -> bool:
    """Whether a cell's position is one of the stack whose items these are."""
    return any(word in place.site.axes for word in ("pos", "query"))


def finite(value: Tensor, which: str) -> np.ndarray:
    """The metric of a run as float64; BadValue where it is not finite."""
    values = value.detach().double().cpu().numpy()
    if not np.isfinite(values).all():
        broken = f"NaN or infinity in {int((~np.isfinite(values)).sum())} of {len(values)} items"
        raise BadValue(f"the {which} run's value", broken, "finite", do="The model's weights are broken, or the metric is.")
    return values


def _same(given: Given) -> bool:
    """Whether the rows sampled from are the items themselves."""
    assert given.other is not None
    ours, theirs = given.clean.items.data(), given.other.items.data()
    return all(
        a is b or (isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b))
        for a, b in zip(ours.values(), theirs.values(), strict=True)
    )
