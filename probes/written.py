"""What a model writes after each item, token by token, and what it has read before each of them.

A decoder goes on from its prompt; an encoder-decoder (text, or speech) writes about its source. The tokens are the model's own, greedy, or
given, and then the model is asked about what it did not choose itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.target import device_of
from probes.token_items import TokenItems, read_items, rows_a_pass, slices, vocabulary_size
from workbench.core.batch import IGNORE, SequenceBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel, Inputs


@dataclass(frozen=True)
class Begun:
    """Items before anything is written: prompts of a token decoder, or sources with what a decoder begins from."""

    model: HookedModel
    prompts: TokenItems | None
    sources: SequenceBatch | None

    def __len__(self) -> int:
        return len(self.prompts) if self.prompts is not None else len(self._begun.tokens)

    @property
    def _begun(self) -> SequenceBatch:
        assert self.sources is not None
        return self.sources

    @property
    def ids(self) -> Int[Tensor, "batch pos"]:
        """What each item's decoder reads before its first written token; of prompts right-padded."""
        return self.prompts.ids if self.prompts is not None else self._begun.tokens

    @property
    def lead(self) -> Int[Tensor, " batch"]:
        """Positions each item's decoder reads before its first written token."""
        return self.prompts.lengths if self.prompts is not None else torch.full((len(self),), self._begun.tokens.shape[1])

    def read(self, rows: Int[Tensor, " n"], written: Int[Tensor, "n step"]) -> Inputs:
        """The batch of the items ``rows`` with ``written`` behind what they began from; of prompts, right-padded, with lengths."""
        if self.prompts is None:
            begun = self._begun.rows(rows.tolist())
            return Inputs(replace(begun, tokens=torch.cat([begun.tokens, written.to(begun.tokens)], 1), targets=None))
        lengths = self.prompts.lengths[rows]
        step = written.shape[1]
        ids = self.prompts.ids[rows, : int(lengths.max())]
        ids = torch.nn.functional.pad(ids, (0, step))
        ids.scatter_(1, lengths[:, None] + torch.arange(step), written)
        return Inputs(ids, lengths + step)

    def logits(self, rows: Int[Tensor, " n"], written: Int[Tensor, "n step"], tokens_a_pass: int) -> Float[Tensor, "n d_vocab"]:
        """What follows, float64 on the CPU. Raises BadValue for NaN and infinity."""
        device, out = device_of(self.model), []
        width = int(self.lead.max()) + written.shape[1]
        for part in slices(len(rows), rows_a_pass(tokens_a_pass, width)):
            given = self.read(rows[part], written[part])
            if given.lengths is None:
                found = self.model.run(given.batch.to(device), logits="last").logits
                assert found is not None
                out.append(found[:, -1].detach())
            else:
                asked, where = torch.unique(given.lengths - 1, return_inverse=True)
                found = self.model.run(given.batch.to(device), logits=asked.tolist()).logits
                assert found is not None
                out.append(found[torch.arange(len(where)), where.to(found.device)].detach())
        logits = torch.cat(out).double().cpu()
        if not bool(torch.isfinite(logits).all()):
            raise BadValue("the logits", "NaN or infinity", "finite numbers", do="The model's weights are broken.")
        return logits


def begin(model: HookedModel, inputs: Inputs, *, bos: bool) -> Begun:
    """The items of ``inputs``, checked. Raises BadValue for what is no prompt, and for a source without what its decoder begins from."""
    if getattr(model, "reads", "tokens") == "tokens":
        return Begun(model, read_items(model, inputs, bos=bos), None)
    given = inputs.batch
    if not isinstance(given, SequenceBatch):
        raise BadValue("inputs.batch", type(given).__name__, f"a SequenceBatch, which a {model.family} model reads")
    if inputs.lengths is not None:
        raise BadValue("inputs.lengths", "given", "left out: a SequenceBatch says in its mask which source positions are real")
    if len(given.tokens) == 0 or given.tokens.ndim != 2 or given.tokens.shape[1] == 0 or len(given.source) != len(given.tokens):
        raise BadValue(
            "inputs.batch",
            f"{len(given.source)} sources and tokens of shape {tuple(given.tokens.shape)}",
            "as many of both, with at least one token that the decoder begins from",
        )
    return Begun(model, None, given)


