"""What a model, an instrument, a suite, a sink and a callback are, so that layers meet without importing upward.

Edits are values: ``Zero("blocks.0.attn.hook_z", at={"head": 3})``. ``at`` names axes of the site and gives an
integer, a slice, a list of integers or an index tensor for each; axes not named are taken whole.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from workbench.core.errors import BadValue, UnknownName
from workbench.core.sites import Selection, Site, SiteTable

Ability = Literal["logits", "logprobs", "generate", "edit", "grad", "cache", "mask", "weights"]
AxisIndex = int | slice | Sequence[int] | Tensor


# --- edits ------------------------------------------------------------------------------------------------


def index_at(site: Site, at: Mapping[str, AxisIndex], shape: Sequence[int]) -> tuple[Any, ...]:
    """The positional index for ``at`` on a tensor of ``site``. Lists on several axes select their outer product.

    Raises UnknownName for an axis the site lacks and BadValue for an index outside the axis.
    """
    index: list[Any] = [slice(None)] * len(site.axes)
    gathered: list[int] = []
    for word, chosen in at.items():
        axis = site.axis(word)
        if isinstance(chosen, slice):
            index[axis] = chosen
            continue
        picked = torch.as_tensor(chosen, dtype=torch.long).reshape(-1)
        if picked.numel() == 0 or int(picked.min()) < -shape[axis] or int(picked.max()) >= shape[axis]:
            raise BadValue(f"index on axis '{word}' of '{site.name}'", picked.tolist(), f"non-empty and within 0 to {shape[axis] - 1}")
        index[axis] = picked
        gathered.append(axis)
    if len(gathered) > 1:  # outer product: every tensor index gets its own broadcast axis
        for rank, axis in enumerate(gathered):
            index[axis] = index[axis].reshape([-1 if r == rank else 1 for r in range(len(gathered))])
    elif gathered and isinstance(at[site.axes[gathered[0]]], int):
        axis = gathered[0]
        start = int(index[axis][0]) % shape[axis]
        index[axis] = slice(start, start + 1)
    return tuple(index)


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Base of the edits. ``site`` is a name, glob or Site; ``at`` restricts it to part of the tensor."""

    site: str | Site = field(kw_only=False)
    at: Mapping[str, AxisIndex] = field(default_factory=dict)

    def new(self, old: Tensor, site: Site) -> Tensor:
        """The replacement for ``old``, the selected part of the activation (same number of axes)."""
        raise NotImplementedError

    def apply(self, value: Tensor, site: Site) -> Tensor:
        """A new tensor of ``value``'s shape, dtype and device with the edit made; ``value`` itself is untouched."""
        if not self.at:
            return self.new(value, site).to(value.dtype).expand(value.shape)
        index = index_at(site, self.at, value.shape)
        out = value.clone()
        out[index] = self.new(value[index], site).to(value.dtype)
        return out


@dataclass(frozen=True, kw_only=True)
class Replace(Edit):
    """Put ``value`` there (broadcast to the selected part)."""

    value: Tensor

    def new(self, old: Tensor, site: Site) -> Tensor:
        return self.value.to(old.device, old.dtype)


@dataclass(frozen=True, kw_only=True)
class Add(Edit):
    """Add ``value`` (broadcast)."""

    value: Tensor

    def new(self, old: Tensor, site: Site) -> Tensor:
        return old + self.value.to(old.device, old.dtype)


@dataclass(frozen=True, kw_only=True)
class Scale(Edit):
    """Multiply by ``factor``."""

    factor: float

    def new(self, old: Tensor, site: Site) -> Tensor:
        return old * self.factor


@dataclass(frozen=True, kw_only=True)
class Zero(Edit):
    """Set to zero."""

    def new(self, old: Tensor, site: Site) -> Tensor:
        return torch.zeros_like(old)


@dataclass(frozen=True, kw_only=True)
class Mean(Edit):
    """Replace by the mean over the named axes (default: the batch) of the selected part."""

    over: tuple[str, ...] = ("batch",)

    def new(self, old: Tensor, site: Site) -> Tensor:
        return old.mean(dim=[site.axis(word) for word in self.over], keepdim=True).expand_as(old)


@dataclass(frozen=True, kw_only=True)
class FromTrace(Edit):
    """Put what ``trace`` captured at the same site (or at ``source``): activation patching."""

    trace: Trace
    source: str | None = None

    def apply(self, value: Tensor, site: Site) -> Tensor:
        stored = self.trace[self.source or site.name].to(value.device, value.dtype)
        if stored.shape != value.shape:
            raise BadValue(
                f"the captured '{self.source or site.name}'", tuple(stored.shape), f"of shape {tuple(value.shape)}, as in this run"
            )
        if not self.at:
            return stored
        index = index_at(site, self.at, value.shape)
        out = value.clone()
        out[index] = stored[index]
        return out


@dataclass(frozen=True, kw_only=True)
class Apply(Edit):
    """An arbitrary function ``fn(selected part, site) -> tensor of the same shape``. Not serialisable."""

    fn: Callable[[Tensor, Site], Tensor]

    def new(self, old: Tensor, site: Site) -> Tensor:
        out = self.fn(old, site)
        if out.shape != old.shape:
            raise BadValue(f"the edit function's result at '{site.name}'", tuple(out.shape), f"of shape {tuple(old.shape)}")
        return out


