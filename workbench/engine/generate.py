"""Decoding many prompts at once with a key-value cache: greedy or sampled, and the same whatever else is in the batch.

Prompts are read as one forest (``engine.certified``), so that what they share (a system prompt, examples) is read once and nothing is
padded. Each then writes in a row of one room of keys and values, in the columns of its own positions; a row that ends is taken by the next
prompt. A step's rows are padded as a forest's are, and each meets its own columns (``blocks.ragged``). A sampled token depends on (seed,
the prompt's own seed, step) and on the model's probabilities, never on its neighbours.

A model that reads no forest decodes prompts of equal length together, so that no padding is ever attended to.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from workbench.core.errors import AssayError, BadValue
from workbench.core.measure import Answering, Generate
from workbench.core.protocol import HookedModel, Progress, Resume, Tokenizer, silent
from workbench.engine.certified import Pass, Unit, padded
from workbench.engine.memory import keep_freed
from workbench.engine.tokens import context_length, lead_of, tokenizer_of
from workbench.engine.tree import ROOT


@dataclass
class _Row:
    """One prompt under way; ``seed`` is its own."""

    index: int
    prompt: tuple[int, ...]
    request: Generate
    seed: int
    made: list[int] = field(default_factory=list)
    text: str = ""
    open: bool = True

    @property
    def room(self) -> int:
        """The most tokens that are read: the last one made never is."""
        return len(self.prompt) + self.request.most - 1

    def take(self, token: int, tokenizer: Tokenizer) -> None:
        """Add a token; close the row at EOS, at a stop text, or when it has all it asked for."""
        if token == tokenizer.eos_id:
            self._close(tokenizer)
            return
        self.made.append(token)
        if self.request.until and (cut := self._cut(tokenizer)) is not None:
            self.text, self.open = cut, False
        elif len(self.made) >= self.request.most:
            self._close(tokenizer)

    def _close(self, tokenizer: Tokenizer) -> None:
        self.text, self.open = tokenizer.decode(self.made), False

    def _cut(self, tokenizer: Tokenizer) -> str | None:
        """The text before the first stop, where there is one. The end is looked at first: a stop that has just come is there."""
        reach = max(len(stop.encode()) for stop in self.request.until) + 8
        if len(self.made) > reach and not any(stop in tokenizer.decode(self.made[-reach:]) for stop in self.request.until):
            return None
        text = tokenizer.decode(self.made)
        cuts = [place for stop in self.request.until if (place := text.find(stop)) >= 0]
        return text[: min(cuts)] if cuts else None


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
    seeds: Sequence[int] | None = None,
    token_budget: int = 8192,
    progress: Progress = silent,
    refuse: Callable[[int, AssayError], None] | None = None,
) -> Iterator[tuple[int, str]]:
    """(index of the request, its text) in the order they are ready; ``refuse`` as in ``engine.score.loglikelihoods``.

    ``seeds``: each prompt's own, which stays with it in whatever batch it is asked (default: its number in ``requests``).
    ``token_budget`` bounds the tokens that are held at once. Weights and hooks are to stay as they are until the last row is given: a
    model's own steps go by copies made at the first of them.
    """
    if temperature < 0:
        raise BadValue("temperature", temperature, "0 (greedy) or more")
    if seeds is not None and len(seeds) != len(requests):
        raise BadValue("the number of seeds", len(seeds), f"one for each of the {len(requests)} prompts")
    if isinstance(model, Answering):
        yield from _answered(model, requests, temperature, seed, progress, refuse)
        return
    keep_freed()
    rows: list[_Row] = []
    for index, request in enumerate(requests):
        try:
            rows.append(_Row(index, _prompt(model, request), request, index if seeds is None else seeds[index]))
        except AssayError as error:
            if refuse is None:
                raise
            refuse(index, error)
    done = len(requests) - len(rows)
    flows = "parents" in getattr(model, "resumes", ()) and "cache" in model.abilities
    for row in (_flowing if flows else _grouped)(model, rows, token_budget, lambda logits, some: _choose(logits, some, temperature, seed)):
        done += 1
        progress(done, len(requests), "generating")
        yield row.index, row.text


def _answered(
    model: Answering, requests: Sequence[Generate], temperature: float, seed: int, progress: Progress, refuse: Any
) -> Iterator[tuple[int, str]]:
    """A model that answers for itself writes a conversation in its own form."""
    for index, request in enumerate(requests):
        if request.chat is not None:
            error = BadValue(f"prompt {index}'s chat template", "given", "left out: the server behind this model has its own")
            if refuse is None:
                raise error
            refuse(index, error)
    plain = [index for index, request in enumerate(requests) if request.chat is None]
    inner = None if refuse is None else lambda place, error: refuse(plain[place], error)
    some = [requests[index] for index in plain]
    for place, text in model.generations(some, temperature=temperature, seed=seed, progress=progress, refuse=inner):
        yield plain[place], text


def _prompt(model: HookedModel, request: Generate) -> tuple[int, ...]:
    tokenizer = tokenizer_of(model)
    if request.chat is not None:
        ids = tuple(request.chat.asking(request.prompt, tokenizer))
    else:
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


# --- rows that come and go ------------------------------------------------------------------------------------

_Choose = Callable[[Tensor, Sequence[_Row]], list[int]]


def _flowing(model: HookedModel, rows: Sequence[_Row], budget: int, choose: _Choose) -> Iterator[_Row]:
    """Each row as it ends. Waiting prompts are read when a quarter of the rows is free, or when nothing else is left to do."""
    waiting = sorted(rows, key=lambda row: (len(row.prompt), row.prompt))  # rows of like length stand together; taken from the end
    deep, tokenizer = max((row.room for row in rows), default=1), tokenizer_of(model)
    most = padded(1, model.config)
    slots: list[_Row | None] = [None] * min(max(most, budget // deep // most * most), padded(len(rows), model.config))
    room: Any = None  # made of the first keys and values, which say their shapes
    steps: _Steps | None = None  # arranged at the first step: they may hold copies of weights
    while waiting or any(slots):
        free = [slot for slot, row in enumerate(slots) if row is None]
        if waiting and len(free) >= min(max(1, len(slots) // 4), len(waiting)):
            some = [waiting.pop() for _ in range(min(len(free), len(waiting)))]
            places = dict(zip((row.index for row in sorted(some, key=lambda row: len(row.prompt))), free))
            for now, group in _read(some, budget):
                logits, past = _begun(model, now, group)
                room = past.room(len(slots), deep) if room is None else room
                for (row, _), token in zip(group, choose(logits, [row for row, _ in group]), strict=True):
                    row.take(token, tokenizer)
                going = [(places[row.index], row, path) for row, path in group if row.open]
                room.fill([slot for slot, _, _ in going], past, [path for _, _, path in going])
                for slot, row, _ in going:
                    slots[slot] = row
                yield from (row for row, _ in group if not row.open)
            continue
        active = [slot for slot, row in enumerate(slots) if row is not None]
        size = padded(len(active), model.config)
        if not waiting and size * 4 <= len(slots) * 3:
            active.sort(key=lambda slot: room.lengths[slot])
            room, slots = room.kept(active, size), [slots[slot] for slot in active] + [None] * (size - len(active))
            active = list(range(len(active)))
        going = [row for slot in active if (row := slots[slot]) is not None]
        steps = _steps(model) if steps is None else steps
        for slot, row, token in zip(active, going, choose(_stepped(steps, room, slots, active), going), strict=True):
            room.lengths[slot] += 1
            row.take(token, tokenizer)
            if not row.open:
                slots[slot], room.lengths[slot] = None, 0
                yield row


_Group = list[tuple[_Row, list[int]]]


def _read(rows: Sequence[_Row], budget: int) -> Iterator[tuple[Pass, _Group]]:
    """Forests of the prompts, with the path of each."""
    now, group = Pass(), list[tuple[_Row, list[int]]]()
    for number, row in enumerate(sorted(rows, key=lambda r: r.prompt)):
        unit = Unit(row.prompt, len(row.prompt) - 1, (0,), number, 0)
        if group and now.with_(unit) > budget:
            yield now, group
            now, group = Pass(), []
        now.add(unit)
        group.append((row, list(now.path)))
    yield now, group


def _begun(model: HookedModel, now: Pass, group: _Group) -> tuple[Tensor, Any]:
    """The logits after each prompt ``[row, d_vocab]``, and the keys and values of all of them."""
    filler, ends = padded(len(now.tokens), model.config) - len(now.tokens), [path[-1] for _, path in group]
    tokens = torch.tensor([now.tokens + [now.tokens[0]] * filler])
    parents = torch.tensor(now.parents + [ROOT] * filler)
    asked = ends + [ends[-1]] * (padded(len(ends), model.config) - len(ends))
    trace = model.run(tokens, logits=asked, resume=Resume(parents=parents), cache=True)
    assert trace.logits is not None, "logits were asked for"
    return trace.logits[0, : len(ends)], trace.past


_Steps = Callable[[Sequence[int], Any], Tensor]
"""From the last token of each row of a room (0 where it is free) to the logits ``[row, d_vocab]`` after it."""


def _steps(model: HookedModel) -> _Steps:
    """The model's own steps, where it has them; a wrapper has none, whatever it hands on of what it wraps."""
    own = getattr(type(model), "steps", None)
    return (own(model) if own is not None else None) or _Runs(model)