# --- writing --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """``ids`` ``[batch, generated]`` (-1 past an item's end), the likeliest other token (or the one given) in ``foils``, and the
    log-probability of each id in nats (NaN past the end)."""

    ids: Int[Tensor, "batch generated"]
    foils: Int[Tensor, "batch generated"]
    logprob: Float[np.ndarray, "batch generated"]

    @property
    def count(self) -> Int[Tensor, " batch"]:
        """Tokens each item wrote."""
        return (self.ids >= 0).sum(1)


def write(begun: Begun, inputs: Inputs, *, most: int, end: int | None, tokens_a_pass: int) -> Written:
    """At most ``most`` tokens an item, the likeliest each (of equal ones the lowest id), up to and with the id ``end``; or the given ones.

    Raises BadValue where they do not fit the model's context (nothing is cut short), and for ids that cannot be meant.
    """
    size = vocabulary_size(begun.model)
    wanted = _given("targets", inputs.targets, len(begun), size)
    foils = _given("foils", inputs.foils, len(begun), size)
    if foils is not None and (wanted is None or foils.shape != wanted.shape or bool(((foils < 0) != (wanted < 0)).any())):
        raise BadValue("inputs.foils", "given", "one for each of inputs.targets", do="Leave both out, or give both.")
    if foils is not None and wanted is not None and bool(((foils == wanted) & (wanted >= 0)).any()):
        raise BadValue("inputs.foils", "an id equal to its target", "different from its target")
    steps = most if wanted is None else wanted.shape[1]
    count = torch.full((len(begun),), steps) if wanted is None else (wanted >= 0).sum(1)
    limit, needed = getattr(begun.model.config, "n_ctx", None), int((begun.lead + count).max()) - 1
    if limit is not None and needed > limit:
        raise BadValue(
            "the number of tokens to read", needed, f"at most {limit}, the model's context", do="Lower `most`: nothing is cut short."
        )
    if wanted is None and end is not None and not 0 <= end < (size or end + 1):
        raise BadValue("end", end, f"from 0 to {(size or 0) - 1}, the model's vocabulary")
    return _steps(begun, wanted, foils, steps, end, tokens_a_pass)


def _steps(begun: Begun, wanted: Tensor | None, foils: Tensor | None, steps: int, end: int | None, tokens_a_pass: int) -> Written:
    made, others = (torch.full((len(begun), steps), -1) for _ in range(2))
    logprob = np.full((len(begun), steps), np.nan)
    rows = torch.arange(len(begun))
    for step in range(steps):
        if wanted is not None:
            rows = (wanted[:, step] >= 0).nonzero()[:, 0]
        if not len(rows):
            return Written(made[:, :step], others[:, :step], logprob[:, :step])
        logits = begun.logits(rows, made[rows, :step], tokens_a_pass)
        chosen = logits.argmax(-1) if wanted is None else wanted[rows, step]
        made[rows, step] = chosen
        logprob[rows.numpy(), step] = (logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1)).numpy()
        rest = logits.scatter(1, chosen[:, None], -torch.inf)
        others[rows, step] = rest.argmax(-1) if foils is None else foils[rows, step]
        if wanted is None and end is not None:
            rows = rows[chosen != end]
    return Written(made, others, logprob)


def _given(field: str, given: Any, count: int, size: int | None) -> Int[Tensor, "batch generated"] | None:
    """Ids ``[batch, generated]``, -1 past an item's end, which ``IGNORE`` tells; ``[batch]`` is one each."""
    if given is None:
        return None
    ids = torch.as_tensor(given)
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise BadValue(f"the dtype of inputs.{field}", str(ids.dtype), "an integer dtype: these are token ids")
    ids = (ids[:, None] if ids.ndim == 1 else ids).long().cpu()
    if ids.ndim != 2 or len(ids) != count or ids.shape[1] == 0:
        raise BadValue(f"the shape of inputs.{field}", tuple(ids.shape), f"({count}, tokens written), or ({count},) for one each")
    real = ids != IGNORE
    if bool((real[:, 1:] & ~real[:, :-1]).any()) or not bool(real[:, 0].all()):
        raise BadValue(f"inputs.{field}", f"{IGNORE} before an id", f"at least one id an item, {IGNORE} only past its end")
    wrong = real & ((ids < 0) | (ids >= size) if size is not None else ids < 0)
    if bool(wrong.any()):
        raise BadValue(f"inputs.{field}", int(ids[wrong][0]), f"from 0 to {size - 1 if size is not None else '…'}, the model's vocabulary")
    return torch.where(real, ids, -1)


def pieces_of(model: HookedModel, ids: Sequence[int]) -> list[str]:
    """The tokens as text (without a tokenizer, their ids)."""
    return list(model.tokenizer.pieces(ids)) if model.tokenizer is not None else [str(i) for i in ids]
