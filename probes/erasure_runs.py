"""What erasing runs on: three sets of sentence groups, erasers fitted to the first in the order of the sites, and runs of the others.

fit      the erasers
probe    the probes that look for what is left: on tokens no eraser has seen, where its exactness in the sample is of no help
test     what is reported: the probes' accuracy, the answers, the next-token loss
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.concept_erasers import AnyEraser, ByPosition, Eraser, inlp, leace
from probes.probe_fit import Job
from probes.ridge import Moments, one_hot
from probes.steering_runs import next_token_losses
from probes.target import Target, device_of
from probes.token_items import TokenItems, rows_a_pass, slices
from workbench.core.errors import BadValue
from workbench.core.protocol import Apply, Edit, HookedModel
from workbench.core.sites import Site

Erasers = Mapping[str, AnyEraser]
"""What is erased at which site."""


@dataclass(frozen=True)
class Part:
    """Some of the items with their labelled tokens: flat positions in these items (ascending) and class codes.

    ``erased`` is true at the tokens that erasers are applied to (None: all of them).
    """

    items: TokenItems
    where: np.ndarray
    codes: np.ndarray
    erased: Bool[Tensor, "batch pos"] | None = None

    def edits(self, erasers: Erasers, part: slice) -> list[Edit]:
        """The edits of one run of the items in ``part``."""
        at = None if self.erased is None else self.erased[part]
        return [erasing(site, eraser, at) for site, eraser in erasers.items() if eraser.rank]


def erasing(site: str, eraser: AnyEraser, at: Bool[Tensor, "batch pos"] | None = None) -> Edit:
    """``eraser`` as an edit of ``site``, whose axes after the first two are one vector: at every token, or where ``at`` is true."""

    def cleaned(old: Tensor, _: Site) -> Tensor:
        new = eraser(old.flatten(2)).view(old.shape)
        return new if at is None else torch.where(at.to(old.device).view(*old.shape[:2], *[1] * (old.ndim - 2)), new, old)

    return Apply(site, fn=cleaned)


@dataclass(frozen=True)
class How:
    """How erasers are fitted; ``check`` marks the fitting tokens on which null-space projection decides when it is done; ``each``: an
    eraser for each position."""

    way: str
    classes: int
    strength: float
    rounds: int
    max_cells: int
    check: np.ndarray
    each: bool = False


class Fitting:
    """One eraser from the vectors of fitting tokens, given chunk by chunk."""

    def __init__(self, how: How) -> None:
        self._how, self._size = how, 0
        self._sums, self._rows = Moments(), []

    def take(self, site: str, x: Float[Tensor, "token feature"], codes: Int[Tensor, " token"], check: Bool[Tensor, " token"]) -> None:
        """Take in more tokens. Raises BadValue for numbers that are not finite, and for too many of them to be kept."""
        finite(x, f"the activation at '{site}'")
        if self._how.way == "leace":
            self._sums.add(x, one_hot(codes[:, None], self._how.classes).to(x.device))
            return
        self._size += x.numel()
        if self._size > self._how.max_cells:
            raise BadValue("the size of the features", f"over {self._size:,} numbers", f"at most max_cells = {self._how.max_cells:,}",
                           do="Give fewer items, take way=leace, or raise max_cells.")  # fmt: skip
        self._rows.append((x.cpu(), codes, check))

    def eraser(self) -> Eraser:
        """The eraser of all that was taken in. Raises BadValue where null-space projection has nothing to check itself on."""
        if self._how.way == "leace":
            return leace(self._sums)
        x, codes, check = (torch.cat(rows) for rows in zip(*self._rows, strict=True))
        if not bool(check.any()) or bool(check.all()):
            raise BadValue("the number of groups that erasers are fitted to", 1, "at least 2 for way=inlp, which checks itself on some",
                           do="Give more sentences.")  # fmt: skip
        return inlp(x, codes, self._how.classes, check, strength=self._how.strength, rounds=self._how.rounds)


@dataclass(frozen=True)
class Outcome:
    """A run with something erased: right answers of probes by site ``[token]``, answers an item, and losses a text (may be empty)."""

    right: dict[str, np.ndarray]
    shuffled: dict[str, np.ndarray]
    answers: np.ndarray
    losses: np.ndarray


@dataclass(frozen=True)
class Bench:
    """The model, the sites in the order of a run, the items erasers are fitted to (``fit``) and the rest (``held``, of which rows ``test``
    are answered for), and the texts whose loss is the price (None: the test items)."""

    model: HookedModel
    sites: tuple[Site, ...]
    fit: Part
    held: Part
    test: Int[Tensor, " item"]
    job: Job
    how: How
    target: Target | None
    texts: TokenItems | None
    tokens_a_pass: int

    def fitted(self, sites: Sequence[Site], before: Erasers) -> dict[str, AnyEraser]:
        """Erasers for ``sites``, from one pass over the fitting items with ``before`` erased."""
        items, where = self.fit.items, torch.from_numpy(self.fit.where)
        codes, check = torch.from_numpy(self.fit.codes), torch.from_numpy(self.how.check)
        place = where % items.width if self.how.each else torch.zeros_like(where)
        fits = {site.name: [Fitting(self.how) for _ in range(int(place.max()) + 1)] for site in sites}
        for part in slices(len(items), rows_a_pass(self.tokens_a_pass, items.width)):
            given = items.given(self.model, part, device_of(self.model))
            trace = self.model.run(given, capture=tuple(sites), edit=self.fit.edits(before, part), logits=None)
            inside = (where >= part.start * items.width) & (where < part.stop * items.width)
            for site in sites:
                flat = trace[site].detach().flatten(2).flatten(0, 1)
                for number, fit in enumerate(fits[site.name]):
                    mine = inside & (place == number)
                    fit.take(site.name, flat[(where[mine] - part.start * items.width).to(flat.device)], codes[mine], check[mine])
        out: dict[str, AnyEraser] = {}
        for name, places in fits.items():
            made = tuple(one.eraser() for one in places)
            out[name] = ByPosition(made) if self.how.each else made[0]
        return out

    def scrubbed(self) -> dict[str, AnyEraser]:
        """An eraser for every site, each fitted to what the erasers before it have left (concept scrubbing)."""
        found: dict[str, AnyEraser] = {}
        for site in self.sites:
            found.update(self.fitted([site], found))
        return found

    def outcome(self, erasers: Erasers) -> Outcome:
        """Run the rest of the items with ``erasers``: probes at every site, answers and losses. Raises BadValue for what is not finite."""
        items, answers, losses = self.held.items, [], []
        wanted = torch.zeros(len(items), dtype=torch.bool)
        wanted[self.test] = True
        one_way = predicts_next(self.model)
        logits = "all" if self.target is not None or (one_way and self.texts is None) else None
        for part in slices(len(items), rows_a_pass(self.tokens_a_pass, items.width)):
            given = items.given(self.model, part, device_of(self.model))
            trace = self.model.run(given, capture=self.sites, edit=self.held.edits(erasers, part), logits=logits)
            for site in self.sites:
                flat = trace[site].detach().flatten(2).flatten(0, 1)
                finite(flat, f"the activation at '{site.name}'")
                self.job.take("model", site.name, flat, first=part.start * items.width)
            if trace.logits is not None:
                answers.append(self._answers(trace.logits.detach(), part)[wanted[part]])
                losses.append(next_token_losses(trace.logits.detach(), items, part)[wanted[part]])
        cells = {site.name: next(self.job.score("model", site.name)) for site in self.sites}
        loss = self._losses(erasers, losses) if one_way else torch.zeros(0)
        said = torch.cat(answers) if self.target is not None else torch.zeros(0)
        finite(said, "the answer")
        finite(loss, "the next-token loss")
        right, shuffled = ({name: getattr(cell, what) for name, cell in cells.items()} for what in ("labels", "shuffled"))
        return Outcome(right, shuffled, said.numpy(), loss.numpy())

    def _answers(self, logits: Float[Tensor, "batch pos d_vocab"], part: slice) -> Float[Tensor, " batch"]:
        if self.target is None:
            return torch.zeros(len(logits))
        rows = self.target.rows(part)
        return rows.read(logits[torch.arange(len(logits)), rows.positions.to(logits.device)]).double().cpu()

    def _losses(self, erasers: Erasers, own: list[Tensor]) -> Tensor:
        """The loss of each test item that has a next token, or of each text, in which every token is erased."""
        if self.texts is None:
            return torch.cat(own)[self.held.items.lengths[self.test] > 1]
        edits = [erasing(site, eraser) for site, eraser in erasers.items() if eraser.rank]
        found = []
        for part in slices(len(self.texts), rows_a_pass(self.tokens_a_pass, self.texts.width)):
            trace = self.model.run(self.texts.given(self.model, part, device_of(self.model)), edit=edits, logits="all")
            assert trace.logits is not None
            found.append(next_token_losses(trace.logits.detach(), self.texts, part))
        return torch.cat(found)[self.texts.lengths > 1]


def predicts_next(model: HookedModel) -> bool:
    """Whether the model's logits are those of the next token."""
    return "logits" in model.abilities and not getattr(model, "both_ways", False)


def finite(x: Tensor, what: str) -> None:
    """Raise BadValue where a number is not finite."""
    if not bool(x.isfinite().all()):
        raise BadValue(what, "NaN or infinity", "finite", do="The weights are broken.")
