"""Sentences whose words have a part of speech: the English Web Treebank of Universal Dependencies (data set ``ud-english-ewt``).

Source: Silveira et al., A Gold Standard Dependency Corpus for English, LREC 2014; the tags are the 17 of de Marneffe, Manning, Nivre and
Zeman, Universal Dependencies, Computational Linguistics 47, 2021.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from workbench.core.errors import CorruptFile
from workbench.data import sources

NAME = "ud-english-ewt"
FILES = {"validation": "en_ewt-ud-dev.conllu", "test": "en_ewt-ud-test.conllu"}
_TEXT, _FORM, _TAG, _HEAD, _RELATION = "# text = ", 1, 3, 6, 7


@dataclass(frozen=True)
class Sentence:
    """A sentence: its words, the characters (start, end) of each, and its part of speech (``NOUN``, ``VERB`` …).

    ``heads`` number the word that each word depends on (-1: the root has none), ``relations`` say how (``nsubj`` …, without subtypes);
    both are empty where the file does not tell.
    """

    text: str
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    tags: tuple[str, ...]
    heads: tuple[int, ...] = ()
    relations: tuple[str, ...] = ()


def sentences(split: Literal["validation", "test"] = "test") -> list[Sentence]:
    """The sentences of a split, in the file's order. Raises MissingData and CorruptFile."""
    return list(parsed(sources.read_text(NAME, FILES[split]), FILES[split]))


def parsed(text: str, name: str = "treebank") -> Iterator[Sentence]:
    """The sentences of a file in the format CoNLL-U. Words written as one (``don't``) are two, as the treebank has them; empty nodes are
    no words. Raises CorruptFile where the words are not the text's."""
    for block in text.split("\n\n"):
        if not block.strip():
            continue
        lines = block.strip().split("\n")
        line = next((one for one in lines if one.startswith(_TEXT)), None)
        if line is None:
            raise CorruptFile(name, "with a text for each sentence", f"one has none: {lines[0][:60]!r}")
        rows = [one.split("\t") for one in lines if not one.startswith("#")]
        yield _placed(line.removeprefix(_TEXT), [row for row in rows if row[0].isdigit()], name)


def _placed(text: str, rows: list[list[str]], name: str) -> Sentence:
    spans, at = [], 0
    for row in rows:
        at += len(text[at:]) - len(text[at:].lstrip())
        if len(row) <= _TAG or not text.startswith(row[_FORM], at):
            raise CorruptFile(name, "with each sentence's words in its text", f"{row[:2]} is not at character {at} of {text[:60]!r}")
        spans.append((at, at + len(row[_FORM])))
        at = spans[-1][1]
    heads, relations = _tree(rows, name, text)
    return Sentence(text, tuple(row[_FORM] for row in rows), tuple(spans), tuple(row[_TAG] for row in rows), heads, relations)


def _tree(rows: list[list[str]], name: str, text: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Heads and relations; empty where a row has none. Raises CorruptFile for what is no tree."""
    if not all(len(row) > _RELATION and row[_HEAD].isdigit() for row in rows):
        return (), ()
    heads = tuple(int(row[_HEAD]) - 1 for row in rows)
    for word in range(len(rows)):
        for _ in range(len(rows)):
            word = heads[word] if -1 <= heads[word] < len(rows) else len(rows)
            if word in (-1, len(rows)):
                break
        if word != -1:
            raise CorruptFile(name, "with a tree over each sentence's words", f"the heads of {text[:60]!r} make none")
    return heads, tuple(row[_RELATION].partition(":")[0] for row in rows)
