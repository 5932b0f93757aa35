"""From ids to the residual stream, and from the stream to logits."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from workbench.blocks.init import linear, table
from workbench.blocks.listen import Listener, hear

Axes = tuple[str, ...]
RESIDUAL: Axes = ("batch", "pos", "d_model")


class Embed(nn.Module):
    """Token embeddings plus, where ``n_positions`` is given, learned absolute positions."""

    def __init__(self, d_vocab: int, d_model: int, *, n_positions: int | None = None) -> None:
        super().__init__()
        self.token = table(d_vocab, d_model)
        self.position = table(n_positions, d_model) if n_positions is not None else None

    def forward(
        self, tokens: Int[Tensor, "batch pos"], positions: Int[Tensor, "rows pos"], listener: Listener | None = None
    ) -> Float[Tensor, "batch pos d_model"]:
        """The stream before the first layer; ``positions`` has one row where all rows share them."""
        out = hear(listener, "hook_embed", self.token(tokens))
        if self.position is not None:
            out = out + hear(listener, "hook_pos_embed", self.position(positions).expand_as(out))
        return out

    def weights(self) -> dict[str, Tensor]:
        """``W_E`` [d_vocab, d_model] and, where positions are learned, ``W_pos`` [n_ctx, d_model]."""
        return {"W_E": self.token.weight} | ({"W_pos": self.position.weight} if self.position is not None else {})

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        return {"hook_embed": RESIDUAL} | ({"hook_pos_embed": RESIDUAL} if self.position is not None else {})


class Unembed(nn.Module):
    """Logits from the (normalised) stream: ``hook_logits = hook_in W_U``. With ``tied`` the matrix is the embedding's."""

    def __init__(self, d_model: int, d_vocab: int, *, tied: bool) -> None:
        super().__init__()
        self.own = None if tied else linear(d_model, d_vocab, bias=False)

    def matrix(self, embed: Embed) -> Float[Tensor, "d_vocab d_model"]:
        """The matrix in use, one row a token."""
        return embed.token.weight if self.own is None else self.own.weight

    def forward(
        self, x: Float[Tensor, "batch pos d_model"], embed: Embed, listener: Listener | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """One logit a token of the vocabulary."""
        return hear(listener, "hook_logits", functional.linear(hear(listener, "hook_in", x), self.matrix(embed)))

    def weights(self, embed: Embed) -> dict[str, Tensor]:
        """``W_U`` [d_model, d_vocab] and ``b_U`` (zeros)."""
        matrix = self.matrix(embed)
        return {"W_U": matrix.T, "b_U": matrix.new_zeros(matrix.shape[0])}

    def sites(self) -> dict[str, Axes]:
        """Site names and axes in the order of a run."""
        return {"hook_in": RESIDUAL, "hook_logits": ("batch", "pos", "d_vocab")}
