"""Exact log-likelihoods, fast: one pass a context, many continuations as a token tree, logits only where they are needed.

Numbers do not depend on what else is in the batch beyond float rounding (1e-5 a scored token in float32, tested; the
naive twin in tests/reference/scoring.py is one full forward a continuation with log-softmax in float64). Nothing is cut
short: what does not fit the model's context is refused with the reason. Target logit minus logsumexp is taken in float32
at least, whatever the model's dtype: in bfloat16 one step is 0.125 at a log-likelihood of −21, which makes false ties.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.errors import AssayError, BadValue
from workbench.core.measure import Answering, Loglikelihood
from workbench.core.protocol import HookedModel, Progress, Resume, silent
from workbench.engine.tokens import Encoded, context_length, encode_pair, encode_request, tokenizer_of
from workbench.engine.tree import ROOT, Tree, ancestry, chains, layout, pieces_of, tree_of

PIECE = 512
"""Tree nodes a run when a tree is too big for one row: attention costs piece², running the context again costs nothing (past)."""
CELLS = 1 << 25
"""Most logits held at once (128 MiB in float32)."""
WINDOW = 1024
"""Window of rolling scores where the model names no context length."""

Answer = list[list[float]]


def loglikelihoods(
    model: HookedModel,
    requests: Sequence[Loglikelihood | Encoded],
    *,
    token_budget: int = 8192,
    progress: Progress = silent,
    refuse: Callable[[int, AssayError], None] | None = None,
) -> Iterator[tuple[int, Answer]]:
    """(index of the request, for each continuation its tokens' log-probabilities in nats), in the order they are ready.

    ``token_budget`` bounds rows × width of a run, padding included. A request that cannot be scored (too long for the
    model, nothing to score, a character the tokenizer lacks) raises its error before anything is computed, or, where
    ``refuse`` is given, is passed to it as (index, error) and left out.
    """
    if token_budget < 1:
        raise BadValue("token_budget", token_budget, "at least 1")
    if isinstance(model, Answering):
        texts = [request for request in requests if isinstance(request, Loglikelihood)]
        assert len(texts) == len(requests), "a model that answers itself is asked in text"
        yield from model.loglikelihoods(texts, progress=progress, refuse=refuse)
        return
    ready: list[tuple[int, Encoded]] = []
    for index, request in enumerate(requests):
        try:
            ready.append((index, request if isinstance(request, Encoded) else encode_request(model, request)))
        except AssayError as error:
            if refuse is None:
                raise
            refuse(index, error)
    whole = {"mask", "cache"} <= set(model.abilities)
    done = len(requests) - len(ready)
    for index, answer in (_trees if whole else _plain)(model, ready, token_budget):
        done += 1
        progress(done, len(requests), "scoring")
        yield index, answer


# --- trees --------------------------------------------------------------------------------------------------


def _trees(model: HookedModel, ready: Sequence[tuple[int, Encoded]], budget: int) -> Iterator[tuple[int, Answer]]:
    grown = [(index, request, tree_of(request.continuations)) for index, request in ready]
    small = [g for g in grown if len(g[2]) <= PIECE and len(g[1].context) + len(g[2]) <= budget]
    kept = {g[0] for g in small}
    for group in _packed(small, budget, _vocabulary(model)):
        yield from _row_group(model, group)
    for index, request, tree in grown:
        if index not in kept:
            yield index, _answers(tree, _big_tree(model, request, tree, min(PIECE, budget)))


def _packed(rows: Iterable[tuple[int, Encoded, Tree]], budget: int, vocabulary: int) -> Iterator[list[tuple[int, Encoded, Tree]]]:
    """Rows of like length together, under the token budget and the bound on logits."""
    group: list[tuple[int, Encoded, Tree]] = []
    lead = wide = 0
    for row in sorted(rows, key=lambda r: (len(r[1].context) + len(r[2]), len(r[2]), r[0])):
        new_lead, new_wide = max(lead, len(row[1].context)), max(wide, len(row[2]))
        count = len(group) + 1
        if group and (count * (new_lead + new_wide) > budget or count * (new_wide + 1) * vocabulary > CELLS):
            yield group
            group, new_lead, new_wide = [], len(row[1].context), len(row[2])
        group.append(row)
        lead, wide = new_lead, new_wide
    if group:
        yield group


def _row_group(model: HookedModel, group: Sequence[tuple[int, Encoded, Tree]]) -> Iterator[tuple[int, Answer]]:
    batch = layout([(request, tree) for _, request, tree in group])
    asked = list(range(batch.start, batch.tokens.shape[1]))
    trace = model.run(batch.tokens, logits=asked, resume=Resume(positions=batch.positions, mask=batch.mask))
    rows = [row for row, (_, _, tree) in enumerate(group) for _ in tree.edges]
    places = [node + 1 for _, _, tree in group for node, _ in tree.edges]  # ROOT = −1 is the context's last column
    targets = [target for _, _, tree in group for _, target in tree.edges]
    values = picked(_logits(trace), torch.tensor(rows), torch.tensor(places), torch.tensor(targets))
    first = 0
    for index, _, tree in group:
        yield index, _answers(tree, values[first : first + len(tree.edges)])
        first += len(tree.edges)


def _big_tree(model: HookedModel, request: Encoded, tree: Tree, most: int) -> list[float]:
    """Edge values of a tree too big for one row: the context runs once, the tree in pieces on its cache."""
    length = len(request.context)
    trace = model.run(torch.tensor([request.context]), logits="last", cache=True)
    past, values = trace.past, [math.nan] * len(tree.edges)
    below: list[list[int]] = [[] for _ in range(len(tree) + 1)]
    for edge, (node, _) in enumerate(tree.edges):
        below[node + 1].append(edge)

    def fill(logits: Tensor, nodes: Sequence[int]) -> None:
        chosen = [(place, edge) for place, node in enumerate(nodes) for edge in below[node + 1] if math.isnan(values[edge])]
        at = torch.tensor([place for place, _ in chosen], dtype=torch.long)
        targets = torch.tensor([tree.edges[edge][1] for _, edge in chosen], dtype=torch.long)
        for (_, edge), value in zip(chosen, picked(logits, torch.zeros_like(at), at, targets), strict=True):
            values[edge] = value

    fill(_logits(trace), [ROOT])
    for piece in pieces_of(tree, most):
        inside = {node: place for place, node in enumerate(piece)}
        seen = torch.from_numpy(ancestry([inside.get(tree.parent[node], ROOT) for node in piece]))
        mask = torch.cat([torch.ones(len(piece), length, dtype=torch.bool), seen], dim=1)[None]
        positions = torch.tensor([[length - 1 + tree.depth[node] for node in piece]])
        tokens = torch.tensor([[tree.token[node] for node in piece]])
        fill(_logits(model.run(tokens, logits="all", resume=Resume(past=past, positions=positions, mask=mask))), piece)
    return values


def _answers(tree: Tree, values: Sequence[float]) -> Answer:
    return [[values[edge] for edge in path] for path in tree.paths]


# --- plain rows ---------------------------------------------------------------------------------------------


def _plain(model: HookedModel, ready: Sequence[tuple[int, Encoded]], budget: int) -> Iterator[tuple[int, Answer]]:
    """For a model that takes no mask or cache: one row a continuation, padded on the right."""
    jobs = [(request.context + ids[:-1], ids, index, c) for index, request in ready for c, ids in enumerate(request.continuations)]
    open_answers: dict[int, list[list[float] | None]] = {index: [None] * len(request.continuations) for index, request in ready}
    group: list[tuple[tuple[int, ...], tuple[int, ...], int, int]] = []
    vocabulary = _vocabulary(model)

    def flush() -> Iterator[tuple[int, Answer]]:
        scored = _sequences(model, [(row, len(row) - len(ids), ids) for row, ids, _, _ in group])
        for (_, _, index, c), values in zip(group, scored, strict=True):
            open_answers[index][c] = values
            if all(v is not None for v in open_answers[index]):
                yield index, [v for v in open_answers.pop(index) if v is not None]
        group.clear()

    for job in sorted(jobs, key=lambda j: (len(j[0]), j[2], j[3])):
        wide = (len(group) + 1) * len(job[0])
        if group and (wide > budget or wide * vocabulary > CELLS):
            yield from flush()
        group.append(job)
    if group:
        yield from flush()


def _sequences(model: HookedModel, rows: Sequence[tuple[tuple[int, ...], int, tuple[int, ...]]]) -> list[list[float]]:
    """Log-probabilities of ``targets`` read at columns ``first`` … of each plain row (row, first, targets)."""
    tokens = chains([row for row, _, _ in rows])
    start = min(first for _, first, _ in rows)
    trace = model.run(tokens, logits=list(range(start, tokens.shape[1])))
    where = [(number, first - start + k, target) for number, (_, first, targets) in enumerate(rows) for k, target in enumerate(targets)]
    index = torch.tensor(where, dtype=torch.long).reshape(-1, 3)
    values = iter(picked(_logits(trace), index[:, 0], index[:, 1], index[:, 2]))
    return [[next(values) for _ in targets] for _, _, targets in rows]


# --- rolling ------------------------------------------------------------------------------------------------


def token_logprobs(
    model: HookedModel,
    ids: Sequence[int],
    *,
    lead: int = 1,
    window: int | None = None,
    stride: int | None = None,
    token_budget: int = 8192,
) -> list[float]:
    """log p (nats) of each of ``ids[lead:]`` given what precedes it in a sliding window.

    A window holds ``window`` tokens (default: the model's context, or 1,024) and moves by ``stride`` (default: half a
    window). A token is scored in the first window that reaches it, so each has at least window − stride + 1 tokens before
    it, or all there are. Later windows begin mid-text, without BOS.
    """
    limit = context_length(model) or WINDOW
    window = limit if window is None else window
    stride = max(1, window // 2) if stride is None else stride
    if not 1 <= window <= limit:
        raise BadValue("the rolling window", window, f"1 to {limit} tokens")
    if not 1 <= stride <= window:
        raise BadValue("the rolling stride", stride, f"1 to {window}, the window")
    if not 1 <= lead < len(ids):
        raise BadValue("the number of tokens read before the first scored one", lead, f"1 to {len(ids) - 1}")
    jobs: list[tuple[tuple[int, ...], int, tuple[int, ...]]] = []
    scored = lead  # the next target to be scored
    while scored < len(ids):
        reach = scored - 1 + stride if jobs else max(window, scored - 1 + stride)
        stop = min(len(ids) - 1, reach)
        start = max(0, stop - window)
        jobs.append((tuple(ids[start:stop]), scored - 1 - start, tuple(ids[scored : stop + 1])))
        scored = stop + 1
    vocabulary = _vocabulary(model)
    most = max(1, min(token_budget // window, CELLS // (window * vocabulary)))
    groups = [jobs[k : k + most] for k in range(0, len(jobs), most)]
    return [value for group in groups for values in _sequences(model, group) for value in values]


def rolling(model: HookedModel, text: str, *, context: str = "", stride: int | None = None, token_budget: int = 8192) -> list[float]:
    """Per-token log-probabilities (nats) of a text of any length after ``context``, by ``token_logprobs``.

    Tokens by the rule of ``engine.tokens``. Raises BadValue for an empty text, and for an empty context without a BOS token.
    """
    tokenizer = tokenizer_of(model)
    encoded = encode_pair(tokenizer, context, [text])
    ids = encoded.context + encoded.continuations[0]
    return token_logprobs(model, ids, lead=len(encoded.context), stride=stride, token_budget=token_budget)


# --- the numbers themselves -----------------------------------------------------------------------------------


def picked(
    logits: Float[Tensor, "batch pos d_vocab"], rows: Int[Tensor, " edge"], places: Int[Tensor, " edge"], targets: Int[Tensor, " edge"]
) -> list[float]:
    """log p of ``targets`` at (row, place): target logit minus logsumexp, in float32 at least, a bounded slice at a time."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    normal = torch.empty(logits.shape[:2], dtype=dtype, device=logits.device)
    step = max(1, (CELLS // 8) // max(1, logits.shape[1] * logits.shape[2]))
    for first in range(0, logits.shape[0], step):
        normal[first : first + step] = logits[first : first + step].to(dtype).logsumexp(dim=-1)
    rows, places, targets = (t.to(logits.device) for t in (rows, places, targets))
    return (logits[rows, places, targets].to(dtype) - normal[rows, places]).tolist()


def _logits(trace: Any) -> Tensor:
    assert trace.logits is not None, "logits were asked for"
    return trace.logits


def _vocabulary(model: HookedModel) -> int:
    return getattr(model.config, "d_vocab", None) or (model.tokenizer.vocab_size if model.tokenizer is not None else 1)


# --- the certificate ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """How far fast scores were from naive ones: the largest |Δ log p| a token, over how many tokens and continuations."""

    gap: float
    tokens: int
    continuations: int

    def __str__(self) -> str:
        return f"at most {self.gap:.2e} nats a token from naive scoring, over {self.tokens} tokens of {self.continuations} continuations"


def certify(
    model: HookedModel,
    requests: Sequence[Loglikelihood],
    *,
    share: float = 0.01,
    most_each: int = 8,
    seed: int = 0,
    token_budget: int = 8192,
) -> Certificate:
    """Re-score a sample of the requests naively (one forward a continuation, log-softmax in float64) and compare.

    ``share`` of the requests, at least one, and of each at most ``most_each`` continuations, drawn with ``seed``. The fast
    scores compared are those of the whole sample as asked, so packing and trees are exercised.
    """
    if not 0 < share <= 1:
        raise BadValue("the certificate's share", share, "above 0 and at most 1")
    draw = random.Random(seed)
    chosen = [requests[i] for i in sorted(draw.sample(range(len(requests)), max(1, math.ceil(share * len(requests)))))] if requests else []
    encoded = [encode_request(model, request) for request in chosen]
    gap, tokens, count = 0.0, 0, 0
    for index, answer in loglikelihoods(model, encoded, token_budget=token_budget):
        request = encoded[index]
        for c in sorted(draw.sample(range(len(answer)), min(most_each, len(answer)))):
            exact = naive(model, request.context, request.continuations[c])
            gap = max([gap, *(abs(a - b) for a, b in zip(answer[c], exact, strict=True))])
            tokens, count = tokens + len(exact), count + 1
    return Certificate(gap, tokens, count)


def naive(model: HookedModel, context: Sequence[int], ids: Sequence[int]) -> list[float]:
    """log p of each of ``ids`` after ``context``: one full forward, log-softmax in float64."""
    tokens = torch.tensor([[*context, *ids[:-1]]])
    normal = _logits(model.run(tokens)).double().log_softmax(dim=-1)[0]
    return [float(normal[len(context) - 1 + k, target]) for k, target in enumerate(ids)]
