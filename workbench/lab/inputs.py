"""What an instrument is given, from words: texts with targets and foils, or items of a generated world.

An ``InputsSpec`` is stored with the run, so that the same inputs can be made again. A target is one token that follows its text
without changing how the text is cut into tokens; anything else is an error, since a shifted token would be read as another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from evals.tasks import TASKS
from probes.probe_labels import LabelSet
from probes.probing import untrained_copy
from workbench.core.batch import IGNORE, PairBatch, SequenceBatch
from workbench.core.errors import BadValue, UsageError
from workbench.core.measure import Instrument
from workbench.core.protocol import HookedModel, Inputs
from workbench.core.spec import Spec, later
from workbench.data import treebank
from workbench.data.worlds.town import Split, Town, TownSpec
from workbench.data.worlds.town_items import PronounItem
from workbench.lab.refs import load, task_of, world_of
from workbench.lab.traced import trained_of
from workbench.store.runs import Store

SENTENCES, DOCUMENTS, TASK_ROWS = 96, 300, 8
LEAST_LEAN = 0.3
"""Sentences whose occupation leans less are not asked: there the pronoun is close to a coin flip by design."""

Span = tuple[int, int]


class InputsSpec(Spec):
    """Texts, items of the town, held-out rows of a task, or labelled words of a public set.

    ``texts`` with ``targets`` and ``foils`` (one each, or one for all; text that is one token after its context), and for patching
    ``corrupt``, a twin of each of as many tokens, and ``classes``, what each is labelled with. Or ``weights``: nothing, for an instrument
    that looks at weights alone. Or ``world``, the
    town whose held-out items are taken: ``count`` sentences that end before a pronoun, of occupations that lean at least
    ``least_lean``, or ``count`` documents with labelled words, as the instrument needs. ``untrained``: also a copy with fresh
    weights, where the instrument takes one; ``model``: one or more other models, where it compares some. Or ``task`` with its ``data``:
    the first ``count`` validation rows, asked about their class, or about the first token that a decoder writes. Or ``labels``, the
    treebank whose words' parts of speech are asked: its first ``count`` sentences of ``split``.
    """

    texts: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    foils: tuple[str, ...] = ()
    corrupt: tuple[str, ...] = later(())
    classes: tuple[str, ...] = later(())
    weights: bool = later(False, description="nothing is read: the instrument looks at weights alone")
    model: tuple[str, ...] = later((), description="references of other models that are compared with this one, such as checkpoints")
    world: TownSpec | None = None
    task: str = ""
    labels: Literal["", "ud-english-ewt"] = ""
    data: Mapping[str, Any] = Field(default_factory=dict)
    split: Literal["validation", "test"] = "test"
    count: int = Field(SENTENCES, ge=1)
    least_lean: float = Field(LEAST_LEAN, ge=0, le=1)
    untrained: bool = True
    seed: int = Field(0, ge=0)

    @field_validator("model", mode="before")
    @classmethod
    def _one_reference(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.texts) + (self.world is not None) + bool(self.task) + bool(self.labels) + self.weights != 1:
            raise ValueError("inputs with either texts or a world or a task or labels (or weights alone)")
        for name in ("targets", "foils"):
            if len(getattr(self, name)) not in (0, 1, len(self.texts)):
                raise ValueError(f"inputs with one of {name} for all texts or one for each of the {len(self.texts)}")
        if len(self.corrupt) not in (0, len(self.texts)):
            raise ValueError(f"inputs with one corrupt text for each of the {len(self.texts)} texts, not {len(self.corrupt)}")
        if len(self.classes) not in (0, len(self.texts)):
            raise ValueError(f"inputs with one of classes for each of the {len(self.texts)} texts, not {len(self.classes)}")
        if self.world is not None and (self.targets or self.foils):
            raise ValueError("inputs without targets and foils where a world is given, which has its own")
        return self

    @classmethod
    def of(cls, given: InputsSpec | Mapping[str, Any] | Sequence[str] | str) -> InputsSpec:
        """From a text, texts, or fields."""
        if isinstance(given, InputsSpec):
            return given
        if isinstance(given, Mapping):
            return cls.parse(given, what="inputs")
        return cls.parse({"texts": [given] if isinstance(given, str) else list(given)}, what="inputs")


def default_inputs(tool: Instrument, ref: str, store: Store | None = None) -> InputsSpec:
    """What ``tool`` asks of the world its model was trained on, as much of it as an audit asks. Raises UsageError where that is
    not known. Of an instrument that needs no inputs, nothing where it is not known."""
    if (task := task_of(ref, store)) is not None and tool.needs.reads != ("tokens",):
        return InputsSpec.parse({**task, "count": TASK_ROWS})
    world = world_of(ref, store)
    if world is None and not tool.needs.inputs:
        return InputsSpec.parse({"weights": True})
    if world is None:
        raise UsageError(f"'{tool.name}' was given no inputs, and '{ref}' comes from no generated world. Give texts (`--text \"…\"`).")
    return InputsSpec.parse({"world": world, "count": usual_count(tool)})


def usual_count(tool: Instrument) -> int:
    """How many items of a world an instrument is asked about, in an audit as by itself: many where a share is counted, else one."""
    if "labels" in tool.needs.inputs:
        return DOCUMENTS
    if tool.items:
        return tool.items
    return SENTENCES if "targets" in tool.needs.inputs and "baseline" in tool.spec.model_fields else 1


def make_inputs(tool: Instrument, model: HookedModel, spec: InputsSpec, chosen: Spec, store: Store | None = None) -> Inputs:
    """The ``Inputs`` that ``tool`` takes under its spec ``chosen``: foils, groups and BOS only where that asks for them, other models where
    it compares some (from ``store``; and where ``untrained``, a copy with fresh weights)."""
    wanted = tool.needs.reference
    if spec.model and wanted != "models":
        raise UsageError(f"'{tool.name}' compares no models. Leave `inputs.model` out, or ask 'similarity'.")
    made = _made(tool, model, spec, chosen)
    if wanted == "training":
        return replace(made, foils=None, reference=trained_of(model, getattr(model, "name", ""), store))
    if wanted != "models":
        return made
    others: dict[str, HookedModel] = {ref: load(ref, store=store) for ref in spec.model}
    if spec.untrained:
        others["untrained"] = untrained_copy(model, seed=spec.seed + 1)
    return replace(made, targets=None, foils=None, reference=others or None)


def _made(tool: Instrument, model: HookedModel, spec: InputsSpec, chosen: Spec) -> Inputs:
    if not tool.needs.inputs:
        return Inputs(None)
    if spec.weights:
        raise UsageError(f"'{tool.name}' reads more than weights. Leave `inputs.weights` out, or give texts.")
    if spec.task:
        made = task_rows(spec, model)
        return replace(made, targets=None) if "most" in tool.spec.model_fields else made  # what a model writes is its own answer
    bos = bool(getattr(chosen, "bos", True))
    if spec.labels:
        if "labels" not in tool.needs.inputs:
            raise UsageError(f"'{tool.name}' asks for no labels. Leave `inputs.labels` out, or ask 'probing'.")
        if tool.needs.whole:
            raise UsageError(f"'{tool.name}' takes one label a text, and a treebank labels words. Give texts with `inputs.classes`.")
        make = treebank_trees if tool.needs.trees else treebank_labels
        made = make(model, treebank.sentences(spec.split)[: spec.count], bos=bos)
        return replace(made, reference=untrained_copy(model, seed=spec.seed + 1)) if spec.untrained else made
    contrast = getattr(chosen, "quantity", "") == "logit-difference"
    if spec.world is None:
        _check_needs(tool, spec, chosen)
        made = from_texts(model, spec.texts, spec.targets, spec.foils)
        made = replace(made, labels=list(spec.classes)) if spec.classes else made
        return replace(made, reference=list(spec.corrupt)) if spec.corrupt else made
    town = Town(spec.world)
    if tool.needs.whole:
        items = pronoun_items(town, split=spec.split, count=spec.count, least_lean=spec.least_lean, seed=spec.seed)
        made = town_leans(model, items, bos=bos, contrasts=tool.needs.reference == "texts")
        return replace(made, reference=untrained_copy(model, seed=spec.seed + 1)) if spec.untrained and made.reference is None else made
    if "labels" in tool.needs.inputs:
        made = town_labels(model, town, split=spec.split, count=spec.count, bos=bos)
        return replace(made, reference=untrained_copy(model, seed=spec.seed + 1)) if spec.untrained else made
    items = pronoun_items(town, split=spec.split, count=spec.count, least_lean=spec.least_lean, seed=spec.seed)
    made = town_pronouns(model, items, bos=bos)
    if tool.needs.reference == "texts":
        return from_the_next(model, items, made)
    if "targets" not in tool.needs.inputs:
        return Inputs(made.batch, made.lengths)
    slots = getattr(chosen, "baseline", "") == "template-mean"
    return replace(made, groups=made.groups if slots else None, foils=made.foils if contrast else None)


def _check_needs(tool: Instrument, spec: InputsSpec, chosen: Spec) -> None:
    """Say in words of texts what an instrument lacks, before anything is run."""
    if "targets" in tool.needs.given(chosen) and not spec.targets:
        raise UsageError(f"'{tool.name}' needs a target, the token asked about after each text. Give it as `--target \" she\"`.")
    sourced = tool.needs.reference == "texts"
    if sourced and not spec.corrupt:
        raise UsageError(f"'{tool.name}' needs a source for each text. Give them as `--set 'inputs.corrupt=[\"…\", …]'`.")
    if spec.corrupt and "replacement" not in tool.spec.model_fields and not sourced:
        raise UsageError(
            f"'{tool.name}' compares no clean text with a corrupt one. Leave inputs.corrupt out, or ask 'activation-patching'."
        )
    if "labels" in tool.needs.inputs and not spec.classes:
        raise UsageError(
            f"'{tool.name}' needs labelled words, which plain texts do not have. Leave --text out for a model of a generated world, give "
            "`--set inputs.labels=ud-english-ewt`, or one class a text, as `--set 'inputs.classes=[a, b]'`."
        )
    if spec.classes and "labels" not in tool.needs.inputs:
        raise UsageError(f"'{tool.name}' asks for no labels. Leave `inputs.classes` out, or ask 'probing'.")


# --- from texts ---------------------------------------------------------------------------------------------


def from_texts(model: HookedModel, texts: Sequence[str], targets: Sequence[str] = (), foils: Sequence[str] = ()) -> Inputs:
    """Texts as they are (the instrument puts the BOS), with the ids of targets and foils (none, one for all, or one a text)."""
    _tokenizer(model)
    return Inputs(list(texts), targets=_ids(model, texts, targets, "target"), foils=_ids(model, texts, foils, "foil"))


def encoded(model: HookedModel, texts: Sequence[str], *, bos: bool = True) -> tuple[Tensor, Tensor, list[list[Span]]]:
    """Ids ``[batch, pos]`` (a BOS first where asked and there is one, else the control tokens of the tokenizer's template where it has
    one), lengths ``[batch]``, and for each text the letters (start, end) of every token; a control token has (0, 0)."""
    tokenizer = _tokenizer(model)
    first, last = _frame(tokenizer) if bos else ([], [])
    rows: list[list[int]] = []
    spans: list[list[Span]] = []
    for text in texts:
        ids, where = tokenizer.offsets(text)
        if not ids:
            raise BadValue("a text", text, "of at least one token")
        rows.append([*first, *ids, *last])
        spans.append([(0, 0)] * len(first) + [(start, end) for start, end in where] + [(0, 0)] * len(last))
    width = max(map(len, rows))
    fill = tokenizer.pad_id if tokenizer.pad_id is not None else 0
    padded = torch.tensor([row + [fill] * (width - len(row)) for row in rows])
    return padded, torch.tensor([len(row) for row in rows]), spans


def _frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The control tokens before and after a text."""
    if tokenizer.bos_id is not None:
        return [tokenizer.bos_id], []
    framed = getattr(tokenizer, "framed", None)
    if framed is None:
        return [], []
    text = -1  # stands for the text's ids
    whole = framed([text])[0]
    return whole[: whole.index(text)], whole[whole.index(text) + 1 :]


