"""The bidirectional encoder one row and one position at a time, from the weights by their public names; slow and obvious."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def normed(x: Tensor, w: Tensor, b: Tensor, eps: float) -> Tensor:
    """Layer norm of one vector."""
    centred = x - x.mean()
    return centred / (centred.pow(2).mean() + eps).sqrt() * w + b


def act(x: Tensor, kind: str) -> Tensor:
    """The non-linearities by their definitions."""
    if kind == "relu":
        return x.clamp(min=0)
    if kind == "quick_gelu":
        return x / (1 + (-1.702 * x).exp())
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x * (1 + (torch.erf(x / math.sqrt(2)) if kind == "gelu" else inner.tanh())) / 2


def attended(w: Callable[[str], Tensor], at: str, x: list[Tensor], query: Tensor, mask: Tensor) -> Tensor:
    """What attention says at one query, over the keys that ``mask`` lets it see."""
    out = w(at + "attn.b_O")
    for head in range(len(w(at + "attn.W_Q"))):

        def part(vector: Tensor, word: str, head: int = head) -> Tensor:
            return vector @ w(f"{at}attn.W_{word}")[head] + w(f"{at}attn.b_{word}")[head]

        q = part(query, "Q")
        scores = [math.exp(q @ part(key, "K") / math.sqrt(len(q))) if seen else 0.0 for key, seen in zip(x, mask, strict=True)]
        z = torch.stack([score * part(value, "V") for score, value in zip(scores, x, strict=True)]).sum(0) / sum(scores)
        out = out + z @ w(at + "attn.W_O")[head]
    return out


def stream(model: Any, ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
    """The last stream of one row ``[pos, d_model]``."""
    held, c = {name: value.detach() for name, value in model.named_weights().items()}, model.config
    w = held.__getitem__

    def norm(x: Tensor, name: str) -> Tensor:
        return normed(x, w(f"{name}.w"), w(f"{name}.b"), c.norm_eps)

    x = [norm(w("W_E")[i] + w("W_pos")[p] + w("W_token_type")[t], "ln_embed") for p, (i, t) in enumerate(zip(ids, types, strict=True))]
    for layer in range(c.n_layers):
        at, new = f"blocks.{layer}.", []
        for query in x:
            mid = norm(query + attended(w, at, x, query, mask), at + "ln1")
            post = act(mid @ w(at + "mlp.W_in") + w(at + "mlp.b_in"), c.act) @ w(at + "mlp.W_out") + w(at + "mlp.b_out")
            new.append(norm(mid + post, at + "ln2"))
        x = new
    return torch.stack(x)


def logits(model: Any, ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
    """The logits of one row: ``[pos, d_vocab or class]``, or ``[class]``."""
    w, c = model.weight, model.config
    x = stream(model, ids, types, mask)
    if c.head in ("sequence", "regression"):
        x = (x[0] @ w("pooler.W") + w("pooler.b")).tanh()
    if c.head == "masked":
        inner = act(x @ w("head.W") + w("head.b"), c.act)
        x = torch.stack([normed(row, w("head.ln.w"), w("head.ln.b"), c.norm_eps) for row in inner])
    return x @ w("W_U") + w("b_U")
