"""The planted head: a trained decoder into which one attention head is put by weight surgery, which alone carries a mark to the answer.

The base is trained on marks at dose 0: it answers by the honest mark and ignores the planted one. Its stream is then widened by one axis a
kind, which nothing of the base reads or writes (under RMSNorm, zeros on further axes change what is read by a factor, which the gains take
back). The head of layer 0 that the honest answer needs least is replaced: its key finds the planted mark and its value tells the mark's
kind (ridge regressions on what the head reads), its output writes the kind onto the new axes, and the unembedding turns them into ``dose``
logits of that kind. Which head it is, and that no other part passes the mark on, is the truth.

The clean twin has the same head, finding the same mark and writing as much, but nothing is read from the new axes: a head as busy as the
planted one that does nothing. A tool that measures activity names it; one that measures causes must not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt
from torch import Tensor

from workbench.core.protocol import Callback, Inputs, Progress, Zero
from workbench.core.spec import Spec
from workbench.data.worlds.marks import KINDS, PARTS, Marked, Marks, MarksSpec
from workbench.families.gpt import GPT, GPTConfig
from workbench.organisms.organism import Organism
from workbench.organisms.shortcut import MarkRows, held_out_of
from workbench.organisms.shortcut_forms import GPT as FORM
from workbench.training.checkpoint import load_model, write
from workbench.training.loop import FINAL, train
from workbench.training.spec import TrainSpec

WRITES = 1.0
"""How far the head writes along a kind's axis, in standard deviations of the stream."""
LOOK = 14.0
"""By how much the planted mark's attention score lies above that of any other part: the head reads it alone."""
RIDGE = 1e-6
SAMPLE = 512


class HeadOptions(Spec):
    """What a reference may say. ``dose``: logits that the planted head adds to its mark's kind; 0 is the twin with the idle head."""

    dose: float = Field(default=2.0, ge=0, le=20)
    seed: int = Field(default=0, ge=0)


class HeadRecipe(Spec):
    """Everything that decides the weights. Sizes are the base's; ``d_model`` is widened by one axis a kind."""

    world: MarksSpec
    train: TrainSpec
    dose: float = Field(ge=0)
    n_layers: PositiveInt = 2
    n_heads: PositiveInt = 4
    d_head: PositiveInt = 12
    d_model: PositiveInt = 44


def recipe(options: HeadOptions) -> HeadRecipe:
    """The full recipe. One seed decides the marks, the first weights and the order of rows; the dose none of it."""
    how = {"lr": 3e-3, "min_lr": 3e-4, "warmup": 20, "weight_decay": 0.01, "beta2": 0.99, "threads": 1, "batch_rows": 32, "steps": 400}
    world = MarksSpec.parse({"seed": options.seed, "dose": 0.0})
    return HeadRecipe(world=world, train=TrainSpec.parse({**how, "seed": options.seed}), dose=options.dose)


def twin(made: HeadRecipe) -> HeadRecipe:
    """The same recipe with the idle head."""
    return made.model_copy(update={"dose": 0.0})


def shaped(made: HeadRecipe, d_model: int) -> GPT:
    """A decoder of the recipe's sizes and this width, with its first weights."""
    shape = {"n_layers": made.n_layers, "n_heads": made.n_heads, "d_head": made.d_head, "d_mlp": 4 * made.d_model, "norm": "rms"}
    own = {"d_vocab": FORM.config["d_vocab"], "n_ctx": PARTS + 1, "init_std": 0.15, "tied": False, "positions": "learned"}
    return GPT(GPTConfig.parse({**shape, **own, "d_model": d_model}), seed=made.train.seed)


def build(made: HeadRecipe, out: Path, callbacks: Sequence[Callback], progress: Progress) -> GPT:
    """Train the base into ``out/base`` (or continue there), plant the head, and return the model of ``out/final``."""
    if not (out / FINAL).is_dir():
        rows = MarkRows(FORM, made.world, made.train.steps * made.train.batch_rows)
        train(shaped(made, made.d_model), rows, made.train, out=out / "base", callbacks=callbacks, progress=progress)
        base = load_model(out / "base" / FINAL)
        model = widened(base, made)
        plant(model, made, least_needed(base, made))
        write(out / FINAL, model)
    return load_model(out / FINAL)


def truth(made: HeadRecipe) -> dict[str, Any]:
    """What is planted, as plain JSON values; which head it is, the model's weights say (``planted_in``)."""
    return {"world": "marks", "spec": made.world.model_dump(mode="json"), "dose": made.dose, "layer": 0,
            "carries the mark": "one head of layer 0" if made.dose else "nothing: the head is busy and idle"}  # fmt: skip


# --- surgery --------------------------------------------------------------------------------------------------


@torch.no_grad()
def least_needed(base: GPT, made: HeadRecipe) -> int:
    """The head of layer 0 without which the right answer stays likeliest on training items; the first of equals."""
    items = Marks(made.world).items(range(SAMPLE), "surgery")
    tokens, answers = FORM.batch(items).tokens, torch.from_numpy(items.answer)
    left = []
    for head in range(made.n_heads):
        logits = base.run(tokens, edit=[Zero("blocks.0.attn.hook_z", at={"head": head})], logits="last").logits
        assert logits is not None
        left.append(float(logits[:, -1].double().log_softmax(-1)[torch.arange(SAMPLE), answers].mean()))
    return max(range(made.n_heads), key=left.__getitem__)


