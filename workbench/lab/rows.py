"""What a live page asks of a model that nobody can type to: held-out rows of its task, or the small batch of an untrained family.

A row is a picture, a sound, a pair of picture and caption, or tokens. Where rows answer each other (two towers), a few are asked together
and the first is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from evals.tasks import TASKS
from probes.target import device_of
from workbench.core.batch import Batch, EncoderBatch, SequenceBatch, TokenBatch
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import Edit, HookedModel, Inputs
from workbench.core.result import Provenance
from workbench.data import sources
from workbench.data.pairs import Words
from workbench.families import FAMILIES
from workbench.lab.inputs import asked_about
from workbench.lab.live import Answers
from workbench.lab.refs import parse, reference_of, task_of
from workbench.store.runs import Store

MOST, TOGETHER = 32, 8
"""Rows offered, and rows that are asked together where they answer each other."""
LOGITS = "unembed.hook_logits"


@dataclass(frozen=True)
class Rows:
    """Rows a model can be asked about: ``words`` what they are, ``warning`` what a reader may meet in them ('' for nothing)."""

    words: str
    count: int
    warning: str
    drawn: Any

    def batch(self, first: int, count: int) -> Any:
        """``count`` rows from ``first`` on, as far as there are any."""
        if not 0 <= first < self.count:
            raise BadValue("the row", first, f"from 0 to {self.count - 1}")
        chosen = list(range(first, min(first + count, self.count)))
        return self.drawn.rows(chosen) if isinstance(self.drawn, Batch) else self.drawn.batch(chosen)


def rows_of(ref: str, store: Store | None = None) -> Rows | None:
    """The rows behind a reference; None where it names no task and no family. Raises MissingData where a task's set is not here."""
    wanted = parse(ref)
    if wanted.scheme == "family":
        batch = FAMILIES.load(wanted.name).tiny(seed=0)[1]
        return Rows(f"the made-up rows of an untrained {wanted.name}", _length(batch), "", batch)
    found = task_of(ref, store) if wanted.scheme == "run" else None
    if found is None:
        return None
    task = TASKS.load(found["task"])
    held_out = task.make(task.spec.parse(found["data"], what=f"the data of task '{found['task']}'"), MOST).validation
    source = sources.SOURCES.get(found["task"])
    return Rows(f"held-out rows of the task '{found['task']}'", min(MOST, len(held_out)), source.warning if source else "", held_out)


def _length(batch: Batch) -> int:
    return next(len(value) for value in vars(batch).values() if isinstance(value, Tensor))


def row_inputs(model: HookedModel, rows: Rows, number: int) -> Inputs:
    """Row ``number`` as an instrument is given it; what is asked about is the model's own answer (of two towers, each row's own pair)."""
    paired = "pair" in _axes(model)
    batch = rows.batch(number, TOGETHER if paired else 1)
    return asked_about(batch, model) if paired else asked_of(model, batch)


def text_of(model: HookedModel, rows: Rows, number: int) -> str:
    """The text that stands in row ``number``, such as its caption or its source; '' where it holds none or nobody can read it."""
    captions, words = getattr(rows.drawn, "captions", None), getattr(rows.drawn, "words", None)
    if captions is not None:
        return str(captions[number])
    ids = ids_of(rows, number)
    if isinstance(words, Words):
        return " ".join(words.words[i] for i in ids if i < len(words.words))
    return model.tokenizer.decode(ids) if model.tokenizer is not None else ""


def ids_of(rows: Rows, number: int) -> list[int]:
    """The ids of that text, control tokens among them; none where the row holds no text."""
    batch = rows.batch(number, 1)
    ids = batch.source if isinstance(batch, SequenceBatch) else getattr(batch, "tokens", None)
    if not isinstance(ids, Tensor) or ids.is_floating_point():
        return []
    mask = getattr(batch, "mask", None)
    return (ids[0][mask[0]] if isinstance(mask, Tensor) and mask.shape == ids.shape else ids[0]).tolist()