def _ids(model: HookedModel, texts: Sequence[str], answers: Sequence[str], what: str) -> Tensor | None:
    if not answers:
        return None
    each = list(answers) * len(texts) if len(answers) == 1 else list(answers)
    if len(each) != len(texts):
        raise BadValue(f"the number of {what}s", len(each), f"1 or {len(texts)}, one a text")
    return torch.tensor([_following(model, text, answer, what) for text, answer in zip(texts, each, strict=True)])


def _following(model: HookedModel, text: str, answer: str, what: str) -> int:
    """The one id that ``answer`` is after ``text``."""
    tokenizer = _tokenizer(model)
    before, whole = tokenizer.encode(text), tokenizer.encode(text + answer)
    if whole[: len(before)] != before or len(whole) != len(before) + 1:
        pieces = tokenizer.pieces(whole[len(before) :] if whole[: len(before)] == before else tokenizer.encode(answer))
        hint = " A leading space belongs to the word." if answer and not answer.startswith(" ") else ""
        raise BadValue(f"the {what}", answer, f"one token after its text, and it is {len(pieces)}: {pieces}", do=hint.strip())
    return whole[-1]


def _tokenizer(model: HookedModel) -> Any:
    if model.tokenizer is None:
        raise UsageError("This model has no tokenizer, so it cannot be asked in words. Give token ids as `Inputs(batch=…)`.")
    return model.tokenizer


