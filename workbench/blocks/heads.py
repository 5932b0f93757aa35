"""What is read off the last stream before there are logits (Devlin et al. 2019): a transform of every position, the first token's
pool, and a linear map to classes.

transform: hook_pre = x W + b,  hook_post = act(hook_pre),  output = norm(hook_post)
pooler:    hook_pre = x[first token] W + b,  hook_post = tanh(hook_pre)
classes:   hook_logits = hook_in W_U + b_U
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from workbench.blocks.embed import RESIDUAL, Axes, Embed
from workbench.blocks.init import linear
from workbench.blocks.listen import Listener, hear, under
from workbench.blocks.mlp import ACTS, GATED, Act
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm


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
