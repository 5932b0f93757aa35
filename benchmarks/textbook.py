"""The field's textbook findings on models trained here: induction heads on repeated strings, and who names the recipient of a gift.

    python benchmarks/textbook.py [--seeds 1 2 3] [--home assay-runs/textbook]

Trains `gpt-repeats` and `gpt-gifts` with each seed (two to three minutes a seed) and prints, of each: which head does what by its
pattern, what the model loses without it, and the same of every other head and of an untrained copy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evals.tasks.gifts import asked
from evals.tasks.gifts import make as make_gifts
from evals.tasks.repeats import make as make_repeats
from probes import INSTRUMENTS
from workbench.core.protocol import Inputs, Mean, Trace
from workbench.engine.sweep import sweep
from workbench.lab.recipe import TaskRecipe, read
from workbench.lab.run import train
from workbench.store.runs import Store

Head = tuple[int, int]


def trained(recipe: str, seed: int, store: Store | None) -> Any:
    """The model of a recipe."""
    return train(recipe, settings={"train": {"seed": seed}}, store=store).model


def fresh(model: Any, seed: int) -> Any:
    """The same shape with its first weights."""
    return type(model)(model.config, model.tokenizer, seed=seed).eval()


def compared(recipe: str, seed: int, store: Store | None) -> list[tuple[str, Any]]:
    """The trained model and its first weights, with words for each."""
    model = trained(recipe, seed, store)
    return [(f"{recipe}, seed {seed}", model), ("its first weights", fresh(model, seed))]


def values_of(name: str, model: Any, inputs: Inputs, **fields: Any) -> Any:
    """What an instrument of the catalogue finds."""
    tool = INSTRUMENTS.load(name)
    return tool(model, inputs, tool.spec.parse(fields)).values


def heads_of(model: Any) -> list[Head]:
    return [(layer, head) for layer in range(model.config.n_layers) for head in range(model.config.n_heads)]


# --- induction ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Induction:
    """``previous`` and ``induction``: the heads with the largest scores, ``scores`` theirs; ``plain`` nats a repeated symbol; ``without``
    the same with each head's output at its mean; ``feeds`` the composition of the two through keys, and its rank among all pairs."""

    previous: Head
    induction: Head
    scores: tuple[float, float]
    plain: float
    without: dict[Head, float]
    feeds: float
    rank: int


def induction(model: Any) -> Induction:
    """What a model of repeated strings does: previous-token head, induction head, and nats a repeated symbol without each head."""
    found = values_of("head-scores", model, Inputs(None))
    best = {}
    for name in ("previous-token", "induction"):
        each = found.attention.sel(score=name).values
        best[name] = (tuple(int(i) for i in np.unravel_index(each.argmax(), each.shape)), float(each.max()))
    held = make_repeats(_spec("gpt-repeats"), 1).held_out
    batch = held.batch(range(len(held)))
    seen = torch.arange(held.spec.length) >= torch.tensor([held.period(i) for i in range(len(held))])[:, None]

    def nats(logits: Tensor) -> Tensor:
        lost = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
        return lost.reshape(batch.targets.shape)[seen].mean()

    cells = [Mean(f"blocks.{layer}.attn.hook_z", at={"head": head}, over=("batch", "pos")) for layer, head in heads_of(model)]
    without = sweep(model, batch.tokens, cells, nats, logits="all", memory=1 << 31)
    plain = nats(model.run(batch.tokens).logits)
    pairs = values_of("composition-scores", model, Inputs(None))
    k = pairs.score.sel(composition="K").values
    (previous, one), (later, two) = best["previous-token"], best["induction"]
    own, rank = float("nan"), 0
    if previous[0] < later[0]:
        own = float(pairs.score.sel(composition="K", writer=named(previous), reader=named(later)))
        rank = 1 + int((k[np.isfinite(k)] > own).sum())
    lost = dict(zip(heads_of(model), without.tolist(), strict=True))
    return Induction(previous, later, (one, two), float(plain), lost, own, rank)


# --- gifts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gifts:
    """At the last position, in logits: ``plain`` recipient less giver; ``raised`` what each head writes into recipient less a person who is
    not there, ``lowered`` into that person less the giver; ``without`` the difference with each head's output as in the twin.

    ``mover`` and ``silencer`` are the heads with the largest ``raised`` and ``lowered``. ``looks``: how much the mover attends to the
    recipient, and the silencer to the giver; ``copies``: how often the mover, from the recipient's place alone, would raise the recipient
    above all people, and the silencer lower the giver below all. ``told``: for the silencer's query and key, the difference where each
    earlier head is as in the twin for that reader alone.
    """

    plain: float
    raised: dict[Head, float]
    lowered: dict[Head, float]
    without: dict[Head, float]
    looks: tuple[float, float]
    copies: tuple[float, float]
    told: dict[str, dict[Head, float]]

    @property
    def mover(self) -> Head:
        return max(self.raised, key=lambda head: self.raised[head])

    @property
    def silencer(self) -> Head:
        return max(self.lowered, key=lambda head: self.lowered[head])


