"""Few labels, for an encoder that has read the town: what masked tokens taught it is worth to a classifier.

The classifier says the word class (name, object, verb, …) of a word that it does not see: the sentence shows the mask in its place, so
that no word is the answer and the words around must be read. It is fine-tuned on a few labelled sentences, once from the trained encoder
and once from fresh weights of the same shape, with the same steps; each side has the learning rate that serves it best on validation.
Test sentences have skeletons that neither the labelled nor the unlabelled ones have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from pydantic import PositiveInt

from evals.finetune import Budget, classifier, fitted, right
from evals.task import Measure, Task, TaskData
from evals.tasks.masked_tokens import MaskedTokensSpec
from evals.tasks.masked_tokens import make as make_masked
from workbench.core.batch import IGNORE, EncoderBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel
from workbench.core.stats.resampling import paired_bootstrap
from workbench.data.counter import Draw
from workbench.data.masked import side_by_side
from workbench.data.pretrained import PretrainedTokenizer
from workbench.data.worlds.town import Split, Town
from workbench.data.worlds.town_words import WORD_CLASS, class_of

CLASSES = tuple(sorted({*WORD_CLASS.values(), "function"} - {"punctuation", "digit"}))
RATES = (3e-4, 1e-3, 3e-3)


class FewLabelsSpec(MaskedTokensSpec):
    """The town and its masks; ``labels`` sentences of the training split are labelled, ``chosen_on`` of validation choose the learning
    rate, ``tested_on`` of test are classified. ``passes`` over the labelled sentences, in steps of ``batch_rows``."""

    labels: PositiveInt = 64
    chosen_on: PositiveInt = 200
    tested_on: PositiveInt = 1000
    passes: PositiveInt = 20
    batch_rows: PositiveInt = 16


@dataclass(frozen=True)
class Labelled:
    """Sentences with one word hidden, whose class is the target, and the template each was made by."""

    batch: EncoderBatch
    templates: tuple[str, ...]


@dataclass(frozen=True)
class HeldOut:
    """What ``score`` reads."""

    spec: FewLabelsSpec
    train: Labelled
    validation: Labelled
    test: Labelled


def labelled(town: Town, tokenizer: PretrainedTokenizer, split: Split, count: int, seed: int) -> Labelled:
    """The first ``count`` sentences of a split that are no codes. Of each, one of the classes in it is drawn, and one of its words hidden.
    Raises BadValue where there are fewer."""
    documents = list(islice((one for one in town.documents(split=split) if one.kind not in ("code", "secret")), count))
    if len(documents) < count:
        raise BadValue(f"the labelled sentences of split '{split}'", count, f"at most {len(documents)}, all that are no codes")
    rows = []
    for number, document in enumerate(documents):
        draw = Draw("hidden word", seed, split, number)
        kinds = [class_of(word.text) for word in document.words]
        kind = draw.pick(sorted({*kinds} & {*CLASSES}))
        at = 1 + draw.pick([i for i, one in enumerate(kinds) if one == kind])  # one token a word, and one control token before them
        ids = np.asarray(tokenizer.framed(tokenizer.encode(document.text))[0])
        targets = np.full(len(ids), IGNORE)
        ids[at], targets[at] = tokenizer.roles["mask"], CLASSES.index(kind)
        rows.append((ids, targets))
    return Labelled(side_by_side(rows, tokenizer.roles["pad"]), tuple(f"{one.kind} {one.facts['template']}" for one in documents))


def make(spec: FewLabelsSpec, rows: int) -> TaskData:
    """Training rows as for masked tokens; labelled sentences of each split are held out for the score."""
    data = make_masked(MaskedTokensSpec.parse({name: getattr(spec, name) for name in MaskedTokensSpec.model_fields}), rows)
    town, tokenizer = data.held_out.town, data.held_out.tokenizer
    train = labelled(town, tokenizer, "train", spec.labels, spec.seed)
    validation = labelled(town, tokenizer, "validation", spec.chosen_on, spec.seed)
    test = labelled(town, tokenizer, "test", spec.tested_on, spec.seed)
    return TaskData(data.train, data.validation, data.shape, tokenizer, HeldOut(spec, train, validation, test))


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """The accuracy of both classifiers on the test sentences, and what the trained encoder adds, with its interval over templates.

    Fresh weights and the orders of rows are drawn from the model's digest: the same for the same model, others for another.
    """
    held: HeldOut = data.held_out
    budget, seed = Budget(held.spec.passes, held.spec.batch_rows), int(model.digest()[:12], 16)
    starts = [classifier(model, CLASSES, seed=seed, pretrained=pretrained) for pretrained in (True, False)]
    found = [fitted(start, held.train.batch, held.validation.batch, RATES, budget, seed) for start in starts]
    tuned, scratch = (right(one.model, held.test.batch).numpy() for one in found)
    gain = paired_bootstrap(tuned, scratch, clusters=held.test.templates, bounds=(-1.0, 1.0))
    words = f"held-out sentences; {held.spec.labels} labels"
    return [
        Measure.share("fine-tuned accuracy", int(tuned.sum()), len(tuned), words),
        Measure.share("accuracy from scratch", int(scratch.sum()), len(scratch), words),
        Measure("gain of pretraining", gain.value, gain.interval.low, gain.interval.high, gain.n, words),
    ]


TASK = Task("few-labels", "bert", FewLabelsSpec, make, score, must={"gain of pretraining": 0.15})
