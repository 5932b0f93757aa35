"""A model that writes a concept twice: linearly with the embedding, and again in a later layer, from bits that no linear map reads it off.

Every word has two bits, a and b (-1 or 1), written along axes of their own, and their exclusive or c along ``v``, ``early`` times. The
MLP of layer 1 computes c from the bits and writes it along ``v`` again, ``late`` times. The two answers' logits are the stream along ``v``
and minus it:

    gap of the logit difference = 4 (early + late)        after c is erased from the embedding alone = 4 late
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.families.gpt import GPT, GPTConfig

BOS, YES, NO, WORDS = 0, 1, 2, 3
LATE_LAYER = 1


@dataclass(frozen=True)
class Rewritten:
    """The model, and for each word its exclusive or (0 or 1)."""

    model: GPT
    concept: Int[Tensor, " word"]

    def sentences(self) -> tuple[Int[Tensor, "word 2"], Int[Tensor, " word"]]:
        """Every word after a BOS, and its concept."""
        words = torch.arange(len(self.concept)) + WORDS
        return torch.stack([torch.full_like(words, BOS), words], 1), self.concept


def rewritten(*, words: int = 800, own: int = 13, early: float = 1.0, late: float = 1.0, seed: int = 0) -> Rewritten:
    """The model; ``own`` axes hold what else there is of a word."""
    draw = torch.Generator().manual_seed(seed)
    config = GPTConfig(n_layers=3, d_model=own + 3, n_heads=2, d_mlp=4, d_vocab=WORDS + words, n_ctx=4, norm_placement="none", act="relu",
                       tied=False)  # fmt: skip
    model = GPT(config, seed=seed).eval()
    a, b, v = own, own + 1, own + 2
    code = torch.arange(words)[torch.randperm(words, generator=draw)] % 4
    bits = torch.stack([code // 2, code % 2]) * 2 - 1
    differ = (bits[0] != bits[1]).long()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        embedding = model.weight("W_E")
        embedding[WORDS:, :own] = torch.randn(words, own, generator=draw)
        embedding[WORDS:, a], embedding[WORDS:, b] = bits[0].float(), bits[1].float()
        embedding[WORDS:, v] = early * (2 * differ.float() - 1)
        inner, outer = model.weight(f"blocks.{LATE_LAYER}.mlp.W_in"), model.weight(f"blocks.{LATE_LAYER}.mlp.W_out")
        inner[[a, b], 0], inner[[a, b], 1] = 1.0, -1.0  # |a + b| = relu(a + b) + relu(-a - b) is 0 or 2
        outer[[0, 1], v] = -late
        model.weight(f"blocks.{LATE_LAYER}.mlp.b_out")[v] = late
        answers = model.weight("W_U")
        answers[v, YES], answers[v, NO] = 1.0, -1.0
    return Rewritten(model, differ)