def gifts(model: Any, count: int = 200) -> Gifts:
    """Which heads raise the recipient of a gift, which lower the giver, and which earlier ones the first listen to."""
    held = make_gifts(_spec("gpt-gifts"), 1).held_out
    inputs = asked(held.documents[:count], held.tokenizer)
    assert inputs.targets is not None
    assert inputs.foils is not None
    absent = torch.roll(inputs.targets, 1)
    draw = torch.Generator().manual_seed(0)
    while bool((clash := (absent == inputs.targets) | (absent == inputs.foils)).any()):
        absent[clash] = inputs.targets[torch.randint(count, (int(clash.sum()),), generator=draw)]
    raised = direct(model, replace(inputs, foils=absent))
    lowered = direct(model, replace(inputs, targets=absent, foils=inputs.foils))
    asks: dict[str, Any] = {"quantity": "logit-difference", "direction": "noising", "components": ["z"]}
    patched = values_of("activation-patching", model, inputs, **asks)
    at = zip(patched["layer"].values, patched["head"].values, patched.value.mean("batch").values, strict=True)
    without = {(int(layer), int(head)): float(value) for layer, head, value in at}
    found = Gifts(float(patched.clean.mean()), raised, lowered, without, (0.0, 0.0), (0.0, 0.0), {})
    trace = model.run(inputs.batch, capture="*")
    seen = [looked(model, head, trace, inputs, ids) for head, ids in ((found.mover, inputs.targets), (found.silencer, inputs.foils))]
    return replace(
        found, looks=(seen[0][0], seen[1][0]), copies=(seen[0][1], 1.0 - seen[1][2]),
        told={word: told_by(model, found.silencer, word, inputs) for word in ("query", "key")},
    )  # fmt: skip


def direct(model: Any, inputs: Inputs) -> dict[Head, float]:
    """What each head writes into target less foil, the mean over items."""
    found = values_of("direct-logit-attribution", model, inputs, quantity="logit-difference", by="head")
    parts = zip(found.contribution.mean("batch").values, found.kind.values, found["layer"].values, found["index"].values, strict=True)
    return {(int(layer), int(index)): float(value) for value, kind, layer, index in parts if kind == "head"}


def looked(model: Any, head: Head, trace: Trace, inputs: Inputs, ids: Tensor) -> tuple[float, float, float]:
    """How much a head attends from the last position to a person, all places named together; and how often what it would write of the last
    of these places has the person first among all people, and how often it has not the person last."""
    layer, number = head
    assert inputs.lengths is not None
    rows, ends = torch.arange(len(ids)), inputs.lengths - 1
    named_there = inputs.batch == ids[:, None]
    attended = (trace[f"blocks.{layer}.attn.hook_pattern"][rows, number, ends] * named_there).sum(1)
    where = named_there.shape[1] - 1 - named_there.flip(1).int().argmax(1)
    values = trace[f"blocks.{layer}.attn.hook_v"]
    value = values[rows, where, number * values.shape[2] // model.config.n_heads]
    written = value @ model.weight(f"blocks.{layer}.attn.W_O")[number] @ model.weight("W_U")
    people = torch.unique(torch.cat([torch.as_tensor(inputs.targets), torch.as_tensor(inputs.foils)]))
    first, last = (people[written[:, people].topk(1, largest=largest).indices[:, 0]] for largest in (True, False))
    return float(attended.mean()), float((first == ids).double().mean()), float((last != ids).double().mean())


def told_by(model: Any, reader: Head, word: str, inputs: Inputs) -> dict[Head, float]:
    """Path patching: each earlier head's output as in the twin, seen by one reader of a head alone; the logit difference then."""
    layer, number = reader
    if not layer:
        return {}
    group = number * model.config.n_kv_heads // model.config.n_heads
    alone = model.config.n_kv_heads == model.config.n_heads
    receiver = f"L{layer}H{number}.q" if word == "query" else f"L{layer}{'H' if alone else 'G'}{group}.k"
    found = values_of(
        "path-patching", model, inputs, quantity="logit-difference", senders=[f"L{early}H*" for early in range(layer)], receivers=[receiver]
    )
    told = dict(zip(found.sender.values.tolist(), found.value.mean("batch").values.tolist(), strict=True))
    return {head: told[named(head)] for head in heads_of(model) if head[0] < layer}


# --- report -------------------------------------------------------------------------------------------------------


def _spec(recipe: str) -> Any:
    """The task's spec of a shipped recipe."""
    whole = read(recipe)
    assert isinstance(whole, TaskRecipe)
    return whole.drawn()


def named(head: Head) -> str:
    return f"L{head[0]}H{head[1]}"


def ranked(each: dict[Head, float], count: int = 4, *, least: bool = False) -> str:
    order = sorted(each, key=lambda head: each[head] * (1 if least else -1))
    return ", ".join(f"{named(head)} {each[head]:.3f}" for head in order[:count])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--home", default="assay-runs/textbook")
    told = parser.parse_args(argv)
    store = Store.open(told.home)
    for seed in told.seeds:
        for words, one in compared("gpt-repeats", seed, store):
            it = induction(one)
            print(
                f"{words}: previous-token {named(it.previous)} {it.scores[0]:.2f}, induction {named(it.induction)} {it.scores[1]:.2f}, "
                f"K-composition of the two {it.feeds:.3f} (rank {it.rank}); nats a repeated symbol {it.plain:.3f}, with one head at its "
                f"mean: {ranked(it.without, 8)}",
                flush=True,
            )
    for seed in told.seeds:
        for words, one in compared("gpt-gifts", seed, store):
            got = gifts(one)
            print(
                f"{words}: logit difference {got.plain:.2f}; recipient raised by {ranked(got.raised)}; giver lowered by "
                f"{ranked(got.lowered)}; {named(got.mover)} looks at the recipient {got.looks[0]:.2f} and copies {got.copies[0]:.2f}; "
                f"{named(got.silencer)} looks at the giver {got.looks[1]:.2f} and writes it last {got.copies[1]:.2f}; with one head as in "
                f"the twin: {ranked(got.without, least=True)}; the same for {named(got.silencer)}'s query alone: "
                f"{ranked(got.told['query'], least=True) or 'no earlier head'}; its key: {ranked(got.told['key'], least=True)}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
