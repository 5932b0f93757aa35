"""Continuations of one prompt drawn side by side from the nucleus; what is drawn depends on the prompt, the seed and the model alone."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.errors import BadValue
from workbench.core.measure import Sampled
from workbench.core.protocol import HookedModel, Resume
from workbench.data.counter import key_of
from workbench.engine.tokens import context_length, lead_of, tokenizer_of


@torch.no_grad()
def sampled(model: HookedModel, request: Sampled) -> list[str]:
    """The continuations of ``request.prompt``, each up to EOS where the model writes it. Raises BadValue for what cannot be asked, and for
    a prompt that does not fit the model's context with what is to be drawn."""
    tokenizer = tokenizer_of(model)
    ids = lead_of(tokenizer) + tuple(tokenizer.encode(request.prompt))
    if request.copies < 1 or request.most < 1 or not 0 < request.nucleus <= 1:
        asked = f"{request.copies} copies, {request.most} tokens, nucleus {request.nucleus}"
        raise BadValue("what is to be sampled", asked, "at least one of each, and a nucleus above 0, at most 1")
    if not ids:
        raise BadValue("a prompt", request.prompt, "non-empty: this tokenizer has no BOS token to begin with")
    limit, needed = context_length(model), len(ids) + request.most - 1
    if limit is not None and needed > limit:
        raise BadValue("a prompt's length with what is to be generated", needed, f"at most {limit} tokens, the model's context")
    made = _drawn(model, ids, request, tokenizer.eos_id)
    return [tokenizer.decode(row[: row.index(tokenizer.eos_id)] if tokenizer.eos_id in row else row) for row in made.tolist()]


def _drawn(model: HookedModel, ids: tuple[int, ...], request: Sampled, eos: int | None) -> Int[Tensor, "copy step"]:
    by = torch.Generator().manual_seed(key_of("sampled", request.seed, request.prompt) % (1 << 63))
    draws = torch.rand(request.most, request.copies, generator=by, dtype=torch.float64)
    cached = "cache" in model.abilities
    tokens, whole, past = torch.tensor([ids] * request.copies), None, None
    out = torch.zeros(request.copies, 0, dtype=torch.long)
    for draw in draws:
        whole = tokens if whole is None else torch.cat([whole, tokens], dim=1)
        trace = model.run(tokens if cached else whole, logits="last", resume=Resume(past=past) if past is not None else None, cache=cached)
        past = trace.past
        assert trace.logits is not None, "logits were asked for"
        tokens = chosen(trace.logits[:, -1].double().softmax(-1).cpu(), draw, request.nucleus)[:, None]
        out = torch.cat([out, tokens], dim=1)
        if eos is not None and bool((out == eos).any(1).all()):
            break
    return out


def chosen(shares: Float[Tensor, "copy token"], draw: Float[Tensor, " copy"], nucleus: float) -> Int[Tensor, " copy"]:
    """A token a row by inverse transform: of the likeliest tokens until ``nucleus`` is reached, the one where ``draw`` in [0, 1) falls."""
    ranked, order = shares.sort(dim=-1, descending=True, stable=True)
    before = ranked.cumsum(-1) - ranked
    kept = ranked * (before < nucleus)  # the one that reaches the nucleus is in it
    reached = kept.cumsum(-1) > (draw * kept.sum(-1))[:, None]
    return order.gather(1, reached.int().argmax(-1, keepdim=True))[:, 0]
