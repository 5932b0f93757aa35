"""The scalar asked about as a function of the embeddings of an item's positions: what every method that edits the input runs on.

Positions are tokens, or patches, mel frames and words of one stack. Many edited versions of an item run as rows of one batch; versions that
are equal run once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.places import Places, answers_of, embedding_of, is_own_batch, place_target, read_places, stack_of
from probes.prefixes import can_share, prefix_values
from probes.target import EMBEDDING, Quantity, Target, device_of, embeddings_of, gradients_of, read_target, values_of
from probes.token_items import TokenItems, read_items, rows_a_pass, slices
from workbench.core.batch import EncoderBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel, Inputs, Replace


@runtime_checkable
class Question(Protocol):
    """The fields of a spec that say which scalar is asked about (``probes.gradient_once.GradientSpec`` has them)."""

    @property
    def quantity(self) -> Quantity: ...
    @property
    def position(self) -> int | None: ...
    @property
    def stack(self) -> str: ...
    @property
    def bos(self) -> bool: ...
    @property
    def tokens_a_pass(self) -> int: ...


@dataclass(frozen=True)
class Asked:
    """Items with their embeddings ``x`` ``[batch, pos, d_model]`` at ``site``, and the target's scalar ``value`` of each (float64).

    ``answers`` brings the logits of a family's own batch into ``[batch, (pos,) answer]`` (None: token ids, read by position);
    ``paired``: rows are answers to each other, so the batch runs whole.
    """

    model: HookedModel
    items: TokenItems | Places
    target: Target
    site: str
    x: Float[Tensor, "batch pos d_model"]
    value: Float[Tensor, " batch"]
    tokens_a_pass: int
    answers: Callable[[Tensor], Tensor] | None = None
    paired: bool = False

    def __len__(self) -> int:
        return len(self.items)

    @property
    def features(self) -> Bool[Tensor, "batch pos"]:
        """Positions that may be taken away: real, and no control token."""
        return self.items.real & ~self.items.control

    @property
    def matters(self) -> Bool[Tensor, "batch pos"]:
        """Positions that can move an item's scalar: real ones, and of a token decoder none behind the position that is read."""
        if not isinstance(self.items, TokenItems):
            return self.items.real
        return self.items.real & (torch.arange(self.items.width) <= self.target.positions[:, None])

    def values(self, rows: Int[Tensor, " n"], embeddings: Float[Tensor, "n pos d_model"]) -> Float[Tensor, " n"]:
        """The scalar of the items ``rows`` (repeats allowed) with these embeddings, float64 on the CPU, or BadValue."""
        if isinstance(self.items, TokenItems):
            width = int(self.items.lengths[rows].max())
            ids = self.items.ids[rows, :width]
            return values_of(self.model, ids, embeddings[:, :width], self.target.rows(rows), self.tokens_a_pass).double().cpu()
        return finite(self._scalars(rows, embeddings, grad=False).detach().double().cpu())

    def gradients(self, rows: Int[Tensor, " n"], embeddings: Float[Tensor, "n pos d_model"]) -> Float[Tensor, "n pos d_model"]:
        """d(scalar of a row)/d(its embeddings), one pass; zero past the end of an item."""
        if isinstance(self.items, TokenItems):
            width = int(self.items.lengths[rows].max())
            found = gradients_of(self.model, self.items.ids[rows, :width], embeddings[:, :width], self.target.rows(rows))
            return torch.nn.functional.pad(found, (0, 0, 0, embeddings.shape[1] - width))
        with torch.enable_grad():
            leaf = embeddings.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self._scalars(rows, leaf, grad=True).sum(), leaf)
        return gradient

    def passes(self, n: int) -> Iterator[slice]:
        """``n`` rows cut into what runs together."""
        return slices(n, rows_a_pass(self.tokens_a_pass, self.items.width))

    def kept_values(
        self, rows: Int[Tensor, " n"], kept: Bool[Tensor, "n pos"], start: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, " n"]:
        """The scalar of each row with ``start`` at the positions that are not ``kept``. Equal rows run once, untouched ones not at all,
        and what the rows of a token decoder share before their first difference is computed once."""
        kept = kept | ~self.matters[rows]
        keys = np.packbits(kept.numpy(), axis=1)
        keys = np.concatenate([rows.numpy().astype(">i8").view(np.uint8).reshape(len(rows), 8), keys], axis=1)
        _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        chosen = torch.from_numpy(first)
        found = torch.empty(len(chosen), dtype=torch.float64)
        whole = kept[chosen].all(1)
        found[whole] = self.value[rows[chosen[whole]]]
        todo = chosen[~whole]
        if isinstance(self.items, TokenItems) and can_share(self.model) and len(todo):
            found[~whole] = finite(prefix_values(self, rows[todo], kept[todo], start))
            return found[torch.from_numpy(inverse.reshape(-1))]
        order = self.items.lengths[rows[todo]].argsort(stable=True)  # short items share passes
        todo, parts = todo[order], []
        for part in self.passes(len(todo)):
            which = todo[part]
            at, here = rows[which].to(self.x.device), kept[which].to(self.x.device)[..., None]
            parts.append(self.values(rows[which], torch.where(here, self.x[at], start[at])))
        if parts:
            found[(~whole).nonzero()[:, 0][order]] = torch.cat(parts)
        return found[torch.from_numpy(inverse.reshape(-1))]

    def _scalars(self, rows: Tensor, embeddings: Tensor, *, grad: bool) -> Tensor:
        """Of a family's own batch."""
        assert isinstance(self.items, Places)
        if not self.paired:
            return self._read(self.items.batch.rows(rows.tolist()), embeddings, self.target.rows(rows), grad=grad)
        seen: Counter[int] = Counter()
        turn = torch.empty_like(rows)  # the copy of the batch in which a row is edited: in each, an item at most once
        for k, row in enumerate(rows.tolist()):
            turn[k], seen[row] = seen[row], seen[row] + 1
        at_once = max(1, rows_a_pass(self.tokens_a_pass, self.items.width) // len(self))
        found, order = [], []
        for first in range(0, max(seen.values()), at_once):
            here = ((turn >= first) & (turn < first + at_once)).nonzero()[:, 0]
            found.append(self._among_copies(rows[here], turn[here] - first, embeddings[here], grad=grad))
            order.append(here)
        return torch.cat(found)[torch.cat(order).argsort()]

    def _among_copies(self, rows: Tensor, copy: Tensor, embeddings: Tensor, *, grad: bool) -> Tensor:
        """Of items that answer one another: each row edited in its ``copy`` of the batch, whose other stack answers it unedited. All copies
        run as one batch; what one copy answers to another is left out."""
        assert isinstance(self.items, Places)
        copies = int(copy.max()) + 1
        place = (copy * len(self) + rows).to(self.x.device)
        whole = self.x.repeat(copies, 1, 1).index_copy(0, place, embeddings.to(self.x))
        logits = self._logits(self.items.batch.rows(list(range(len(self))) * copies), whole, "all", grad=grad)
        own = logits.unflatten(1, (copies, len(self)))[place.to(logits.device), copy.to(logits.device)]
        return self.target.rows(rows).read(own)

    def _read(self, batch: Any, embeddings: Tensor, target: Target, *, grad: bool) -> Tensor:
        asked, where = torch.unique(target.positions, return_inverse=True)
        by_position = "pos" in _logit_axes(self.model)
        logits = self._logits(batch, embeddings, asked.tolist() if by_position else "all", grad=grad)
        if by_position:
            logits = logits[torch.arange(len(logits), device=logits.device), where.to(logits.device)]
        return target.read(logits)

    def _logits(self, batch: Any, embeddings: Tensor, positions: Any, *, grad: bool) -> Tensor:
        """What a batch with these embeddings answers, ``[batch, (pos,) answer]``."""
        assert self.answers is not None
        device = device_of(self.model)
        edit = [Replace(self.site, value=embeddings.to(device))]
        logits = self.model.run(batch.to(device), edit=edit, logits=positions, grad=grad).logits
        assert logits is not None
        return self.answers(logits)


def finite(found: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The same; raises BadValue for NaN or infinity."""
    if not bool(torch.isfinite(found).all()):
        raise BadValue("the target's value", "NaN or infinity", "finite", do="The model's weights or what was put there are broken.")
    return found


def _logit_axes(model: HookedModel) -> tuple[str, ...]:
    table = model.sites()
    return table["unembed.hook_logits"].axes if "unembed.hook_logits" in table else ("batch", "pos", "d_vocab")


def ask(model: HookedModel, inputs: Inputs, spec: Question) -> Asked:
    """The question of ``inputs`` and ``spec``, checked. Raises BadValue for inputs that cannot be meant, NaN included."""
    stack = stack_of(model, spec.stack)
    if is_own_batch(model, inputs.batch):
        return _at_places(model, read_places(model, inputs, stack), inputs, spec)
    items = read_items(model, inputs, bos=spec.bos)
    if getattr(model, "both_ways", False):
        places = Places(EncoderBatch(items.ids, mask=items.real), stack, items.pieces, items.control)
        return _at_places(model, places, inputs, spec)
    target = read_target(model, items, inputs, spec.quantity, spec.position)
    x = embeddings_of(model, items.ids, spec.tokens_a_pass)
    value = values_of(model, items.ids, x, target, spec.tokens_a_pass).double().cpu()
    return Asked(model, items, target, EMBEDDING, x, value, spec.tokens_a_pass)


def _at_places(model: HookedModel, places: Places, inputs: Inputs, spec: Question) -> Asked:
    site, device = embedding_of(model, places.stack), device_of(model)
    last = [one.stack for one in model.sites().values() if one.layer is not None][-1]  # logits lie along the last stack's positions
    paired, answers = answers_of(model, places.stack, last, spec.quantity)
    first = model.run(places.batch.rows(slice(0, len(places) if paired else 1)).to(device)).logits
    assert first is not None
    along = first.ndim == 3 and places.stack == last and first.shape[1] == places.width
    target = place_target(answers(first), inputs, spec.quantity, spec.position, len(places), places.ends if along else None)
    x = torch.cat([model.run(b, capture=site, logits=None)[site].detach() for _, b in places.passes(device, together=paired)])
    asked = Asked(model, places, target, site.name, x, torch.zeros(len(places)), spec.tokens_a_pass, answers, paired)
    every = torch.arange(len(places))
    value = torch.cat([asked.values(every[part], x[part.start : part.stop]) for part in asked.passes(len(places))])
    return Asked(model, places, target, site.name, x, value, spec.tokens_a_pass, answers, paired)