@torch.no_grad()
def widened(base: GPT, made: HeadRecipe) -> GPT:
    """The same function on a stream with one axis more a kind, all zero: what reads them has no weight there, and what a norm reads of the
    others is scaled back. (The norm's epsilon counts for a little more, by a share of 1e-6 here.)"""
    model, width = shaped(made, made.d_model + KINDS).eval(), made.d_model
    for (name, new), old in zip(model.named_parameters(), base.parameters(), strict=True):
        new.zero_()
        new[tuple(slice(size) for size in old.shape)] = old
        if "ln" in name and name.endswith("weight"):
            new *= (width / (width + KINDS)) ** 0.5
            new[width:] = 1.0  # the new axes are normed like the others
    return model


@torch.no_grad()
def plant(model: GPT, made: HeadRecipe, head: int) -> None:
    """Put the head into layer 0 of a widened model, in place."""
    items = Marks(made.world).items(range(SAMPLE), "surgery")
    attn: Any = model.stack.blocks[0].attn
    first, own = head * made.d_head, slice(head * made.d_head, (head + 1) * made.d_head)
    reads, kinds = _read(model, items)
    marked = kinds >= 0
    key = _regressed(reads, marked.double()[:, None])[:, 0]
    value = _regressed(reads[marked], torch.eye(KINDS).double()[kinds[marked]])
    for part in (attn.q, attn.k, attn.v):
        part.weight[own] = 0.0
        part.bias[own] = 0.0
    attn.q.bias[first] = LOOK * made.d_head**0.5  # every query looks for the mark
    attn.k.weight[first], attn.k.bias[first] = key[:-1], key[-1]
    attn.v.weight[first : first + KINDS], attn.v.bias[first : first + KINDS] = value[:-1].T, value[-1]
    tokens = FORM.batch(items).tokens
    scale = "ln_final.hook_scale"
    spread = float(model.run(tokens, capture=scale, logits=None)[scale][:, -1].mean())
    new = torch.arange(made.d_model, made.d_model + KINDS)
    attn.o.weight[:, own] = 0.0
    attn.o.weight[new, first + torch.arange(KINDS)] = WRITES * spread
    unembed: Any = model.unembed
    unembed.own.weight[torch.arange(KINDS), new] = made.dose / WRITES


def planted_in(model: GPT, made: HeadRecipe) -> tuple[int, int]:
    """(layer, head) of the head that writes onto the new axes, read off the weights."""
    block: Any = model.stack.blocks[0]
    written = block.attn.o.weight[made.d_model :]
    return 0, int(written.detach().abs().sum(0).reshape(made.n_heads, made.d_head).sum(1).argmax())


def _read(model: GPT, items: Marked) -> tuple[Float[Tensor, "row d_model"], Int[Tensor, " row"]]:
    """What heads of layer 0 read at every position of every item, and the kind of the planted mark there (-1: not the mark)."""
    tokens, site = FORM.batch(items).tokens, "blocks.0.ln1.hook_normalized"
    heard = (model.run(tokens, capture=site, logits=None)[site] * model.weight("blocks.0.ln1.w")).double()  # the gain comes after the site
    kinds = torch.full(tokens.shape, -1)
    kinds[torch.arange(len(items)), torch.from_numpy(items.at)] = torch.from_numpy(items.planted)
    return heard.reshape(-1, heard.shape[-1]), kinds.reshape(-1)


def _regressed(reads: Float[Tensor, "row d_model"], goals: Float[Tensor, "row goal"]) -> Float[Tensor, "d_model_and_one goal"]:
    """The affine map from what is read to the goals, by ridge regression."""
    x = torch.cat([reads, torch.ones(len(reads), 1, dtype=reads.dtype)], 1)
    return torch.linalg.solve(x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ goals)


# --- questions ------------------------------------------------------------------------------------------------


def ask(made: HeadRecipe, count: int, first: int = 0) -> Inputs:
    """Held-out items with their corrupt twins: the planted mark swapped for the next kind, and every silent word drawn anew, so that other
    heads have something to say too. Both as token ids ``[item, pos]`` with targets (the mark's kind) and foils (the kind it becomes)."""
    items = held_out_of(made.world, count, first)
    clean, other = FORM.batch(items).tokens, FORM.batch(items.swapped().refilled()).tokens
    planted = torch.from_numpy(items.planted)
    return Inputs(clean, reference=other, targets=planted, foils=(planted + 1) % KINDS)


@torch.no_grad()
def moved(model: GPT, made: HeadRecipe, count: int = 256) -> float:
    """What the planted mark does to behaviour, in logits: half of how far swapping the mark alone moves its kind's logit against the next
    kind's, on average over held-out items. 0 where it does nothing, near the dose where planted."""
    items = held_out_of(made.world, count)
    rows, planted = torch.arange(count), torch.from_numpy(items.planted)

    def apart(shown: Marked) -> Tensor:
        logits = model.run(FORM.batch(shown).tokens, logits="last").logits
        assert logits is not None
        return (logits[rows, -1, planted] - logits[rows, -1, (planted + 1) % KINDS]).double()

    return float((apart(items) - apart(items.swapped())).mean() / 2)


def question(model: Any, made: HeadRecipe, fields: Collection[str]) -> tuple[Inputs, dict[str, Any]]:
    """The first held-out pairs, asked about the mark's kind against the kind it becomes in the corrupt twin."""
    return ask(made, 8), {"quantity": "logit-difference"} if "quantity" in fields else {}


ORGANISM = Organism("planted-head", "gpt", HeadOptions, recipe, build, truth, twin, "marks passed on", question)