# --- runs -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resume:
    """Where a run begins and ends, and which prefix it reuses.

    ``start``/``stop``: names of residual sites (``…hook_resid_pre``, ``_mid`` or ``_post``). With ``start``, ``residual``
    ``[batch, pos, d_model]`` is the stream there and the batch's tokens are not embedded. With ``stop``, the run ends
    having heard that site, and ``Trace.logits`` is None. ``past`` is a ``Trace.past`` to continue from; ``positions``
    ``[batch, pos]`` overrides the position of each token; ``mask`` (bool ``[batch or 1, query, key]``, true = may attend, key
    axis: past, then current) replaces the causal rule, as a token tree needs, and is combined with segments. ``only``
    ``[batch or 1, n]`` are the positions of this run that matter after the last attention: from the last layer's queries on
    they run alone, and sites and logits there lie along them. ``parents`` ``[pos]`` make the one row of tokens a forest of texts that
    share beginnings: token i follows token ``parents[i]`` (an earlier one; -1: it begins a text), stands at the position that its path
    gives it and attends to its path alone; what it comes to does not depend on the other texts.
    """

    start: str | None = None
    stop: str | None = None
    residual: Tensor | None = None
    past: Any = None
    positions: Tensor | None = None
    mask: Tensor | None = None
    only: Tensor | None = None
    parents: Tensor | None = None


@dataclass(frozen=True)
class Trace:
    """What one run left: ``logits`` (or None), exactly the captured sites, and the cache where asked."""

    logits: Tensor | None
    at: Mapping[str, Tensor]
    sites: Mapping[str, Site] = field(default_factory=dict)
    past: Any = None

    def __getitem__(self, name: str | Site) -> Tensor:
        text = name.name if isinstance(name, Site) else name
        if text not in self.at:
            raise UnknownName("captured site", text, self.at, hint="Name it in `capture` of the run.")
        return self.at[text]


LogitsAt = Literal["all", "last"] | Sequence[int] | Tensor | None


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back. User text never becomes a control token."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def bos_id(self) -> int | None: ...
    @property
    def eos_id(self) -> int | None: ...
    @property
    def pad_id(self) -> int | None: ...
    def encode(self, text: str, *, bos: bool = False) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def pieces(self, ids: Sequence[int]) -> list[str]: ...
    def digest(self) -> str: ...


@runtime_checkable
class HookedModel(Protocol):
    """Any model an instrument can be pointed at: one of our families, an adapter or an organism."""

    family: str
    config: Any
    tokenizer: Tokenizer | None
    abilities: frozenset[str]

    def sites(self) -> SiteTable: ...
    def weight(self, name: str) -> Tensor:
        """A weight by the field's name: ``blocks.0.attn.W_Q`` [head, d_model, d_head], ``W_E``, ``W_U`` [d_model, d_vocab] …"""
        ...

    def digest(self) -> str:
        """sha256 over config, tokenizer and weights."""
        ...

    def run(
        self,
        batch: Any,
        *,
        capture: Selection = (),
        edit: Sequence[Edit] = (),
        logits: LogitsAt = "all",
        grad: bool = False,
        resume: Resume | None = None,
        cache: bool = False,
    ) -> Trace:
        """One forward pass. ``Trace.at`` holds exactly the selection; tensors are in the graph iff ``grad``."""
        ...  # fmt: skip


# --- what is measured ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """What an instrument is given.

    ``batch``: token ids ``[batch, pos]`` right-padded (or the family's batch type); ``lengths`` ``[batch]`` counts real
    tokens; ``reference`` a second batch (a baseline, or the corrupted twin); ``labels`` and ``groups`` one entry an item
    (or a token); ``targets`` ``[batch]`` ids asked about and ``foils`` ``[batch]`` the ids they are contrasted with.
    """

    batch: Any
    lengths: Tensor | None = None
    reference: Any = None
    labels: Any = None
    groups: Sequence[Hashable] | None = None
    targets: Tensor | None = None
    foils: Tensor | None = None
    texts: Sequence[str] | None = None


@runtime_checkable
class Sink(Protocol):
    """Where a runner or harvester writes as it goes. ``put`` may be called twice with one key: the first stays."""

    def done(self) -> set[tuple[str, int]]:
        """The (sample, epoch) keys already committed."""
        ...

    def put(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Commit a batch of records, each with ``sample`` (str) and ``epoch`` (int), in one transaction."""
        ...

    def read(self) -> list[dict[str, Any]]:
        """All committed records ordered by (sample, epoch)."""
        ...


@runtime_checkable
class Callback(Protocol):
    """Called by the training loop at each of its events; ``state`` is the loop's public state."""

    def __call__(self, event: Literal["step", "validation", "checkpoint", "end", "changed"], state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class Beginning(Protocol):
    """A callback that is also told where a training begins, before its first step or the first since it was taken up again.

    ``state`` holds the training's ``data`` and ``validation`` rows besides. What it raises ends the training before that step.
    """

    def begin(self, state: Mapping[str, Any]) -> None: ...


Progress = Callable[[int, int, str], None]
"""``progress(done, total, words)``, called often; silent by default."""


def silent(done: int, total: int, words: str = "") -> None:
    """The Progress that says nothing."""
