"""Who gets the gift, for a decoder: the one of two people who was named once (indirect object identification)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from evals.task import Measure, Task, TaskData
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel, Inputs
from workbench.data.text import BPETokenizer, PackedRows
from workbench.data.worlds.town_gifts import Gift, Gifts, GiftsSpec


class GiftsTaskSpec(GiftsSpec):
    """The documents; ``length``: tokens of a row, and the model's context; ``vocabulary``: tokens of the byte-level pairs, at most."""

    length: PositiveInt = 64
    vocabulary: int = Field(1200, ge=260)


@dataclass(frozen=True)
class HeldOut:
    """Documents about two who never met in training, and the tokenizer."""

    documents: Sequence[Gift]
    tokenizer: BPETokenizer


def make(spec: GiftsTaskSpec, rows: int) -> TaskData:
    """The world's documents, packed into rows."""
    world = Gifts(spec)
    texts = [one.text for one in world.documents()]
    tokenizer = BPETokenizer.train(texts, spec.vocabulary)
    validation = PackedRows([one.text for one in world.documents("validation")], tokenizer, spec.length)
    shape = {"d_vocab": tokenizer.vocab_size, "n_ctx": spec.length}
    return TaskData(PackedRows(texts, tokenizer, spec.length), validation, shape, tokenizer, HeldOut(world.documents("test"), tokenizer))


def asked(documents: Sequence[Gift], tokenizer: BPETokenizer) -> Inputs:
    """Prompts with their twins (the giver exchanged), the recipient as target and the giver as foil. Raises BadValue where a name is more
    than one token: it could not be asked about as one answer, nor exchanged place by place."""
    one = {name: _token(name, tokenizer) for name in sorted({n for d in documents for n in (d.a, d.b)})}
    rows, twins = ([tokenizer.encode(d.prompt, bos=True) for d in each] for each in (documents, [d.twin for d in documents]))
    lengths = torch.tensor([len(row) for row in rows])
    pick = lambda names: torch.tensor([one[name] for name in names])  # noqa: E731
    return Inputs(
        _padded(rows, tokenizer), lengths, reference=_padded(twins, tokenizer),
        targets=pick([d.other for d in documents]), foils=pick([d.giver for d in documents]),
    )  # fmt: skip


def _token(name: str, tokenizer: BPETokenizer) -> int:
    ids = tokenizer.encode(f" {name}")
    if len(ids) != 1:
        raise BadValue(f"the tokens of the name '{name}'", len(ids), "one", do="Raise data.vocabulary or data.rows.")
    return ids[0]


def _padded(rows: Sequence[Sequence[int]], tokenizer: BPETokenizer) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[tokenizer.pad_id] * (width - len(row))] for row in rows])


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """Shares of held-out documents: the recipient above the giver (chance is a half), and above every other token."""
    held: HeldOut = data.held_out
    inputs = asked(held.documents, held.tokenizer)
    assert inputs.lengths is not None
    assert inputs.targets is not None
    assert inputs.foils is not None
    logits = model.run(inputs.batch).logits
    assert logits is not None
    rows = torch.arange(len(inputs.targets))
    last = logits[rows, inputs.lengths - 1]
    right = {
        "right of the two": last[rows, inputs.targets] > last[rows, inputs.foils],
        "right of all": last.argmax(-1) == inputs.targets,
    }
    words = "documents about two who never met in training"
    return [Measure.share(name, int(hits.sum()), len(hits), words) for name, hits in right.items()]


TASK = Task("gifts", "gpt", GiftsTaskSpec, make, score, must={"right of the two": 0.95})
