"""Parts of words: every text can be read, case is dropped, places are the text's own, and the same texts give the same tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import BadValue
from workbench.data.subwords import subwords
from workbench.data.text import tokenizer_from_json
from workbench.data.whole_words import CONTROL

TEXTS = ["The nurse said that she was tired.", "the doctor said that the nurse was late", "naïve façade, the doctor"] * 3
TOKENIZER = subwords(TEXTS, 300)


def test_case_is_dropped_and_a_text_is_framed() -> None:
    small, large = TOKENIZER.encode("the nurse"), TOKENIZER.encode("THE Nurse")
    assert small == large
    assert TOKENIZER.pieces(small)[0] == " the"
    assert TOKENIZER.encode("said the")[-1] == small[0], "a word is the same at the start of a text"
    assert TOKENIZER.framed(small)[0] == [TOKENIZER.roles["cls"], *small, TOKENIZER.roles["sep"]]
    assert TOKENIZER.framed([7], [8]) == ([TOKENIZER.roles["cls"], 7, TOKENIZER.roles["sep"], 8, TOKENIZER.roles["sep"]], [0, 0, 0, 1, 1])
    assert TOKENIZER.mask_id not in TOKENIZER.encode("[MASK] [SEP]")
    assert TOKENIZER.vocab_size <= 300


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_is_read_and_its_tokens_cover_it(text: str) -> None:
    ids, offsets = TOKENIZER.offsets(text)
    assert ids == TOKENIZER.encode(text)
    assert not set(ids) & {TOKENIZER.roles[role] for role in CONTROL}
    covered = {at for start, end in offsets for at in range(start, end)}
    assert covered == set(range(len(text)))
    assert [start for start, _ in offsets] == sorted(start for start, _ in offsets)


def test_the_same_texts_give_the_same_tokenizer() -> None:
    assert subwords(TEXTS, 300).digest() == TOKENIZER.digest()
    assert tokenizer_from_json(TOKENIZER.to_json()).digest() == TOKENIZER.digest()
    assert subwords(TEXTS, 299).digest() != TOKENIZER.digest()
    with pytest.raises(BadValue, match="at least 261"):
        subwords(TEXTS, 260)
