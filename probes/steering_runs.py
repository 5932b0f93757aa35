"""Runs of a model that is pushed along a direction at one site: answers, next-token losses, and what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.concept_read import Concept, Reading
from probes.target import Target, device_of, read_target
from probes.token_items import TokenItems, read_items, rows_a_pass, slices
from workbench.core.errors import BadValue
from workbench.core.protocol import Apply, Edit, HookedModel, Inputs
from workbench.core.sites import Site
from workbench.engine.generate import generate

PROMPTS = 4
"""Texts that are written on."""


@dataclass(frozen=True)
class Push:
    """Add ``along`` (length 1) times ``length`` at ``site``, or (None) take it out: at every token, or at the last of each item."""

    site: str
    along: Float[Tensor, " feature"]
    length: float | None
    where: str = "all"

    def edit(self, last: Bool[Tensor, "batch pos"] | None = None) -> Edit:
        """The edit of one run; ``last`` marks the tokens pushed where it is not all of them."""

        def moved(old: Tensor, site: Site) -> Tensor:
            along = self.along.to(old.device, old.dtype).view(old.shape[2:])
            if self.length is None:
                own = (old * along).flatten(2).sum(-1).view(*old.shape[:2], *[1] * (old.ndim - 2))
                new = old - own * along
            else:
                new = old + self.length * along
            return new if last is None else torch.where(last.to(old.device).view(*old.shape[:2], *[1] * (old.ndim - 2)), new, old)

        return Apply(self.site, fn=moved)


@dataclass(frozen=True)
class Outcome:
    """The answer of each held-out item, and the mean next-token loss (nats) of each text that has a next token."""

    answers: np.ndarray
    losses: np.ndarray


@dataclass(frozen=True)
class Runs:
    """Held-out items with their target; and the texts whose loss is the price (None: the items themselves)."""

    model: HookedModel
    items: TokenItems
    target: Target
    texts: TokenItems | None
    groups: np.ndarray
    loss_groups: np.ndarray
    tokens_a_pass: int
    prompts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def outcome(self, push: Push | None = None) -> Outcome:
        """Run everything once. Raises BadValue where an answer is not finite."""
        losses: list[Tensor] = []
        found: list[Tensor] = []
        for part in slices(len(self.items), rows_a_pass(self.tokens_a_pass, self.items.width)):
            logits = self._logits(self.items, part, push)
            rows = self.target.rows(part)
            found.append(rows.read(logits[torch.arange(len(logits)), rows.positions.to(logits.device)]).double().cpu())
            if self.texts is None:
                losses.append(next_token_losses(logits, self.items, part))
        if self.texts is not None:
            for part in slices(len(self.texts), rows_a_pass(self.tokens_a_pass, self.texts.width)):
                losses.append(next_token_losses(self._logits(self.texts, part, push), self.texts, part))
        answers = torch.cat(found)
        if not bool(answers.isfinite().all()):
            raise BadValue("the answer", "NaN or infinity", "finite", do="The weights are broken, or a dose is far too large.")
        if getattr(self.model, "both_ways", False):  # no token is predicted from those before it alone
            return Outcome(answers.numpy(), np.zeros(0))
        loss = torch.cat(losses)[(self.items if self.texts is None else self.texts).lengths > 1]
        if not bool(loss.isfinite().all()):
            raise BadValue("the next-token loss", "NaN or infinity", "finite", do="The weights are broken, or a dose is far too large.")
        return Outcome(answers.numpy(), loss.numpy())

    def _logits(self, items: TokenItems, part: slice, push: Push | None) -> Tensor:
        last = None
        if push is not None and push.where == "last":
            last = torch.arange(items.width) == items.lengths[part, None] - 1
        edits = [] if push is None else [push.edit(last)]
        trace = self.model.run(items.given(self.model, part, device_of(self.model)), edit=edits, logits="all")
        assert trace.logits is not None
        return trace.logits.detach()

    def written(self, pushes: Sequence[Push | None], most: int) -> list[list[str]]:
        """What the model writes after each prompt, one list a push (None: as it is); empty where it writes nothing."""
        if not most or not self.prompts:
            return []
        return [generate(self._pushed(push), self.prompts, most=most) for push in pushes]

    def _pushed(self, push: Push | None) -> Any:
        return self.model if push is None else _Pushed(self.model, push)


class _Pushed:
    """A model that is pushed in every run, at every token."""

    def __init__(self, model: HookedModel, push: Push) -> None:
        self._model, self._edit = model, replace(push, where="all").edit()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def run(self, batch: Any, *, edit: Sequence[Edit] = (), **named: Any) -> Any:
        return self._model.run(batch, edit=[*edit, self._edit], **named)


def read_runs(
    model: HookedModel, inputs: Inputs, items: TokenItems, groups: np.ndarray, concept: Concept, spec: Reading, write: int
) -> Runs:  # fmt: skip
    """The held-out items, those of groups that no direction was fitted to. Raises BadValue for targets that do not fit."""
    target = read_target(model, items, inputs, spec.quantity, None)
    held = ~np.isin(groups, np.unique(concept.groups[concept.train.numpy()]))
    rows = torch.from_numpy(np.flatnonzero(held))
    chosen = TokenItems(items.ids[rows], items.lengths[rows], items.control[rows], items.pieces[held], items.bos_added, items.framed)
    texts = read_items(model, Inputs(list(inputs.texts)), bos=spec.bos) if inputs.texts is not None else None
    notes, prompts = [], ()
    if write:
        given = [inputs.batch] if isinstance(inputs.batch, str) else inputs.batch
        if "generate" in model.abilities and model.tokenizer is not None and isinstance(given, list | tuple):
            prompts = tuple(str(given[row]) for row in rows[:PROMPTS].tolist())
        else:
            notes.append("Nothing was written: that takes texts, and a model that writes.")
    if getattr(model, "both_ways", False):
        notes.append("The price is not known: this model does not predict the next token.")
    lengths = chosen.lengths if texts is None else texts.lengths
    loss_groups = (groups[held] if texts is None else np.arange(len(texts)))[(lengths > 1).numpy()]
    return Runs(model, chosen, target.rows(rows), texts, groups[held], loss_groups, spec.tokens_a_pass, prompts, tuple(notes))


def next_token_losses(logits: Float[Tensor, "batch pos d_vocab"], items: TokenItems, part: slice) -> Float[Tensor, " batch"]:
    """The mean next-token loss of each item (nats, float64); 0 where it has one token alone, and none to predict."""
    ids: Int[Tensor, "batch pos"] = items.ids[part].to(logits.device)
    own = logits[:, :-1].double().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    real = items.real[part][:, 1:].to(logits.device)
    return -((own * real).sum(1) / real.sum(1).clamp_min(1)).cpu()
