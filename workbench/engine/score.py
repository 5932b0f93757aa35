"""Exact log-likelihoods, fast: shared beginnings are run once, logits are made only where something is scored.

Two ways. ``certified`` (the default): one forest over all requests (``engine.certified``); scores are the same to the last bit whatever the
batch size, the order or the subset asked for. ``packed``: token trees side by side (``engine.packed``), whose last bits depend on what
shares a pass. A model that the certificate does not hold for (``standing`` says why: endpoints, TransformerLens's bridges, 16-bit weights,
a GPU) is scored in the second way, or answers for itself. Both agree with naive scoring (one full forward a continuation, log-softmax in
float64: the twin in tests/reference/scoring.py) within 1e-5 nats a scored token in float32; ``certify`` measures it.

Nothing is cut short: what does not fit the model's context is refused with the reason.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from workbench.core.errors import AssayError, BadValue
from workbench.core.measure import Answering, Loglikelihood
from workbench.core.protocol import HookedModel, Progress, silent
from workbench.engine.certified import certified, outside
from workbench.engine.memory import keep_freed
from workbench.engine.packed import packed, sequences, vocabulary_of
from workbench.engine.reading import CELLS, Values, Wanted
from workbench.engine.tokens import Encoded, context_length, encode_pair, encode_request, tokenizer_of

WINDOW = 1024
"""Window of rolling scores where the model names no context length."""

Mode = Literal["certified", "packed"]
Answer = list[list[float]]
Refuse = Callable[[int, AssayError], None]


def loglikelihoods(
    model: HookedModel,
    requests: Sequence[Loglikelihood | Encoded],
    *,
    token_budget: int = 8192,
    mode: Mode = "certified",
    progress: Progress = silent,
    refuse: Refuse | None = None,
) -> Iterator[tuple[int, Answer]]:
    """(index of the request, for each continuation its tokens' log-probabilities in nats), in the order they are ready.

    ``token_budget`` bounds the tokens of a run, padding included. A request that cannot be scored (too long for the
    model, nothing to score, a character the tokenizer lacks) raises its error before anything is computed, or, where
    ``refuse`` is given, is passed to it as (index, error) and left out.
    """
    if isinstance(model, Answering):
        texts = [request for request in requests if isinstance(request, Loglikelihood)]
        assert len(texts) == len(requests), "a model that answers itself is asked in text"
        _check(token_budget, mode)
        yield from model.loglikelihoods(texts, progress=progress, refuse=refuse)
        return
    for index, found in _scored(model, requests, token_budget, mode, "logprob", progress, refuse):
        yield index, [values[:, 0].tolist() for values in found]


@dataclass(frozen=True)
class Detail:
    """Of one continuation, one entry a token: log p, how many tokens were likelier (``rank``; of equal ones those with a lower id), and
    where asked the ``entropy`` and the ``variance`` of log p under the model's distribution there (nats, nats²). The mean of log p is
    minus the entropy: what Min-K%++ (Zhang et al. 2024) subtracts."""

    logprobs: list[float]
    ranks: list[int]
    entropies: list[float]
    variances: list[float]

    @property
    def greedy(self) -> bool:
        """Whether greedy decoding would have written exactly this."""
        return not any(self.ranks)


def details(
    model: HookedModel,
    requests: Sequence[Loglikelihood | Encoded],
    *,
    moments: bool = True,
    token_budget: int = 8192,
    mode: Mode = "certified",
    progress: Progress = silent,
    refuse: Refuse | None = None,
) -> Iterator[tuple[int, list[Detail]]]:
    """As ``loglikelihoods``, with what else is known of each scored token; without ``moments`` entropies and variances are left empty.

    Raises BadValue for a model that shows no logits.
    """
    if isinstance(model, Answering):
        raise BadValue("the model", f"a {model.family} model, which answers for itself", "one that shows its logits: ranks are read there")
    for index, found in _scored(model, requests, token_budget, mode, "all" if moments else "rank", progress, refuse):
        yield index, [_detail(values) for values in found]


def _detail(values: Values) -> Detail:
    columns = values.T.tolist()
    entropies, variances = columns[2:] if len(columns) == 4 else ([], [])
    return Detail(columns[0], [int(rank) for rank in columns[1]], entropies, variances)


def _scored(
    model: HookedModel,
    requests: Sequence[Loglikelihood | Encoded],
    budget: int,
    mode: Mode,
    wanted: Wanted,
    progress: Progress,
    refuse: Refuse | None,
) -> Iterator[tuple[int, list[Values]]]:
    _check(budget, mode)
    keep_freed()
    ready: list[tuple[int, Encoded]] = []
    for index, request in enumerate(requests):
        try:
            ready.append((index, request if isinstance(request, Encoded) else encode_request(model, request)))
        except AssayError as error:
            if refuse is None:
                raise
            refuse(index, error)
    done = len(requests) - len(ready)
    way = certified if mode == "certified" and ready and not outside(model) else packed
    for index, found in way(model, ready, budget, wanted):
        done += 1
        progress(done, len(requests), "scoring")
        yield index, found


def _check(budget: int, mode: Mode) -> None:
    if budget < 1:
        raise BadValue("token_budget", budget, "at least 1")
    if mode not in ("certified", "packed"):
        raise BadValue("the scoring mode", mode, "'certified' or 'packed'")


# --- rolling ------------------------------------------------------------------------------------------------


def token_logprobs(
    model: HookedModel,
    ids: Sequence[int],
    *,
    lead: int = 1,
    window: int | None = None,
    stride: int | None = None,
    token_budget: int = 8192,
    mode: Mode = "certified",
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
    _check(token_budget, mode)
    if mode == "certified" and not outside(model):
        asked = [(number, Encoded(row[: first + 1], (targets,))) for number, (row, first, targets) in enumerate(jobs)]
        found = dict(certified(model, asked, token_budget, "logprob"))
        return [value for number in range(len(jobs)) for value in found[number][0][:, 0].tolist()]
    most = max(1, min(token_budget // window, CELLS // (window * vocabulary_of(model))))
    groups = [jobs[k : k + most] for k in range(0, len(jobs), most)]
    return [value for group in groups for values in sequences(model, group, "logprob") for value in values[:, 0].tolist()]


def rolling(model: HookedModel, text: str, *, context: str = "", stride: int | None = None, token_budget: int = 8192) -> list[float]:
    """Per-token log-probabilities (nats) of a text of any length after ``context``, by ``token_logprobs``.

    Tokens by the rule of ``engine.tokens``. Raises BadValue for an empty text, and for an empty context without a BOS token.
    """
    tokenizer = tokenizer_of(model)
    encoded = encode_pair(tokenizer, context, [text])
    ids = encoded.context + encoded.continuations[0]
    return token_logprobs(model, ids, lead=len(encoded.context), stride=stride, token_budget=token_budget)


# --- the certificate ------------------------------------------------------------------------------------------


def standing(model: HookedModel, mode: Mode = "certified") -> str:
    """'' where scores of ``model`` in this mode are certified, else why they are not, as a clause."""
    if isinstance(model, Answering):
        return f"this {model.family} model answers for itself, and what shares a pass with a text there is not known"
    return "packed rows share passes" if mode == "packed" else outside(model)


@dataclass(frozen=True)
class Certificate:
    """How far fast scores were from naive ones: the largest |Δ log p| a token, over how many tokens and continuations; how many tokens
    changed a bit when every text was asked alone (``moved``); and why the scores are not certified ('' where they are)."""

    gap: float
    tokens: int
    continuations: int
    moved: int = 0
    threads: int = 1
    outside: str = ""

    def __str__(self) -> str:
        gap = f"at most {self.gap:.2e} nats a token from naive scoring, over {self.tokens} tokens of {self.continuations} continuations"
        asked_alone = f"{self.moved} of {self.tokens} tokens changed a bit when asked alone, on {self.threads} threads"
        return f"{'not certified (' + self.outside + ')' if self.outside else 'certified'}: {gap}; {asked_alone}"


def certify(
    model: HookedModel,
    requests: Sequence[Loglikelihood],
    *,
    share: float = 0.01,
    most_each: int = 8,
    seed: int = 0,
    token_budget: int = 8192,
    mode: Mode = "certified",
) -> Certificate:
    """Re-score a sample of the requests naively (one forward a continuation, log-softmax in float64), and alone, and compare.

    ``share`` of the requests, at least one, and of each at most ``most_each`` continuations, drawn with ``seed``. The fast
    scores compared are those of the whole sample as asked, so packing and trees are exercised. Raises BadValue for a model that shows no
    logits.
    """
    if not 0 < share <= 1:
        raise BadValue("the certificate's share", share, "above 0 and at most 1")
    if isinstance(model, Answering):
        raise BadValue("the model", f"a {model.family} model", "one that shows its logits", do=f"It is not certified: {standing(model)}.")
    draw = random.Random(seed)
    chosen = [requests[i] for i in sorted(draw.sample(range(len(requests)), max(1, math.ceil(share * len(requests)))))] if requests else []
    encoded = [encode_request(model, request) for request in chosen]
    gap, tokens, count, moved = 0.0, 0, 0, 0
    for index, answer in loglikelihoods(model, encoded, token_budget=token_budget, mode=mode):
        request = encoded[index]
        for c in sorted(draw.sample(range(len(answer)), min(most_each, len(answer)))):
            exact = naive(model, request.context, request.continuations[c])
            alone = Encoded(request.context, (request.continuations[c],))
            ((_, (again,)),) = loglikelihoods(model, [alone], token_budget=token_budget, mode=mode)
            gap = max([gap, *(abs(a - b) for a, b in zip(answer[c], exact, strict=True))])
            moved += sum(a != b for a, b in zip(answer[c], again, strict=True))
            tokens, count = tokens + len(exact), count + 1
    return Certificate(gap, tokens, count, moved, torch.get_num_threads(), standing(model, mode))


def naive(model: HookedModel, context: Sequence[int], ids: Sequence[int]) -> list[float]:
    """log p of each of ``ids`` after ``context``: one full forward, log-softmax in float64."""
    tokens = torch.tensor([[*context, *ids[:-1]]])
    logits: Any = model.run(tokens).logits
    normal = logits.double().log_softmax(dim=-1)[0]
    return [float(normal[len(context) - 1 + k, target]) for k, target in enumerate(ids)]
