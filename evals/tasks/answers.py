"""Questions about stories of the town, answered by a part of the text: for an encoder that says where an answer begins and ends.

Held-out stories are of sentences that no training story has, about pairs of people that stand together in none. Beside the model stand
guesses that read no sentence: a random span, and for questions whose answer is a name the first name, and the one nearest to a word that
the question repeats. With its question hidden the model itself can only guess. Words that the question repeats are marked for the model
too (``data.two_texts``): what it has to learn is what a sentence says of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from evals.answers import exact_match, likeliest_spans, token_f1
from evals.task import Measure, Task, TaskData
from workbench.core.protocol import HookedModel
from workbench.core.stats.resampling import bootstrap, paired_bootstrap
from workbench.data.counter import Draw
from workbench.data.labelled import LabelledRows
from workbench.data.pretrained import PretrainedTokenizer
from workbench.data.two_texts import QUESTION, TEXT, TYPES, question_and_text
from workbench.data.whole_words import whole_words
from workbench.data.worlds.town_stories import WHO, Stories, StoriesSpec, Story
from workbench.data.worlds.town_words import NAMES, class_of

ROWS = 200
"""Rows that are run at once."""
Guess = Callable[[Story, PretrainedTokenizer], str]


class AnswersSpec(StoriesSpec):
    """The stories; ``marked``: whether words that the question repeats are."""

    marked: bool = True


@dataclass(frozen=True)
class HeldOut:
    """The test stories, as texts and as rows; ``longest``: tokens of the longest answer in training."""

    stories: Sequence[Story]
    rows: LabelledRows
    tokenizer: PretrainedTokenizer
    longest: int


def make(spec: AnswersSpec, rows: int) -> TaskData:
    """The stories of each split; the vocabulary is the training stories'."""
    world = Stories(spec)
    train, validation, test = (world.stories(split) for split in ("train", "validation", "test"))
    tokenizer = whole_words([text for story in train for text in (story.context, story.question)])
    parts = [rows_of(stories, tokenizer, marked=spec.marked) for stories in (train, validation, test)]
    shape = {"d_vocab": tokenizer.vocab_size, "n_ctx": max(part.longest for part in parts), "n_types": TYPES, "head": "span"}
    longest = max(len(tokenizer.encode(story.said)) for story in train)
    return TaskData(parts[0], parts[1], shape, tokenizer, HeldOut(test, parts[2], tokenizer, longest))


def rows_of(stories: Sequence[Story], tokenizer: PretrainedTokenizer, *, marked: bool) -> LabelledRows:
    """A question and its story a row; the target is where the answer stands."""
    ids, types, targets = [], [], []
    for story in stories:
        offsets = tokenizer.offsets(story.context)[1]
        row, kind = question_and_text(tokenizer, story.question, story.context, marked=marked)
        first = row.index(tokenizer.roles["sep"]) + 1
        inside = [at for at, (start, end) in enumerate(offsets) if start < story.answer[1] and end > story.answer[0]]
        ids.append(row)
        types.append(kind)
        targets.append((first + inside[0], first + inside[-1]))
    return LabelledRows("span", ids, targets, pad=tokenizer.roles["pad"], types=types)


def answers(model: HookedModel, held: HeldOut, *, hidden: bool = False) -> list[str]:
    """The model's answer to each question, as it stands in the story; ``hidden`` shows the mask for each word of the question, and marks
    nothing."""
    out: list[str] = []
    sep, mask = held.tokenizer.roles["sep"], held.tokenizer.roles["mask"]
    for at in range(0, len(held.rows), ROWS):
        numbers = range(at, min(at + ROWS, len(held.rows)))
        batch = held.rows.batch(numbers)
        assert batch.types is not None, "rows of two texts are typed"
        tokens, types = batch.tokens, batch.types
        if hidden:
            control = torch.tensor([sep, held.tokenizer.roles["cls"], held.tokenizer.roles["pad"]])
            tokens = torch.where((types == QUESTION) & ~torch.isin(tokens, control), mask, tokens)
            types = types.clamp(max=TEXT)
        with torch.no_grad():
            logits = model.run(type(batch)(tokens, None, batch.mask, types)).logits
        assert logits is not None, "a model of answers has logits"
        allowed = ((types != QUESTION) & (tokens != sep)).numpy()
        scores = logits.double().numpy()
        for number, (first, last), row in zip(
            numbers, likeliest_spans(scores[..., 0], scores[..., 1], allowed, held.longest), tokens.numpy(), strict=True
        ):
            offsets = held.tokenizer.offsets(held.stories[number].context)[1]
            begin = int(np.flatnonzero(row == sep)[0]) + 1
            out.append(held.stories[number].context[offsets[first - begin][0] : offsets[last - begin][1]])
    return out