def asked_of(model: HookedModel, batch: Any) -> Inputs:
    """A batch as an instrument is given it, asked about the model's own answers."""
    if isinstance(batch, TokenBatch) or (isinstance(batch, EncoderBatch) and batch.mask is None):
        asked = Inputs(batch.tokens)
    else:
        asked = replace(asked_about(batch, model), labels=None, groups=None)
    if "height" in _axes(model):  # no answer to choose: the pixel in the middle of the first channel
        height, width = asked.batch.pixels.shape[-2:]
        return replace(asked, targets=torch.full((len(asked.batch.pixels),), height // 2 * width + width // 2))
    return replace(asked, targets=answers(model, asked.batch).argmax(-1))


def answers(model: HookedModel, batch: Any, edit: Sequence[Edit] = ()) -> Tensor:
    """Logits ``[batch, answer]`` at the last position, or the only one; of two towers ``[image, text]``, of pixels all of them."""
    given = batch.to(device_of(model)) if isinstance(batch, Tensor | Batch) else batch
    logits = model.run(given, edit=edit).logits
    assert logits is not None, "logits were asked for"
    found = logits.detach().float().cpu()
    axes = _axes(model)
    if "height" in axes:
        return found.flatten(1)
    return _last(found, batch) if "pos" in axes else found


def _last(logits: Tensor, batch: Any) -> Tensor:
    """``[batch, answer]`` at each row's last real position."""
    mask = getattr(batch, "mask", None) if isinstance(batch, EncoderBatch) else None
    at = mask.sum(1) - 1 if mask is not None else torch.full((len(logits),), logits.shape[1] - 1)
    return logits[torch.arange(len(logits)), at]


def _axes(model: HookedModel) -> tuple[str, ...]:
    table = model.sites()
    return tuple(table[LOGITS].axes) if LOGITS in table else ("batch", "pos", "d_vocab")


def top_answers(model: HookedModel, asked: Inputs, most: int = 10) -> Answers:
    """The likeliest answers to a row, by softmax in float64. Raises Incompatible for predicted pixels."""
    if "height" in _axes(model):
        raise Incompatible("a list of answers", f"this {model.family} model", ["its answers are the values of a predicted picture"])
    probability = answers(model, asked.batch)[0].double().softmax(-1)
    top, ids = probability.topk(min(most, len(probability)))
    names = np.array(names_of(model, ids.tolist(), asked.batch), dtype=object)
    entropy = -torch.special.xlogy(probability, probability).sum().item() / math.log(2)
    values = xr.Dataset(
        {"probability": ("rank", top.numpy()), "token_id": ("rank", ids.numpy()), "rest": max(0.0, 1.0 - float(top.sum())),
         "entropy": entropy},
        coords={"rank": np.arange(len(ids)), "token": ("rank", names)},
    )  # fmt: skip
    origin = Provenance.here(model=reference_of(model), model_digest=model.digest())
    return Answers(kind="answers", values=values, spec={"most": most}, provenance=origin)


def names_of(model: HookedModel, ids: Sequence[int], batch: Any = None) -> list[str]:
    """Answers by name: a class's, a token's, a text's words where the ``batch`` has them, or ``answer 7``."""
    known = getattr(model.config, "class_names", None)
    axes = _axes(model)
    if "class" in axes and known:
        return [str(known[i]) for i in ids]
    if "d_vocab" in axes and model.tokenizer is not None:
        return [model.tokenizer.pieces([i])[0] for i in ids]
    if "pair" in axes and model.tokenizer is not None and batch is not None:
        return [model.tokenizer.decode(batch.tokens[i].tolist()) for i in ids]
    word = "class" if "class" in axes else "text" if "pair" in axes else "pixel" if "height" in axes else "token"
    return [f"{word} {i}" for i in ids]
