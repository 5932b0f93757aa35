"""Which characters of a toxic post make it toxic (data set ``toxic-spans``), for an encoder that marks tokens.

Every post of the set is toxic: this is no detector of toxic posts, and says nothing of what it would mark in harmless ones. Beside the
tagger stand, on the same posts: nothing marked, everything marked, and a lexicon of words by how often each was toxic in training. Both
the tagger's and the lexicon's thresholds are chosen on validation posts. No text is printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field

from evals.lexicon import Lexicon
from evals.spans import Floats, Ints, Marked, threshold
from evals.task import Measure, Task, TaskData
from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel
from workbench.core.spec import Spec
from workbench.core.stats.resampling import bootstrap, paired_bootstrap
from workbench.data.labelled import LabelledRows
from workbench.data.pretrained import PretrainedTokenizer
from workbench.data.subwords import subwords
from workbench.data.toxic_spans import Post, splits, words_of

CLASSES = ("plain", "toxic")
ROWS = 64
"""Rows that are run at once."""


class ToxicSpansSpec(Spec):
    """``vocabulary``: tokens, learned from the training posts. ``length``: the most tokens of a row; a longer post is read in pieces."""

    vocabulary: int = Field(4000, ge=261)
    length: int = Field(128, ge=8)


@dataclass(frozen=True)
class Pieces:
    """Posts as rows of tokens: of each token between a row's two control tokens its ``word`` among all words of the posts (−1: none)."""

    rows: LabelledRows
    word: tuple[Ints, ...]


@dataclass(frozen=True)
class HeldOut:
    """The posts of each split, and those of validation and test as rows."""

    posts: Mapping[str, Sequence[Post]]
    pieces: Mapping[str, Pieces]


def make(spec: ToxicSpansSpec, rows: int) -> TaskData:
    """The set's posts in the splits of ``data.toxic_spans``. Raises MissingData and CorruptFile."""
    return prepared(splits(), spec)


def prepared(posts: Mapping[str, Sequence[Post]], spec: ToxicSpansSpec) -> TaskData:
    """The task on posts in the splits train, validation and test."""
    tokenizer = subwords([post.text for post in posts["train"]], spec.vocabulary)
    cut = {name: pieces(part, tokenizer, spec.length) for name, part in posts.items()}
    shape = {
        "d_vocab": tokenizer.vocab_size, "n_ctx": max(one.rows.longest for one in cut.values()), "head": "token", "classes": list(CLASSES),
    }  # fmt: skip
    held = HeldOut(posts, {name: cut[name] for name in ("validation", "test")})
    return TaskData(cut["train"].rows, cut["validation"].rows, shape, tokenizer, held)


def pieces(posts: Sequence[Post], tokenizer: PretrainedTokenizer, length: int) -> Pieces:
    """The posts as rows of at most ``length`` tokens, the pieces of one post about equally long. A token is toxic where at least half of
    its characters, blanks aside, are. Raises BadValue for no posts."""
    if not posts:
        raise BadValue("the posts", 0, "at least one")
    room = length - len(tokenizer.framed([])[0])
    ids, targets, words, first = [], [], [], 0
    for post in posts:
        tokens, toxic, word = _read(post, tokenizer)
        for part in np.array_split(np.arange(len(tokens)), max(1, -(-len(tokens) // room))):
            ids.append(tokenizer.framed(tokens[part].tolist())[0])
            targets.append([IGNORE, *toxic[part].tolist(), IGNORE])
            words.append(np.where(word[part] < 0, -1, word[part] + first))
        first += len(words_of(post.text))
    return Pieces(LabelledRows("token", ids, targets, pad=tokenizer.roles["pad"]), tuple(words))


def _read(post: Post, tokenizer: PretrainedTokenizer) -> tuple[Ints, Ints, Ints]:
    """Of each token of a post: its id, 1 where it is toxic, and the word of the post it begins in (−1: none)."""
    ids, offsets = tokenizer.offsets(post.text)
    solid = np.array([not letter.isspace() for letter in post.text], dtype=np.int64)
    marked = solid * np.isin(np.arange(len(post.text)), post.toxic)
    letters, hits = (np.concatenate([[0], np.cumsum(each)]) for each in (solid, marked))
    word_at = np.full(len(post.text), -1)
    for number, (start, end) in enumerate(words_of(post.text)):
        word_at[start:end] = number
    toxic = [2 * (hits[end] - hits[start]) >= max(1, letters[end] - letters[start]) for start, end in offsets]
    word = [next((int(found) for found in word_at[start:end] if found >= 0), -1) for start, end in offsets]
    return np.array(ids, dtype=np.int64), np.array(toxic, dtype=np.int64), np.array(word, dtype=np.int64)


def word_scores(model: HookedModel, cut: Pieces, words: int) -> Floats:
    """The mean probability of *toxic* over the tokens of each of ``words`` words ``[word]``; 0 for a word that has none."""
    total, count = np.zeros(words), np.zeros(words)
    order = sorted(range(len(cut.rows)), key=lambda i: len(cut.word[i]))
    for at in range(0, len(order), ROWS):
        chosen = order[at : at + ROWS]
        with torch.no_grad():
            logits = model.run(cut.rows.batch(chosen)).logits
        assert logits is not None, "a tagger has logits"
        shares = logits.double().softmax(-1)[..., CLASSES.index("toxic")].numpy()
        for share, i in zip(shares, chosen, strict=True):
            word = cut.word[i]
            np.add.at(total, word[word >= 0], share[1 : 1 + len(word)][word >= 0])
            np.add.at(count, word[word >= 0], 1)
    return total / np.maximum(count, 1)


def score(model: HookedModel, data: TaskData) -> Sequence[Measure]:
    """The mean F1 over the characters of each test post, of the tagger and of what it must beat, with intervals over posts; and the share
    of the posts without a mark that the tagger leaves so."""
    held: HeldOut = data.held_out
    known, asked = Marked.of(held.posts["validation"]), Marked.of(held.posts["test"])
    level, _ = threshold(known, word_scores(model, held.pieces["validation"], len(known.size)))
    tagger = asked.f1(word_scores(model, held.pieces["test"], len(asked.size)) >= level)
    lexicon = Lexicon.fitted(held.posts["train"], held.posts["validation"])
    listed = lexicon.f1(held.posts["test"])
    words, bare = "held-out posts, all toxic", asked.gold == 0
    gain = paired_bootstrap(tagger, listed, bounds=(-1.0, 1.0))
    out = [
        _mean("span F1", tagger, f"{words}; words marked from a score of {level:g}"),
        _mean("nothing marked", asked.f1(np.zeros(len(asked.size), dtype=bool)), words),
        _mean("everything marked", asked.everything(), words),
        _mean("lexicon", listed, f"{words}; words marked from a rate of {lexicon.level:g}"),
        Measure("above the lexicon", gain.value, gain.interval.low, gain.interval.high, gain.n, words),
    ]
    if bare.any() and not bare.all():
        out.append(_mean("span F1 where something is marked", tagger[~bare], "held-out posts in which annotators marked something"))
        out.append(Measure.share("left unmarked", int(tagger[bare].sum()), int(bare.sum()), "held-out posts in which they marked nothing"))
    return out


def _mean(name: str, values: Floats, words: str) -> Measure:
    found = bootstrap(values, bounds=(0.0, 1.0))
    return Measure(name, found.value, found.interval.low, found.interval.high, found.n, words)


TASK = Task("toxic-spans", "bert", ToxicSpansSpec, make, score, must={"above the lexicon": 0.01})
