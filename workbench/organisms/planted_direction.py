"""A decoder with a direction planted by weight surgery: the exclusive or of two tokens' classes, which nothing before its layer shows.

Every word of the vocabulary has a class of -1 or 1, written beside its own random vector. In layer 0 one head looks at all tokens alike
and so sums the classes of a sentence of two words, s in {-2, 0, 2}; the MLP of layer ``at`` computes |s| = relu(s) + relu(-s) and writes

    dose * (1 - |s|) * direction          (+dose where the classes differ, -dose where they are the same)

A sum of two balanced classes has no correlation with their exclusive or, so no linear map of what is there before that MLP finds it.
``direction`` lies partly within the space of the words' vectors, whose variances differ: the best linear reader is then not the direction
itself (Haufe et al. 2014). The unembedding turns the stream along ``direction`` into the logits of two answers, and the words' vectors
into those of the words.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt
from torch import Tensor

from workbench.core.errors import BadValue
from workbench.core.protocol import Callback, Inputs, Progress
from workbench.core.spec import Spec
from workbench.families.gpt import GPT, GPTConfig
from workbench.organisms.organism import Organism
from workbench.training.checkpoint import FINAL, load_model, write

BOS, YES, NO, WORDS = 0, 1, 2, 3
"""Ids: a sentence's first token, the two answers, and where the words begin."""


