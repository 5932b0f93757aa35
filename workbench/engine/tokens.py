"""Requests as token ids: where a context ends and a continuation begins.

The rule, for every suite. The text ``context + continuation`` is encoded once as a whole; where its first tokens are
exactly those of the context alone, the rest are the continuation's (this is the sequence the model would have seen in
training). Where a token straddles the boundary, so that the whole does not begin with the context's tokens, the two are
encoded apart and joined; such continuations are listed in ``Encoded.apart``, so that a caller can count and report them.
Every sequence begins with BOS where the tokenizer has one; an empty context means BOS alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.core.errors import BadValue
from workbench.core.measure import Loglikelihood
from workbench.core.protocol import Tokenizer


@dataclass(frozen=True)
class Encoded:
    """A request in token ids. ``context`` is never empty; ``apart`` numbers the continuations that were encoded apart."""

    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    apart: tuple[int, ...] = ()

    def longest(self) -> int:
        """The number of positions the longest continuation needs: its last token is predicted, never read."""
        return len(self.context) + max(len(c) for c in self.continuations) - 1


def tokenizer_of(model: Any) -> Tokenizer:
    """The model's tokenizer, or BadValue."""
    if model.tokenizer is None:
        raise BadValue("the model's tokenizer", None, "given, because the request is text")
    return model.tokenizer


def context_length(model: Any) -> int | None:
    """The most positions the model reads (``config.n_ctx``); None where its config names no limit."""
    return getattr(model.config, "n_ctx", None)


def encode_many(tokenizer: Tokenizer, texts: Sequence[str]) -> Sequence[Sequence[int]]:
    """The texts encoded without BOS, through the tokenizer's own batch call (``encode_batch``) where it has one."""
    batch = getattr(tokenizer, "encode_batch", None)
    return batch(texts) if batch is not None else [tokenizer.encode(text) for text in texts]


def lead_of(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What stands before every text: BOS, or nothing where the tokenizer has none."""
    return () if tokenizer.bos_id is None else (tokenizer.bos_id,)


def encode_pair(tokenizer: Tokenizer, context: str, continuations: Sequence[str]) -> Encoded:
    """Context and continuations by the rule above.

    Raises BadValue where there is nothing to score (no continuation, an empty one) or nothing to condition on.
    """
    if not continuations:
        raise BadValue("a log-likelihood request's continuations", (), "at least one")
    lead = lead_of(tokenizer)
    before = tuple(tokenizer.encode(context)) if context else ()
    if not lead + before:
        raise BadValue("a log-likelihood request's context", context, "non-empty: this tokenizer has no BOS token to begin with")
    found: list[tuple[int, ...]] = []
    apart: list[int] = []
    for number, whole in enumerate(encode_many(tokenizer, [context + c for c in continuations])):
        ids = tuple(whole)
        if ids[: len(before)] == before:
            ids = ids[len(before) :]
        else:
            ids = tuple(tokenizer.encode(continuations[number]))
            apart.append(number)
        if not ids:
            raise BadValue("a continuation", continuations[number], "at least one token long")
        found.append(ids)
    return Encoded(lead + before, tuple(found), tuple(apart))


def encode_request(model: Any, request: Loglikelihood) -> Encoded:
    """A request for ``model``; BadValue also where its longest sequence does not fit the model's context."""
    encoded = encode_pair(tokenizer_of(model), request.context, request.continuations)
    limit = context_length(model)
    if limit is not None and encoded.longest() > limit:
        raise BadValue(
            "a request's length in tokens", encoded.longest(), f"at most {limit}, the model's context", do="Nothing is cut short."
        )
    return encoded
