"""A tokenizer of whole words, framed as an encoder expects it: ``[CLS] … [SEP]``, with a mask and padding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from workbench.data.pretrained import PretrainedTokenizer

CONTROL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_WORD = re.compile(r"\w+|[^\w\s]+")  # what the library calls Whitespace


def whole_words(texts: Iterable[str]) -> PretrainedTokenizer:
    """One token for each word and each run of punctuation marks of ``texts``, in alphabetical order after the control tokens.

    A word that is not in ``texts`` is read as ``[UNK]``.
    """
    words = sorted({word for text in texts for word in _WORD.findall(text)})
    ids = {word: i for i, word in enumerate([*CONTROL.values(), *words])}
    engine = {
        "version": "1.0", "normalizer": None, "decoder": None, "pre_tokenizer": {"type": "Whitespace"}, **template(ids),
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": "[UNK]"},
    }  # fmt: skip
    return PretrainedTokenizer(engine, {role: ids[word] for role, word in CONTROL.items()})


def template(ids: Mapping[str, int]) -> dict[str, Any]:
    """The parts of a description that say what the control tokens are (``ids`` by spelling) and that a text stands between ``[CLS]`` and
    ``[SEP]``, a second one before another ``[SEP]``."""
    added = [
        {"id": ids[word], "content": word, "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        for word in CONTROL.values()
    ]
    frame = lambda word, kind: {"SpecialToken": {"id": word, "type_id": kind}}  # noqa: E731
    text = lambda name, kind: {"Sequence": {"id": name, "type_id": kind}}  # noqa: E731
    single = [frame("[CLS]", 0), text("A", 0), frame("[SEP]", 0)]
    special = {word: {"id": word, "ids": [ids[word]], "tokens": [word]} for word in ("[CLS]", "[SEP]")}
    pair = [*single, text("B", 1), frame("[SEP]", 1)]
    return {
        "added_tokens": added,
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special},
    }