# --- from a task ---------------------------------------------------------------------------------------------


def task_rows(spec: InputsSpec, model: HookedModel) -> Inputs:
    """The first held-out rows of a task, with what each is asked about: its class, the first token written, its own text, the code of its
    last patch, or (of a denoiser, at a step of noise each) the pixel in the middle of the first channel."""
    task = TASKS.load(spec.task)
    rows = task.make(task.spec.parse(spec.data, what=f"the data of task '{spec.task}'"), spec.count).validation
    return asked_about(rows.batch(range(min(spec.count, len(rows)))), model)


def asked_about(batch: Any, model: HookedModel) -> Inputs:
    """Rows of a task in the form a model is asked in, each with what it is asked about (``task_rows``)."""
    if isinstance(batch, SequenceBatch):
        assert batch.targets is not None, "rows to train on have targets"
        first = SequenceBatch(batch.source, batch.tokens[:, :1], batch.targets[:, :1], batch.mask)
        return Inputs(first, targets=batch.targets[:, 0])
    if isinstance(batch, PairBatch) and (noised := getattr(model, "noised", None)) is not None:
        noisy = noised(batch)
        _, height, width = noisy.pixels.shape[1:]
        return Inputs(noisy, targets=torch.full((len(noisy.pixels),), height // 2 * width + width // 2))
    if isinstance(batch, PairBatch) and (sequence := getattr(model, "sequence", None)) is not None:
        return Inputs(batch, targets=sequence(batch).targets[:, -1])
    if isinstance(batch, PairBatch):
        return Inputs(batch, targets=torch.arange(len(batch.pixels)))
    return Inputs(batch, targets=getattr(batch, "targets", None))


# --- from the town ------------------------------------------------------------------------------------------


def pronoun_items(
    town: Town, *, split: Split = "test", count: int = SENTENCES, least_lean: float = LEAST_LEAN, seed: int = 0
) -> list[PronounItem]:
    """``count`` held-out sentences, each on a skeleton of its own, the occupations that lean so far taking turns.

    On a shared skeleton a mean over the other sentences would equal the sentence everywhere but at the occupation, and any
    attribution would find it.
    """
    leaning = [name for name, facts in town.truth()["occupations"].items() if abs(facts["lean"]) >= least_lean]
    if not leaning:
        raise BadValue("least_lean", least_lean, "at most the largest lean of an occupation")
    by_skeleton: dict[int, dict[str, PronounItem]] = {}
    for item in town.pronoun_items(split, per_occupation=count, seed=seed):
        by_skeleton.setdefault(item.skeleton, {})[item.occupation] = item
    return [by_skeleton[number][leaning[number % len(leaning)]] for number in sorted(by_skeleton)]


def town_pronouns(model: HookedModel, items: Sequence[PronounItem], *, bos: bool = True) -> Inputs:
    """Sentences up to a pronoun, with *she* (or *her*) as target and *he* (*his*) as foil.

    ``labels`` ``[batch, pos]`` is true at content words; ``groups`` names the template.
    """
    texts = [item.text_before for item in items]
    ids, lengths, spans = encoded(model, texts, bos=bos)
    content = torch.zeros(ids.shape, dtype=torch.bool)
    for row, item in enumerate(items):
        for span in item.content:
            content[row, tokens_of(spans[row], span)] = True
    return Inputs(
        ids, lengths, labels=content, groups=[item.template for item in items],
        targets=_ids(model, texts, [item.she for item in items], "target"), foils=_ids(model, texts, [item.he for item in items], "foil"),
    )  # fmt: skip


def from_the_next(model: HookedModel, items: Sequence[PronounItem], made: Inputs) -> Inputs:
    """Each sentence with the next as its source: the variable is which way the occupation leans, and the counterfactual answer is the
    sentence's own pronoun of the way the source leans (foils: of the other way)."""
    if len(items) < 2:
        raise BadValue("count", len(items), "at least 2: each sentence's source is another")
    assert made.lengths is not None, "sentences have lengths"
    she = torch.tensor([items[(place + 1) % len(items)].lean > 0 for place in range(len(items))])
    hers, his = torch.as_tensor(made.targets), torch.as_tensor(made.foils)
    source = Inputs(made.batch.roll(-1, 0), made.lengths.roll(-1))
    return replace(made, reference=source, labels=None, groups=None, targets=torch.where(she, hers, his), foils=torch.where(she, his, hers))


def town_leans(model: HookedModel, items: Sequence[PronounItem], *, bos: bool = True, contrasts: bool = False) -> Inputs:
    """Sentences up to a pronoun, labelled by the way their occupation leans. ``contrasts``: each with *she*, as its contrast with *he*."""
    labels = {"lean": ["she" if item.lean > 0 else "he" for item in items]}
    if not contrasts:
        ids, lengths, _ = encoded(model, [item.text_before for item in items], bos=bos)
        return Inputs(ids, lengths, labels=labels)
    sides = [encoded(model, [item.text_before + said for item, said in zip(items, side, strict=True)], bos=bos)
             for side in ([item.she for item in items], [item.he for item in items])]  # fmt: skip
    (ids, lengths, _), (other, other_lengths, _) = sides
    return Inputs(ids, lengths, reference=Inputs(other, other_lengths), labels=labels)


def occupation_spans(model: HookedModel, items: Sequence[PronounItem], *, bos: bool = True) -> tuple[Span, ...]:
    """The tokens of each sentence's occupation as a half-open range of positions in ``town_pronouns``'s batch."""
    spans = encoded(model, [item.text_before for item in items], bos=bos)[2]
    found = [tokens_of(where, item.occupation_span) for where, item in zip(spans, items, strict=True)]
    return tuple((places[0], places[-1] + 1) for places in found)


def town_labels(model: HookedModel, town: Town, *, split: Split = "test", count: int = DOCUMENTS, bos: bool = True) -> Inputs:
    """Documents with a label at the last token of every word, read with the word as its type: ``class``, the word's class."""
    items = town.label_items(split, count)
    ids, lengths, spans = encoded(model, [item.text for item in items], bos=bos)
    classes, words = ([[""] * ids.shape[1] for _ in items] for _ in range(2))
    for row, item in enumerate(items):
        for word, span, kind in zip(item.words, item.spans, item.classes, strict=True):
            last = tokens_of(spans[row], span)[-1]
            classes[row][last], words[row][last] = kind, word
    return Inputs(ids, lengths, labels={"class": LabelSet(classes, words)})


def treebank_labels(model: HookedModel, sentences: Sequence[treebank.Sentence], *, bos: bool = True) -> Inputs:
    """Sentences with ``part of speech`` and, where the treebank tells it, ``dependency relation`` at the last token of every word, the word
    without its capitals as its type. A word no token of which was kept (the tokenizer's normalisation may drop it) has no label."""
    ids, lengths, spans = encoded(model, [one.text for one in sentences], bos=bos)
    names = ["part of speech", *(["dependency relation"] if all(one.relations for one in sentences) else [])]
    found = {name: [[""] * ids.shape[1] for _ in sentences] for name in (*names, "word")}
    for row, one in enumerate(sentences):
        for number, (word, span, tag) in enumerate(zip(one.words, one.spans, one.tags, strict=True)):
            if held := [place for place, (start, end) in enumerate(spans[row]) if start < span[1] and end > span[0]]:
                found["word"][row][held[-1]], found["part of speech"][row][held[-1]] = word.lower(), tag
                if len(names) > 1:
                    found["dependency relation"][row][held[-1]] = one.relations[number]
    return Inputs(ids, lengths, labels={name: LabelSet(found[name], found["word"]) for name in names})


def treebank_trees(model: HookedModel, sentences: Sequence[treebank.Sentence], *, bos: bool = True) -> Inputs:
    """Sentences with, at the last token of every word, the position of the word it depends on (the root: its own). Punctuation is left out,
    as Hewitt and Manning do; so are sentences two words of which end in one token, or a word of which was not kept."""
    ids, lengths, spans = encoded(model, [one.text for one in sentences], bos=bos)
    heads = torch.full(ids.shape, IGNORE)
    for row, one in enumerate(sentences):
        words = [number for number, tag in enumerate(one.tags) if tag != "PUNCT"]
        held = {number: [place for place, (a, b) in enumerate(spans[row]) if a < one.spans[number][1] and b > one.spans[number][0]]
                for number in words}  # fmt: skip
        last = {number: places[-1] for number, places in held.items() if places}
        up = {number: number if one.heads[number] < 0 else one.heads[number] for number in words}
        if len(set(last.values())) == len(words) and all(head in last for head in up.values()):
            for number in words:
                heads[row, last[number]] = last[up[number]]
    return Inputs(ids, lengths, labels=heads)


def tokens_of(spans: Sequence[Span], span: Span) -> list[int]:
    """The positions of the tokens that hold a letter of ``span``. Raises BadValue where none does."""
    found = [place for place, (start, end) in enumerate(spans) if start < span[1] and end > span[0]]
    if not found:
        raise BadValue("a word's place", span, "covered by at least one token")
    return found


# --- identity -----------------------------------------------------------------------------------------------


def digest_of_inputs(inputs: Inputs) -> str:
    """sha256 (hex) over tensors and texts of inputs that were given ready-made."""
    whole = hashlib.sha256()
    for name, value in sorted(vars(inputs).items()):
        if isinstance(value, Tensor):
            content = value.detach().cpu().contiguous().numpy().tobytes() + str((value.dtype, tuple(value.shape))).encode()
        elif isinstance(value, np.ndarray):
            content = repr(value.tolist()).encode() + str((value.dtype, value.shape)).encode()
        elif isinstance(value, Inputs):
            content = digest_of_inputs(value).encode()
        elif hasattr(value, "digest"):
            content = value.digest().encode()
        else:
            content = repr(value).encode()
        whole.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return whole.hexdigest()