# --- guesses that read no sentence ------------------------------------------------------------------------------


def first_name(story: Story, tokenizer: PretrainedTokenizer) -> str:
    """The first name of the story."""
    return story.people[0]


def nearest_name(story: Story, tokenizer: PretrainedTokenizer) -> str:
    """The name, not in the question, with the fewest tokens between it and a word of content that the question repeats; of equally near
    ones the first."""
    words, asked = (tokenizer.pieces(tokenizer.encode(text)) for text in (story.context, story.question))
    repeated = {word for word in asked if class_of(word) != "function"}
    marks = [at for at, word in enumerate(words) if word in repeated]
    names = [at for at, word in enumerate(words) if word in NAMES and word not in repeated]
    return words[min(names, key=lambda at: min((abs(at - mark) for mark in marks), default=0))]


def random_span(story: Story, tokenizer: PretrainedTokenizer) -> str:
    """A span of the story as long as the answer, drawn from its words."""
    offsets, size = tokenizer.offsets(story.context)[1], len(tokenizer.encode(story.said))
    first = Draw("random span", story.context, story.question).below(len(offsets) - size + 1)
    return story.context[offsets[first][0] : offsets[first + size - 1][1]]


# --- the score --------------------------------------------------------------------------------------------------


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """Exact match and token F1 of the model over all test questions, and beside it the guesses; where the answer is a name also how much
    more often the model is right than the better of the two that name one."""
    held: HeldOut = data.held_out
    stories = held.stories
    wanted = [story.said for story in stories]
    said, blind = answers(model, held), answers(model, held, hidden=True)
    drawn = [random_span(story, held.tokenizer) for story in stories]
    words = "held-out questions"
    out = [_matches("exact match", said, wanted, words), _f1("token F1", said, wanted, words)]
    out += [_matches("question hidden", blind, wanted, words), _matches("random span", drawn, wanted, words)]
    out.append(_f1("random span, token F1", drawn, wanted, words))
    who = [i for i, story in enumerate(stories) if story.kind in WHO]
    if not who:
        return out
    names, words = [wanted[i] for i in who], "held-out questions whose answer is a name"
    right = np.array([exact_match(said[i], wanted[i]) for i in who])
    out.append(_matches("exact match of names", [said[i] for i in who], names, words))
    best: tuple[int, str, np.ndarray] | None = None
    for name, guess in (("first name", first_name), ("nearest name", nearest_name)):
        found = [guess(stories[i], held.tokenizer) for i in who]
        out.append(_matches(name, found, names, words))
        hits = np.array([exact_match(one, name) for one, name in zip(found, names, strict=True)])
        best = max(best or (-1, "", hits), (int(hits.sum()), name, hits), key=lambda one: one[0])
    assert best is not None, "there are two guesses"
    gain = paired_bootstrap(right, best[2], bounds=(-1.0, 1.0))
    out.append(Measure("above the better guess", gain.value, gain.interval.low, gain.interval.high, gain.n, f"{words}; '{best[1]}'"))
    return out


def _matches(name: str, found: Sequence[str], wanted: Sequence[str], words: str) -> Measure:
    return Measure.share(name, sum(exact_match(one, other) for one, other in zip(found, wanted, strict=True)), len(wanted), words)


def _f1(name: str, found: Sequence[str], wanted: Sequence[str], words: str) -> Measure:
    each = bootstrap([token_f1(one, other) for one, other in zip(found, wanted, strict=True)], bounds=(0.0, 1.0))
    return Measure(name, each.value, each.interval.low, each.interval.high, each.n, words)


TASK = Task("answers", "bert", AnswersSpec, make, score, must={"exact match": 0.93, "above the better guess": 0.45})
