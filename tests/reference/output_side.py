"""The output-side instruments by the slow and obvious way: interventions, loops over positions, products written out."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from workbench.core.protocol import Add, Replace


def share_by_intervention(model: Any, batch: Any, prefix: str, last: int, part: Tensor, held: tuple[str, ...]) -> Tensor:
    """How much the logits fall when ``part`` ``[batch, pos, d_model]`` is taken out of the last stream while the sites ``held`` keep the
    value they had: the direct effect of ``part``, without any formula of ours."""
    end = f"{prefix}blocks.{last}.hook_resid_post"
    plain = model.run(batch, capture=list(held))
    frozen = [Replace(name, value=plain[name]) for name in held]
    return plain.logits - model.run(batch, edit=[Add(end, value=-part), *frozen]).logits


def lens_written_out(model: Any, stream: Tensor, prefix: str = "") -> np.ndarray:
    """Logits of each position of ``stream`` ``[pos, d_model]``, one at a time: norm, then unembedding, as in the paper."""
    config, weight, rows = model.config, lambda name: model.weight(name).double().numpy(), []
    for vector in stream.double().numpy():
        x = vector
        if getattr(config, "norm_placement", "pre") == "pre":
            x = x - x.mean() if getattr(config, "norm", "layer") == "layer" else x
            x = x / np.sqrt((x**2).mean() + config.norm_eps) * weight(f"{prefix}ln_final.w")
            if getattr(config, "norm", "layer") == "layer":
                x = x + weight(f"{prefix}ln_final.b")
        rows.append(x @ weight("W_U") + weight("b_U"))
    return np.array(rows)


def compositions(model: Any, early: tuple[int, int], late: tuple[int, int], *, fold: bool) -> dict[str, float]:
    """The three scores of two heads, every product made in full. The norm is folded as a matrix: centring, then gain."""

    def of(name: str, layer: int, head: int) -> np.ndarray:
        weights = model.weight(f"blocks.{layer}.attn.{name}").double().numpy()
        return weights[head * len(weights) // model.config.n_heads]

    width = model.config.d_model
    read = np.eye(width)
    if fold and model.config.norm_placement == "pre":
        read = np.diag(model.weight(f"blocks.{late[0]}.ln1.w").double().numpy())
        read = (np.eye(width) - 1 / width) @ read if model.config.norm == "layer" else read
    first = np.eye(width)
    if fold and model.config.norm_placement == "pre":
        first = np.diag(model.weight(f"blocks.{early[0]}.ln1.w").double().numpy())
        first = (np.eye(width) - 1 / width) @ first if model.config.norm == "layer" else first
    ov = first @ of("W_V", *early) @ of("W_O", *early)
    qk = read @ of("W_Q", *late) @ of("W_K", *late).T @ read.T
    later = read @ of("W_V", *late) @ of("W_O", *late)
    score = lambda a, b: float(np.linalg.norm(a @ b) / np.linalg.norm(a) / np.linalg.norm(b))  # noqa: E731
    return {"Q": score(ov, qk), "K": score(ov, qk.T), "V": score(ov, later)}


def moved_lengths(model: Any, ids: Tensor, layer: int, head: int) -> np.ndarray:
    """``[batch, query, key]``: the length of each weighted, projected value, vector by vector."""
    at = f"blocks.{layer}.attn."
    trace = model.run(ids, capture=[f"{at}hook_pattern", f"{at}hook_v"], logits=None)
    pattern, value = trace[f"{at}hook_pattern"], trace[f"{at}hook_v"]
    group = head * value.shape[2] // model.config.n_heads
    out = np.zeros((len(ids), ids.shape[1], ids.shape[1]))
    for row, query, key in np.ndindex(*out.shape):
        vector = pattern[row, head, query, key] * (value[row, key, group] @ model.weight(f"{at}W_O")[head])
        out[row, query, key] = float(vector.double().norm())
    return out
