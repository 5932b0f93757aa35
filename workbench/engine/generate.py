"""Decoding many prompts at once with a key-value cache: greedy or sampled, and the same whatever else is in the batch.

Prompts of equal length in tokens run together, so that no padding is ever attended to. A sampled token depends on (seed,
number of the prompt, step) and on the model's probabilities, never on its neighbours.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from workbench.core.errors import AssayError, BadValue
from workbench.core.measure import Answering, Generate
from workbench.core.protocol import HookedModel, Progress, Resume, Tokenizer, silent
from workbench.engine.tokens import context_length, lead_of, tokenizer_of


@dataclass
class _Row:
    """One prompt under way."""

    index: int
    prompt: tuple[int, ...]
    request: Generate
    made: list[int] = field(default_factory=list)
    text: str = ""
    open: bool = True

    def take(self, token: int, tokenizer: Tokenizer) -> None:
        """Add a token; close the row at EOS, at a stop text, or when it has all it asked for."""
        if token == tokenizer.eos_id:
            self.open = False
            return
        self.made.append(token)
        self.text = tokenizer.decode(self.made)
        cuts = [place for stop in self.request.until if (place := self.text.find(stop)) >= 0]
        if cuts:
            self.text, self.open = self.text[: min(cuts)], False
        elif len(self.made) >= self.request.most:
            self.open = False


def generate(
    model: HookedModel,
    prompts: Sequence[str],
    *,
    most: int = 16,
    until: Sequence[str] = (),
    temperature: float = 0.0,
    seed: int = 0,
    progress: Progress = silent,
) -> list[str]:
    """The continuation of each prompt: at most ``most`` tokens, up to and without the first of ``until``, or to EOS.

    ``temperature`` 0 takes the likeliest token (of equal ones the lowest id); above 0 samples from softmax(logits /
    temperature). A prompt begins with BOS where the tokenizer has one. Raises BadValue for a prompt that does not fit the
    model's context with ``most`` tokens behind it: nothing is cut short.
    """
    requests = [Generate(prompt, most, tuple(until)) for prompt in prompts]
    out = dict(generations(model, requests, temperature=temperature, seed=seed, progress=progress))
    return [out[index] for index in range(len(prompts))]


def generations(
    model: HookedModel,
    requests: Sequence[Generate],
    *,
    temperature: float = 0.0,
    seed: int = 0,
    token_budget: int = 8192,
    progress: Progress = silent,
    refuse: Callable[[int, AssayError], None] | None = None,
) -> Iterator[tuple[int, str]]:
    """(index of the request, its text) in the order they are ready; ``refuse`` as in ``engine.score.loglikelihoods``."""
    if temperature < 0:
        raise BadValue("temperature", temperature, "0 (greedy) or more")
    if isinstance(model, Answering):
        yield from model.generations(requests, temperature=temperature, seed=seed, progress=progress, refuse=refuse)
        return
    rows: list[_Row] = []
    for index, request in enumerate(requests):
        try:
            rows.append(_Row(index, _prompt(model, request), request))
        except AssayError as error:
            if refuse is None:
                raise
            refuse(index, error)
    done = len(requests) - len(rows)
    for group in _groups(rows, token_budget):
        _decode(model, group, temperature, seed)
        for row in group:
            done += 1
            progress(done, len(requests), "generating")
            yield row.index, row.text


def _prompt(model: HookedModel, request: Generate) -> tuple[int, ...]:
    tokenizer = tokenizer_of(model)
    ids = lead_of(tokenizer) + tuple(tokenizer.encode(request.prompt))
    limit = context_length(model)
    if request.most < 1:
        raise BadValue("the number of tokens to generate", request.most, "at least 1")
    if not ids:
        raise BadValue("a prompt", request.prompt, "non-empty: this tokenizer has no BOS token to begin with")
    if limit is not None and len(ids) + request.most - 1 > limit:
        needed = len(ids) + request.most - 1
        raise BadValue("a prompt's length with what is to be generated", needed, f"at most {limit} tokens, the model's context")
    return ids


def _groups(rows: Sequence[_Row], budget: int) -> Iterator[list[_Row]]:
    """Rows with prompts of one length, at most ``budget`` tokens together, what is to be generated included."""
    by_length: dict[int, list[_Row]] = {}
    for row in rows:
        by_length.setdefault(len(row.prompt), []).append(row)
    for length, same in sorted(by_length.items()):
        step = max(1, budget // (length + max(row.request.most for row in same)))
        yield from (same[first : first + step] for first in range(0, len(same), step))


def _decode(model: HookedModel, group: Sequence[_Row], temperature: float, seed: int) -> None:
    tokenizer = tokenizer_of(model)
    cached = "cache" in model.abilities
    tokens, whole, past = torch.tensor([row.prompt for row in group]), None, None
    step = 0
    while True:
        whole = tokens if whole is None else torch.cat([whole, tokens], dim=1)
        trace = model.run(tokens if cached else whole, logits="last", resume=Resume(past=past) if past is not None else None, cache=cached)
        past = trace.past
        assert trace.logits is not None, "logits were asked for"
        chosen = _choose(trace.logits[:, -1], group, temperature, seed, step)
        for row, token in zip(group, chosen, strict=True):
            if row.open:
                row.take(token, tokenizer)
        if not any(row.open for row in group):
            return
        tokens = torch.tensor(chosen)[:, None]
        step += 1


def _choose(logits: Tensor, group: Sequence[_Row], temperature: float, seed: int, step: int) -> list[int]:
    if temperature == 0:
        return logits.float().argmax(dim=-1).tolist()
    shares = (logits.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
    at = torch.tensor([[random.Random(f"{seed}:{row.index}:{step}").random()] for row in group], dtype=torch.float64, device=logits.device)
    # the last cumulative share can fall a rounding short of 1
    return torch.searchsorted(shares, at * shares[:, -1:], right=True).clamp(max=logits.shape[-1] - 1)[:, 0].tolist()
