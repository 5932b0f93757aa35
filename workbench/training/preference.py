"""Direct preference optimisation (Rafailov et al. 2023): a model is moved to what was preferred, and held by what it was.

    loss = - log sigmoid( beta [ (log p(chosen) - log r(chosen)) - (log p(rejected) - log r(rejected)) ] )

log p is the model's and log r the reference's log-probability of an answer's tokens, given its prompt. The reference is run once, before
the training, and its numbers are part of the rows: no second model is held while the first learns.

    rows = PreferenceRows.of(pairs, template, tokenizer, length, reference=model, spec=DPOSpec(beta=0.1))
    with preferring(model):
        train(model, rows, spec)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional

from workbench.core.batch import IGNORE, Batch, TokenBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import Tokenizer
from workbench.core.spec import Spec
from workbench.data.chat import ChatRows, ChatTemplate, Conversation, Message

ANSWERS = 2
"""The chosen one, then the rejected one."""


class DPOSpec(Spec):
    """``beta``: how strongly the reference holds (nats of preference a nat of log-probability)."""

    beta: PositiveFloat = 0.1


@dataclass(frozen=True)
class PreferenceBatch(Batch):
    """Pairs of a chosen and a rejected answer: tokens and targets (``IGNORE``: prompt and filling) of both, the reference's
    log-probability of each, in nats, and ``beta``."""

    tokens: Int[Tensor, "batch answer pos"]
    targets: Int[Tensor, "batch answer pos"]
    reference: Float[Tensor, "batch answer"]
    beta: Float[Tensor, " batch"]


@dataclass(frozen=True)
class Preference:
    """A conversation that ends with the user, an answer that was preferred and one that was not."""

    asked: Conversation
    chosen: str
    rejected: str


class PreferenceRows:
    """Preferences to train on (a ``RowData`` of ``PreferenceBatch``), with what the reference says of them."""

    def __init__(self, chosen: ChatRows, rejected: ChatRows, reference: Float[Tensor, "row answer"], spec: DPOSpec) -> None:
        if len(chosen) != len(rejected) or tuple(reference.shape) != (len(chosen), ANSWERS):
            raise BadValue(
                "the answers", (len(chosen), len(rejected), tuple(reference.shape)), "as many chosen as rejected, and numbers of both"
            )
        self.answers, self.reference, self.spec = (chosen, rejected), reference, spec

    @classmethod
    def of(
        cls, pairs: Sequence[Preference], template: ChatTemplate, tokenizer: Tokenizer, length: int, *, reference: Any, spec: DPOSpec
    ) -> PreferenceRows:
        """Rows of ``pairs``, scored by ``reference`` as it is now. Raises BadValue for two equal answers, and as ``ChatRows`` does."""
        if odd := [number for number, pair in enumerate(pairs) if pair.chosen == pair.rejected]:
            raise BadValue(f"the answers of pair {odd[0]}", "equal", "two different ones: there is nothing to prefer")
        rows = []
        for answers in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs]):
            whole = [[*pair.asked, Message("assistant", answer)] for pair, answer in zip(pairs, answers, strict=True)]
            rows.append(ChatRows(whole, template, tokenizer, length))
        with torch.no_grad():
            scores = [torch.cat([logprobs(reference, one.batch([row])) for row in range(len(one))]) for one in rows]
        return cls(rows[0], rows[1], torch.stack(scores, 1).cpu(), spec)

    def __len__(self) -> int:
        return len(self.answers[0])

    def batch(self, indices: Sequence[int]) -> PreferenceBatch:
        """The pairs ``indices``, as wide as the longest answer."""
        parts = [rows.batch(indices) for rows in self.answers]
        width = max(part.tokens.shape[1] for part in parts)
        wide = lambda x, fill: functional.pad(x, (0, width - x.shape[1]), value=fill)  # noqa: E731
        tokens = torch.stack([wide(part.tokens, 0) for part in parts], 1)
        targets = torch.stack([wide(part.targets, IGNORE) for part in parts], 1)
        reference = self.reference[list(indices)]
        return PreferenceBatch(tokens, targets, reference, reference.new_full((len(tokens),), self.spec.beta))

    def digest(self) -> str:
        """sha256 (hex) over both answers' rows, what the reference says of them, and the spec."""
        whole = hashlib.sha256(f"preferences {self.spec.digest()} {[rows.digest() for rows in self.answers]}".encode())
        whole.update(self.reference.double().numpy().tobytes())
        return whole.hexdigest()


def logprobs(model: Any, batch: TokenBatch) -> Float[Tensor, " batch"]:
    """The log-probability (nats) of each row's targets, summed, in at least float32 and without dropout."""
    given = TokenBatch(batch.tokens, batch.targets)
    logits = model.run(given, grad=torch.is_grad_enabled()).logits
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    targets = batch.targets.to(wide.device)
    known = targets != IGNORE
    each = wide.gather(2, torch.where(known, targets, 0).unsqueeze(2)).squeeze(2)
    return torch.where(known, each, 0.0).sum(1)


def margins(model: Any, batch: PreferenceBatch) -> Float[Tensor, " batch"]:
    """How much more than the reference the model prefers each chosen answer: ``beta`` times the difference of log-ratios."""
    rows, answers, pos = batch.tokens.shape
    flat = TokenBatch(batch.tokens.reshape(-1, pos), batch.targets.reshape(-1, pos))
    ratio = logprobs(model, flat).reshape(rows, answers) - batch.reference.to(batch.tokens.device)
    return batch.beta.to(ratio) * (ratio[:, 0] - ratio[:, 1])


def preference_loss(model: Any, batch: PreferenceBatch) -> tuple[Float[Tensor, ""], int]:
    """The summed loss and the number of pairs."""
    found = margins(model, batch)
    return -functional.logsigmoid(found).sum(), len(found)


@contextmanager
def preferring(model: Any) -> Iterator[None]:
    """Inside, ``model.loss`` is this loss of a PreferenceBatch, so what trains models by their loss trains it so; afterwards it is as it
    was."""
    vars(model)["loss"] = MethodType(preference_loss, model)  # a method, so that a copy of the model has its own
    try:
        yield
    finally:
        del vars(model)["loss"]
