"""A question and a text as one row of an encoder, with the words of the text that the question repeats marked."""

from __future__ import annotations

from workbench.data.pretrained import PretrainedTokenizer

QUESTION, TEXT, REPEATED = 0, 1, 2
TYPES = 3


def question_and_text(tokenizer: PretrainedTokenizer, question: str, text: str, *, marked: bool) -> tuple[list[int], list[int]]:
    """The ids of both in the tokenizer's frame for two texts, and each token's type: ``QUESTION`` or ``TEXT``, and where ``marked`` is true
    ``REPEATED`` for a token of the text that the question has too (the exact-match feature of Chen, Fisch, Weston and Bordes, ACL 2017,
    section 3.2). Which words repeat is then read and need not be found out; what stands around them still is."""
    asked, read = tokenizer.encode(question), tokenizer.encode(text)
    ids, types = tokenizer.framed(asked, read)
    if not marked:
        return ids, types
    repeated = set(asked)
    return ids, [REPEATED if kind == TEXT and token in repeated else kind for token, kind in zip(ids, types, strict=True)]