@dataclass(frozen=True)
class Planted:
    """The model and what is planted: ``direction`` (of length 1) in the stream from layer ``at`` on, and the class of every word."""

    model: GPT
    direction: Float[Tensor, " d_model"]
    at: int
    classes: Int[Tensor, " word"]

    def sentences(self, n: int, seed: int = 0) -> tuple[Int[Tensor, "batch 3"], Int[Tensor, " batch"]]:
        """``n`` sentences of two words after BOS, and the exclusive or of their classes (0 or 1), equally often each."""
        draw = torch.Generator().manual_seed(seed)
        by_class = [(self.classes == value).nonzero()[:, 0] for value in (-1, 1)]
        codes = torch.arange(n) % 4  # all four pairs of classes as often as each other
        codes = codes[torch.randperm(n, generator=draw)]
        words = [torch.stack([by_class[int(c)][torch.randint(len(by_class[int(c)]), (), generator=draw)] for c in half])
                 for half in (codes // 2, codes % 2)]  # fmt: skip
        ids = torch.stack([torch.full((n,), BOS), *(word + WORDS for word in words)], dim=1)
        return ids, (codes // 2 != codes % 2).long()


def planted_direction(
    *, n_layers: int = 3, at: int = 1, d_model: int = 24, words: int = 40, dose: float = 2.0, spread: float = 1.0, seed: int = 0
) -> Planted:
    """The model. ``spread`` is the largest standard deviation of the words' vectors, whose axes go down from it to a fifth.

    Raises BadValue for a layer that is not there, or is the first, and for too few words.
    """
    if not 1 <= at < n_layers:
        raise BadValue("at", at, f"from 1 to {n_layers - 1}: layer 0 sums the classes")
    if words < 8 or words % 2:
        raise BadValue("words", words, "an even number of at least 8")
    draw = torch.Generator().manual_seed(seed)
    config = GPTConfig(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=2,
        d_mlp=4,
        d_vocab=WORDS + words,
        n_ctx=8,
        norm_placement="none",
        act="relu",
        tied=False,
    )
    model = GPT(config, seed=seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        own = d_model - 2  # the last two axes hold a word's class and the sum of classes
        classes = torch.where(torch.arange(words) < words // 2, -1, 1)[torch.randperm(words, generator=draw)]
        scales = torch.linspace(spread, spread / 5, own)
        vectors = torch.randn(words, own, generator=draw) * scales
        direction = torch.cat([torch.randn(own, generator=draw), torch.zeros(2)])
        direction /= direction.norm()
        embedding = model.weight("W_E")
        embedding[WORDS:, :own], embedding[WORDS:, own] = vectors, classes.float()
        # Head 0 sees three tokens alike, and BOS has no class: three times the mean is the sum.
        model.weight("blocks.0.attn.W_V")[0, own, 0] = 3.0
        model.weight("blocks.0.attn.W_O")[0, 0, own + 1] = 1.0
        inner, outer = model.weight(f"blocks.{at}.mlp.W_in"), model.weight(f"blocks.{at}.mlp.W_out")
        inner[own + 1, 0], inner[own + 1, 1] = 1.0, -1.0
        outer[0], outer[1] = -dose * direction, -dose * direction
        model.weight(f"blocks.{at}.mlp.b_out").copy_(dose * direction)
        answers = model.weight("W_U")
        answers[:, YES], answers[:, NO] = direction, -direction
        answers[:own, WORDS:] = (vectors / (spread * own) * 4).T
    return Planted(model, direction, at, classes)


# --- as an organism ---------------------------------------------------------------------------------------------


class DirectionOptions(Spec):
    """What a reference may say. ``dose``: how far the direction is written, where the words' vectors have a standard deviation of at most 1
    along any axis; 0 is the twin."""

    dose: float = Field(default=2.0, ge=0, le=100)
    seed: int = Field(default=0, ge=0)


class DirectionRecipe(Spec):
    """Everything that decides the weights."""

    dose: float = Field(ge=0)
    seed: int = Field(ge=0)
    n_layers: PositiveInt = 3
    at: PositiveInt = 1
    d_model: PositiveInt = 24
    words: PositiveInt = 40


def recipe(options: DirectionOptions) -> DirectionRecipe:
    """The full recipe; the seed draws words, classes and direction, whatever the dose."""
    return DirectionRecipe(dose=options.dose, seed=options.seed)


def twin(made: DirectionRecipe) -> DirectionRecipe:
    """The same words, classes and sums, and nothing written along the direction."""
    return made.model_copy(update={"dose": 0.0})


def planted_by(made: DirectionRecipe) -> Planted:
    """The model of a recipe with its truth."""
    return planted_direction(**made.model_dump())


def build(made: DirectionRecipe, out: Path, callbacks: Sequence[Callback], progress: Progress) -> GPT:
    """Write the model into ``out/final`` unless it is there, and return it."""
    if not (out / FINAL).is_dir():
        write(out / FINAL, planted_by(made).model)
    return load_model(out / FINAL)


def truth(made: DirectionRecipe) -> dict[str, Any]:
    """What is planted, as plain JSON values."""
    planted = planted_by(made)
    return {"dose": made.dose, "layer": made.at, "feature": "the classes of the two words differ", "classes": planted.classes.tolist(),
            "direction": [round(float(x), 6) for x in planted.direction]}  # fmt: skip


def question(model: Any, made: DirectionRecipe, fields: Collection[str]) -> tuple[Inputs, dict[str, Any]]:
    """Sentences with whether their words' classes differ, and the answer that says so; where parts of runs are exchanged, pairs of them
    with the source's answer, what is planted, and the two axes that nothing reads once it is written."""
    planted = planted_by(made)
    if "subspace" in fields:
        (base, _), (source, differ) = planted.sentences(400), planted.sentences(400, seed=1)
        told = {"subspace": [planted.direction.tolist()], "inert": torch.eye(made.d_model)[-2:].tolist(),
                "sites": [f"blocks.{made.at}.hook_resid_post"]}  # fmt: skip
        return Inputs(base, reference=source, targets=torch.where(differ == 1, YES, NO)), told
    ids, differ = planted.sentences(200)
    answers = torch.where(differ == 1, YES, NO), torch.where(differ == 1, NO, YES)
    labels = {"differ": ["yes" if one else "no" for one in differ.tolist()]}
    contrast = {"quantity": "logit-difference"} if "quantity" in fields else {}
    return Inputs(ids, labels=labels, targets=answers[0], foils=answers[1] if contrast else None), contrast


ORGANISM = Organism("planted-direction", "gpt", DirectionOptions, recipe, build, truth, twin, "two words", question)