@dataclass(frozen=True)
class _Runs:
    """Steps as runs of a model."""

    model: HookedModel

    def __call__(self, tokens: Sequence[int], room: Any) -> Tensor:
        trace = self.model.run(torch.tensor(tokens)[:, None], resume=Resume(past=room.step()))
        assert trace.logits is not None, "logits were asked for"
        return trace.logits[:, -1]


def _stepped(steps: _Steps, room: Any, slots: Sequence[_Row | None], active: Sequence[int]) -> Tensor:
    """The logits ``[active, d_vocab]`` after one more token of each row."""
    logits = steps([row.made[-1] if row is not None else 0 for row in slots], room)
    return logits if len(active) == len(slots) else logits.index_select(0, torch.tensor(active, device=logits.device))


# --- rows of one length ---------------------------------------------------------------------------------------


def _grouped(model: HookedModel, rows: Sequence[_Row], budget: int, choose: _Choose) -> Iterator[_Row]:
    for group in _groups(rows, budget):
        _decode(model, group, choose)
        yield from group


def _groups(rows: Sequence[_Row], budget: int) -> Iterator[list[_Row]]:
    """Rows with prompts of one length, at most ``budget`` tokens together, what is to be generated included."""
    by_length: dict[int, list[_Row]] = {}
    for row in rows:
        by_length.setdefault(len(row.prompt), []).append(row)
    for length, same in sorted(by_length.items()):
        step = max(1, budget // (length + max(row.request.most for row in same)))
        yield from (same[first : first + step] for first in range(0, len(same), step))


def _decode(model: HookedModel, group: Sequence[_Row], choose: _Choose) -> None:
    tokenizer = tokenizer_of(model)
    cached = "cache" in model.abilities
    tokens, whole, past = torch.tensor([row.prompt for row in group]), None, None
    while True:
        whole = tokens if whole is None else torch.cat([whole, tokens], dim=1)
        trace = model.run(tokens if cached else whole, logits="last", resume=Resume(past=past) if past is not None else None, cache=cached)
        past = trace.past
        assert trace.logits is not None, "logits were asked for"
        chosen = choose(trace.logits[:, -1], group)
        for row, token in zip(group, chosen, strict=True):
            if row.open:
                row.take(token, tokenizer)
        if not any(row.open for row in group):
            return
        tokens = torch.tensor(chosen)[:, None]


def _choose(logits: Tensor, rows: Sequence[_Row], temperature: float, seed: int) -> list[int]:
    """The next token of each row: the likeliest (of equal ones the lowest id), or one drawn."""
    if temperature == 0:
        # numpy's takes a tenth of the time of torch's on a CPU; of equal ones both take the first
        return logits.detach().float().cpu().numpy().argmax(axis=-1).tolist()
    shares = (logits.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
    at = torch.tensor(
        [[random.Random(f"{seed}:{row.seed}:{len(row.made)}").random()] for row in rows], dtype=torch.float64, device=logits.device
    )
    # the last cumulative share can fall a rounding short of 1
    return torch.searchsorted(shares, at * shares[:, -1:], right=True).clamp(max=logits.shape[-1] - 1)[:, 0].tolist()
