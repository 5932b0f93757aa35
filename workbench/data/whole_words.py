"""A tokenizer of whole words, framed as an encoder expects it: ``[CLS] … [SEP]``, with a mask and padding."""

from __future__ import annotations

import re
from collections.abc import Iterable

from workbench.data.pretrained import PretrainedTokenizer

CONTROL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_WORD = re.compile(r"\w+|[^\w\s]+")  # what the library calls Whitespace


def whole_words(texts: Iterable[str]) -> PretrainedTokenizer:
    """One token for each word and each run of punctuation marks of ``texts``, in alphabetical order after the control tokens.

    A word that is not in ``texts`` is read as ``[UNK]``.
    """
    words = sorted({word for text in texts for word in _WORD.findall(text)})
    ids = {word: i for i, word in enumerate([*CONTROL.values(), *words])}
    added = [
        {"id": ids[word], "content": word, "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        for word in CONTROL.values()
    ]
    frame = lambda word, kind: {"SpecialToken": {"id": word, "type_id": kind}}  # noqa: E731
    text = lambda name, kind: {"Sequence": {"id": name, "type_id": kind}}  # noqa: E731
    single = [frame("[CLS]", 0), text("A", 0), frame("[SEP]", 0)]
    special = {word: {"id": word, "ids": [ids[word]], "tokens": [word]} for word in ("[CLS]", "[SEP]")}
    engine = {
        "version": "1.0", "added_tokens": added, "normalizer": None, "decoder": None, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing", "single": single, "pair": [*single, text("B", 1), frame("[SEP]", 1)], "special_tokens": special
        },
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": "[UNK]"},
    }  # fmt: skip
    return PretrainedTokenizer(engine, {role: ids[word] for role, word in CONTROL.items()})
