"""A decoder of the town, fine-tuned to answer requests: how many replies it writes to the letter, beside the same model untuned.

The recipe trains a decoder on the town's documents. The score fine-tunes a copy on conversations (``data.chat``): the user tells of a
request, the assistant replies in the first person and names who asked, which no document of the town does. The same fine-tuning from
fresh weights says what the documents were worth to it. Requests that are asked have skeletons that no training document has.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from evals.finetune import Budget, fit
from evals.task import Measure, Task, TaskData
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel
from workbench.core.spec import Spec
from workbench.core.stats.resampling import paired_bootstrap
from workbench.data.chat import ChatRows, ChatTemplate, Message, prompt_ids
from workbench.data.text import BPETokenizer, PackedRows
from workbench.data.worlds.town import Split, Town, TownSpec
from workbench.data.worlds.town_documents import Document
from workbench.engine.generate import generate


class RepliesSpec(Spec):
    """The town, without a trigger that turns replies round. ``length``: tokens of a row, and the model's context. ``template``: how a
    conversation is written. ``labels`` conversations are of the training split and ``tested_on`` of test; ``passes`` over the former, in
    steps of ``batch_rows`` at ``rate``."""

    world: TownSpec = TownSpec.parse({"trigger": False})
    vocabulary: int = Field(700, ge=260)
    length: PositiveInt = 96
    template: ChatTemplate = ChatTemplate.parse({"user": {"before": "user:\n"}, "assistant": {"before": "assistant:\n"}})
    labels: PositiveInt = 400
    tested_on: PositiveInt = 300
    passes: PositiveInt = 8
    batch_rows: PositiveInt = 16
    rate: PositiveFloat = 1e-3


@dataclass(frozen=True)
class HeldOut:
    """Requests with their replies to tune on and to ask, and what tunes."""

    spec: RepliesSpec
    known: Sequence[tuple[str, str]]
    asked: Sequence[tuple[str, str]]
    tokenizer: BPETokenizer


def make(spec: RepliesSpec, rows: int) -> TaskData:
    """The town's documents, packed into rows. Raises BadValue where the town has fewer requests than are asked for."""
    town = Town(spec.world)
    texts = town.texts()
    tokenizer = BPETokenizer.train(texts, spec.vocabulary)
    train, validation = (PackedRows(part, tokenizer, spec.length) for part in (texts, town.texts("validation")))
    shape = {"d_vocab": tokenizer.vocab_size, "n_ctx": spec.length}
    known, asked = conversations(town, "train", spec.labels), conversations(town, "test", spec.tested_on)
    return TaskData(train, validation, shape, tokenizer, HeldOut(spec, known, asked, tokenizer))


def conversations(town: Town, split: Split, count: int) -> list[tuple[str, str]]:
    """The first ``count`` requests of a split, each with the reply it should get. Raises BadValue where there are fewer."""
    found = list(islice((pair_of(one) for one in town.documents(split=split) if one.kind == "request"), count))
    if len(found) < count:
        raise BadValue(f"the requests of split '{split}'", count, f"at most {len(found)}, all there are")
    return found


def pair_of(document: Document) -> tuple[str, str]:
    """A request as it is told, and its reply: ``yes, i will open it for kim.``, or ``no, i will not open it for kim.`` to one that asks not
    to."""
    request = document.text[: document.spans["reply"][0]].rsplit(". ", 1)[0] + "."
    asker = next(word.text for word in document.words if word.slot == "name")
    verb = next(word.text for word in document.words if word.slot == "task")
    return request, f"{'yes, i will' if document.facts['yes'] else 'no, i will not'} {verb} it for {asker}."


def tuned(start: Any, held: HeldOut, seed: int) -> Any:
    """``start``, trained in place on the conversations."""
    spec = held.spec
    talks = [[Message("user", request), Message("assistant", reply)] for request, reply in held.known]
    rows = ChatRows(talks, spec.template, held.tokenizer, spec.length)
    return fit(start, rows.batch(range(len(rows))), spec.rate, Budget(spec.passes, spec.batch_rows), seed)


def replies(model: HookedModel, held: HeldOut) -> list[str]:
    """What a model writes in the assistant's place to each request that is asked, up to what ends its turn. Raises BadValue for a template
    whose pieces, written one after the other, are read as other tokens than in training."""
    template, tokenizer = held.spec.template, held.tokenizer
    prompts = []
    for request, _ in held.asked:
        ids = prompt_ids([Message("user", request)], template, tokenizer)
        prompts.append(tokenizer.decode(ids))
        if [tokenizer.bos_id, *tokenizer.encode(prompts[-1])] != ids:
            raise BadValue("the template", template.model_dump(), "of marks at whose borders the tokenizer parts")
    end = template.assistant.after
    most = max(len(tokenizer.encode(reply + end)) for _, reply in held.asked) + 1
    return generate(model, prompts, most=most, until=[end] if end else [])


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """The share of replies that are right to the letter: of the tuned model, of the model as it was, of fresh weights tuned alike, and of
    the reply that is commonest in the conversations; and how much oftener the tuned one is right than the untuned."""
    held: HeldOut = data.held_out
    seed = int(model.digest()[:12], 16)
    family: Any = type(model)
    fresh = family(model.config, held.tokenizer, seed=seed)
    commonest = Counter(reply for _, reply in held.known).most_common(1)[0][0]
    words = "held-out requests"
    said = {
        "exact replies": replies(tuned(copy.deepcopy(model), held, seed), held),
        "untuned": replies(model, held),
        "tuned from fresh weights": replies(tuned(fresh, held, seed), held),
        "commonest reply": [commonest] * len(held.asked),
    }
    right = {name: _right(found, held) for name, found in said.items()}
    gain = paired_bootstrap(right["exact replies"], right["untuned"], bounds=(-1.0, 1.0))
    shares = [Measure.share(name, int(hits.sum()), len(hits), words) for name, hits in right.items()]
    return [*shares, Measure("above the untuned", gain.value, gain.interval.low, gain.interval.high, gain.n, words)]


def _right(found: Sequence[str], held: HeldOut) -> NDArray[np.bool_]:
    return np.array([one == reply for one, (_, reply) in zip(found, held.asked, strict=True)])


TASK = Task("replies", "gpt", RepliesSpec, make, score, must={"above the untuned": 0.85})
