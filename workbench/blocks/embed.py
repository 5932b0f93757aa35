"""From ids to the residual stream, and from the stream to logits."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from workbench.blocks.init import linear, table
from workbench.blocks.listen import Listener, hear, under
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm

Axes = tuple[str, ...]
RESIDUAL: Axes = ("batch", "pos", "d_model")


class Embed(nn.Module):
    """Token embeddings plus, where ``n_positions`` is given, learned absolute positions.

    ``d_vocab`` None: no table of its own, each call is lent one. ``scale`` multiplies the token embeddings (``hook_embed`` is after it,
    ``W_E`` before). ``norm`` acts on the sum. ``reserved`` rows stand before position 0 in the table of positions; nothing reads them.
    With ``d_embed`` the table is factorised (Lan et al. 2020): ``W_E`` is a table ``[d_vocab, d_embed]`` times ``W_up``.
    """

    token: nn.Embedding
    up: nn.Linear | None

    def __init__(
        self,
        d_vocab: int | None,
        d_model: int,
        *,
        n_positions: int | None = None,
        scale: float = 1.0,
        norm: Norm | None = None,
        reserved: int = 0,
        d_embed: int = 0,
    ) -> None:
        super().__init__()
        if d_vocab is not None:
            self.token = table(d_vocab, d_embed or d_model)
        self.up = linear(d_embed, d_model, bias=False) if d_embed else None
        self.position = table(n_positions + reserved, d_model) if n_positions is not None else None
        self.ln, self.scale, self.reserved = norm, scale, reserved

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"],
        positions: Int[Tensor, "rows pos"],
        listener: Listener | None = None,
        lent: nn.Embedding | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The stream before the first layer; ``positions`` has one row where all rows share them."""
        out = (lent if lent is not None else self.token)(tokens)
        out = out if self.up is None else self.up(out).to(self.token.weight.dtype)  # autocast would leave a narrow stream
        out = hear(listener, "hook_embed", out if self.scale == 1.0 else out * self.scale)
        if self.position is not None:
            out = out + hear(listener, "hook_pos_embed", self.position(positions + self.reserved).expand_as(out))
        return out if self.ln is None else self.ln(out, under(listener, "ln_embed."))

    def matrix(self) -> Float[Tensor, "d_vocab d_model"]:
        """``W_E``, one row a token: multiplied out where it is factorised."""
        return self.token.weight if self.up is None else functional.linear(self.token.weight, self.up.weight)

    def weights(self, lent: nn.Embedding | None = None) -> dict[str, Tensor]:
        """``W_E`` [d_vocab, d_model] and, where positions are learned, ``W_pos`` [n_ctx, d_model]; ``ln_embed.w`` and ``ln_embed.b``;
        where the table is factorised ``W_up`` [d_embed, d_model] besides."""
        norm = self.ln.weights() if self.ln is not None else {}
        out = {"W_E": self.matrix() if lent is None else lent.weight}
        out |= {"W_up": self.up.weight.T} if self.up is not None else {}
        out |= {"W_pos": self.position.weight[self.reserved :]} if self.position is not None else {}
        return out | {f"ln_embed.{name}": value for name, value in norm.items()}

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        norm = NORM_SITES if self.ln is not None else {}
        table = {"hook_embed": RESIDUAL} | ({"hook_pos_embed": RESIDUAL} if self.position is not None else {})
        return table | {f"ln_embed.{name}": axes for name, axes in norm.items()}


class Unembed(nn.Module):
    """Logits from the (normalised) stream: ``hook_logits = hook_in W_U + b_U``. With ``tied`` the matrix is the embedding's, in its two
    factors where it has them."""

    def __init__(self, d_model: int, d_vocab: int, *, tied: bool, bias: bool = False) -> None:
        super().__init__()
        self.own = None if tied else linear(d_model, d_vocab, bias=False)
        self.bias = nn.Parameter(torch.zeros(d_vocab)) if bias else None

    def matrix(self, embed: Embed) -> Float[Tensor, "d_vocab d_model"]:
        """The matrix in use, one row a token."""
        return embed.matrix() if self.own is None else self.own.weight

    def read(self, x: Float[Tensor, "*any d_model"], embed: Embed) -> tuple[Float[Tensor, "*any d_in"], Float[Tensor, "d_vocab d_in"]]:
        """What the last product is of: the stream, through one factor where there are two, and the other."""
        if self.own is None and embed.up is not None:
            return x @ embed.up.weight, embed.token.weight
        return x, self.matrix(embed)

    def forward(
        self, x: Float[Tensor, "batch pos d_model"], embed: Embed, listener: Listener | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """One logit a token of the vocabulary."""
        return hear(listener, "hook_logits", functional.linear(*self.read(hear(listener, "hook_in", x), embed), self.bias))

    def weights(self, embed: Embed) -> dict[str, Tensor]:
        """``W_U`` [d_model, d_vocab] and ``b_U`` [d_vocab] (zeros where there is none)."""
        matrix = self.matrix(embed)
        return {"W_U": matrix.T, "b_U": self.bias if self.bias is not None else matrix.new_zeros(matrix.shape[0])}

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        return {"hook_in": RESIDUAL, "hook_logits": ("batch", "pos", "d_vocab")}
