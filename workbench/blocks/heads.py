"""What is read off the last stream before there are logits (Devlin et al. 2019): a transform of every position, the first token's
pool, and a linear map to classes.

transform: hook_pre = x W + b,  hook_post = act(hook_pre),  output = norm(hook_post)
pooler:    hook_pre = x[first token] W + b,  hook_post = tanh(hook_pre)
classes:   hook_logits = hook_in W_U + b_U

What a linear map answers is said by the head's name: ``masked`` and ``token`` a choice at each position, ``sequence`` one a row, ``span``
where an answer begins and ends (two logits a position, each a choice among positions), ``regression`` numbers of a row.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from workbench.blocks.embed import RESIDUAL, Axes, Embed
from workbench.blocks.init import linear
from workbench.blocks.listen import Listener, hear, under
from workbench.blocks.losses import next_token_nll
from workbench.blocks.mlp import ACTS, GATED, Act
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm
from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue

NAMED = ("sequence", "token", "regression")
"""Heads whose outputs have names: classes, or the numbers that are predicted."""
POOLED = ("sequence", "regression", "pooler")
"""Heads that read one vector a row."""
ENDS = 2
"""Logits a position of the head ``span``: begin, then end."""


class Transform(nn.Module):
    """A dense layer, a non-linearity and a norm, at every position."""

    def __init__(self, d_model: int, *, act: Act, norm: Norm) -> None:
        super().__init__()
        assert act not in GATED, "a transform has one linear map, so it has no gate"
        self.act, self.dense, self.ln = act, linear(d_model, d_model, bias=True), norm

    def forward(self, x: Float[Tensor, "batch pos d_model"], listener: Listener | None = None) -> Float[Tensor, "batch pos d_model"]:
        """What the map to the vocabulary reads."""
        pre = hear(listener, "hook_pre", self.dense(x))
        return self.ln(hear(listener, "hook_post", ACTS[self.act](pre)), under(listener, "ln."))

    def weights(self) -> dict[str, Tensor]:
        """``W`` [d_model, d_model], ``b`` [d_model], ``ln.w`` and ``ln.b`` [d_model]."""
        norm = {f"ln.{name}": value for name, value in self.ln.weights().items()}
        return {"W": self.dense.weight.T, "b": self.dense.bias} | norm

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        return {"hook_pre": RESIDUAL, "hook_post": RESIDUAL} | {f"ln.{name}": axes for name, axes in NORM_SITES.items()}


class Pooler(nn.Module):
    """One vector a row, from the stream at its first token."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.dense = linear(d_model, d_model, bias=True)

    def forward(self, x: Float[Tensor, "batch pos d_model"], listener: Listener | None = None) -> Float[Tensor, "batch d_model"]:
        """The pooled vector."""
        return hear(listener, "hook_post", hear(listener, "hook_pre", self.dense(x[:, 0])).tanh())

    def weights(self) -> dict[str, Tensor]:
        """``W`` [d_model, d_model] and ``b`` [d_model]."""
        return {"W": self.dense.weight.T, "b": self.dense.bias}

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        return dict.fromkeys(("hook_pre", "hook_post"), ("batch", "d_model"))


class Classes(nn.Module):
    """A linear map to ``n_classes`` logits, of each row or (``by_pos``) of each position. It is called as an ``Unembed`` is, in whose
    place it stands, and has no use for the embedding."""

    def __init__(self, d_model: int, n_classes: int, *, by_pos: bool) -> None:
        super().__init__()
        self.by_pos, self.linear = by_pos, linear(d_model, n_classes, bias=True)

    def forward(
        self, x: Float[Tensor, "batch *pos d_model"], embed: Embed | None, listener: Listener | None = None
    ) -> Float[Tensor, "batch *pos class"]:
        """One logit a class."""
        return hear(listener, "hook_logits", self.linear(hear(listener, "hook_in", x)))

    def weights(self, embed: Embed | None) -> dict[str, Tensor]:
        """``W_U`` [d_model, class] and ``b_U`` [class]."""
        return {"W_U": self.linear.weight.T, "b_U": self.linear.bias}

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        pos: Axes = ("pos",) if self.by_pos else ()
        return {"hook_in": ("batch", *pos, "d_model"), "hook_logits": ("batch", *pos, "class")}


def checked_targets(head: str, targets: Tensor | None, shape: tuple[int, int], outputs: int) -> Tensor:
    """``targets`` of a batch of ``shape`` (batch, pos), checked: integers ``[batch, pos]`` (masked, token), ``[batch]`` (sequence) or
    ``[batch, 2]`` (span: the positions where the answer begins and ends, or ``IGNORE`` for both); floats ``[batch, outputs]`` (regression).
    Raises BadValue."""
    wanted = {"sequence": shape[:1], "span": (shape[0], ENDS), "regression": (shape[0], outputs)}.get(head, shape)
    real = head == "regression"
    if targets is None or tuple(targets.shape) != wanted or targets.is_floating_point() != real or targets.dtype == torch.bool:
        found = None if targets is None else f"{tuple(targets.shape)} {targets.dtype}"
        raise BadValue("the batch's targets", found, f"{'floats' if real else 'integers'} {wanted} for the head {head}")
    if head == "span":
        known = targets[(targets != IGNORE).any(1)]
        if bool(((known < 0) | (known >= shape[1])).any() or (known[:, 0] > known[:, 1]).any()):
            allowed = f"a begin and an end not before it within 0 to {shape[1] - 1}, or {IGNORE} twice"
            raise BadValue("the batch's targets", known.tolist()[:4], allowed)
    return targets


def answer_loss(
    head: str,
    x: Float[Tensor, "_rows *_pos d_model"],
    matrix: Float[Tensor, "out d_model"],
    bias: Float[Tensor, " out"],
    targets: Tensor,
    valid: Bool[Tensor, "batch pos"] | None,
) -> tuple[Float[Tensor, ""], int]:
    """The summed loss of checked targets and how many there are, in at least float32. ``x`` is what the map reads.

    Negative log-likelihoods in nats, of a span the mean of its begin's and its end's among the row's real positions (Devlin et al. 2019,
    section 4.2); for numbers the squared errors.
    """
    if head not in ("span", "regression"):
        return next_token_nll(x.reshape(1, -1, x.shape[-1]), matrix, targets.reshape(1, -1), bias=bias)
    logits = functional.linear(x, matrix, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if head == "regression":
        return (logits - targets.to(logits)).square().sum(), targets.numel()
    if valid is not None:
        logits = logits.masked_fill(~valid.unsqueeze(2), -math.inf)
    each = functional.cross_entropy(logits.transpose(1, 2).flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")
    return each / ENDS, int((targets[:, 0] != IGNORE).sum())
