"""A text to continue, for a decoder: bits per byte of held-out text, beside counting bytes and counting the model's own tokens.

Both counts are Kneser-Ney 5-grams of the same training text (``evals.ngram``). Held-out text is cut and read as the ``perplexity`` suite
does, so the model's number here is that suite's. The vocabulary is learned from the training text alone. A model's context is the rows'
length: positions beyond it were never trained, and a score that reads there is a worse model's (on WikiText-2 by 0.22 bits a byte).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, PositiveInt

from evals.metrics import LN2, total
from evals.ngram import MOST_ORDER, Floats, KneserNey, as_bytes
from evals.suites.perplexity import SUITE, PerplexitySpec, baselines
from evals.task import Measure, Task, TaskData
from workbench.core.protocol import HookedModel
from workbench.core.spec import Spec
from workbench.core.stats.resampling import bootstrap, ratio
from workbench.data.corpora import wikitext2
from workbench.data.text import BPETokenizer, ContiguousRows, PackedRows
from workbench.data.worlds.town import Town, TownSpec
from workbench.engine.score import rolling
from workbench.engine.tokens import encode_pair

BYTES, TOKENS = f"byte {MOST_ORDER}-gram", f"token {MOST_ORDER}-gram"


class TextTaskSpec(Spec):
    """``source``: articles of WikiText-2 in our own split, or documents of the town. ``length``: tokens of a row; ``vocabulary``: tokens of
    the byte-level pairs; ``documents``: how many of the town's test documents are scored."""

    source: Literal["wikitext-2", "town"] = "wikitext-2"
    world: TownSpec = TownSpec.parse({})
    length: PositiveInt = 128
    vocabulary: int = Field(1024, ge=260)
    documents: PositiveInt = 500
    seed: int = 0


@dataclass(frozen=True)
class HeldOut:
    """The spec, the tokenizer, and the training texts that are counted: documents, or one text."""

    spec: TextTaskSpec
    tokenizer: BPETokenizer
    texts: Sequence[str]


def make(spec: TextTaskSpec, rows: int) -> TaskData:
    """Windows of the training text, drawn anew for every row; of the town, its documents packed into rows."""
    if spec.source == "town":
        town = Town(spec.world)
        texts = town.texts()
        tokenizer = BPETokenizer.train(texts, spec.vocabulary)
        train, validation = (PackedRows(part, tokenizer, spec.length) for part in (texts, town.texts("validation")))
        return TaskData(train, validation, shape_of(tokenizer, spec), tokenizer, HeldOut(spec, tokenizer, texts))
    split = wikitext2()
    texts = ["".join(split["train"])]
    tokenizer = BPETokenizer.train(texts, spec.vocabulary)
    windows = ContiguousRows.of(texts[0], tokenizer, spec.length, rows=rows, seed=spec.seed)
    beside = ContiguousRows.of("".join(split["validation"]), tokenizer, spec.length)
    return TaskData(windows, beside, shape_of(tokenizer, spec), tokenizer, HeldOut(spec, tokenizer, texts))


def shape_of(tokenizer: BPETokenizer, spec: TextTaskSpec) -> dict[str, int]:
    """The fields of the model's config that the data decides."""
    return {"d_vocab": tokenizer.vocab_size, "n_ctx": spec.length}


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """Bits per byte of the model and of both counts, and how far the model is below the better of them; intervals over sections."""
    held: HeldOut = data.held_out
    nats, octets = _scored(model, held)
    of = f"bytes of held-out {held.spec.source}"
    whole = int(octets.sum())
    bits = [_rate(name, nats[name], octets, of) for name in nats]
    better = min((BYTES, TOKENS), key=lambda name: float(nats[name].sum()))
    gap = bootstrap(np.stack([(nats[better] - nats["bits per byte"]) / LN2, octets], axis=1), ratio)
    words = f"{of}; the better of the counts is the {better}"
    return [*bits, Measure("below the better count", gap.value, gap.interval.low, gap.interval.high, whole, words)]


def _scored(model: HookedModel, held: HeldOut) -> tuple[dict[str, Floats], Floats]:
    """Nats of every held-out section ``[section]`` by the model and both counts, and their bytes."""
    spec, tokenizer = held.spec, held.tokenizer
    cut = PerplexitySpec(text=spec.source, world=spec.world, documents=spec.documents)
    by_bytes = baselines(spec.source, spec.world.canonical() if spec.source == "town" else "", (MOST_ORDER,))[MOST_ORDER]
    ids = [np.asarray(one) for one in tokenizer.encode_batch(held.texts)]
    by_tokens = KneserNey(ids, order=MOST_ORDER, vocab=tokenizer.vocab_size)
    rows: list[tuple[float, float, float, int]] = []
    for sample in SUITE.samples(cut):
        context, text = sample.facts["context"], sample.facts["text"]
        pair = encode_pair(tokenizer, context, [text])
        tokens, before = np.asarray(pair.continuations[0]), np.asarray(pair.context if context else [], dtype=np.int64)
        counted = float(by_bytes.nats(as_bytes(text), context=as_bytes(context)).sum())
        rows.append(
            (
                -total(rolling(model, text, context=context)),
                counted,
                float(by_tokens.nats(tokens, context=before).sum()),
                len(as_bytes(text)),
            )
        )
    table = np.array(rows)
    return {"bits per byte": table[:, 0], BYTES: table[:, 1], TOKENS: table[:, 2]}, table[:, 3]


def _rate(name: str, nats: Floats, octets: Floats, of: str) -> Measure:
    found = bootstrap(np.stack([nats / LN2, octets], axis=1), ratio)
    return Measure(name, found.value, found.interval.low, found.interval.high, int(octets.sum()), of, larger=False)


TASK = Task("text", "gpt", TextTaskSpec, make, score, must={"below the better count": 0.0})
