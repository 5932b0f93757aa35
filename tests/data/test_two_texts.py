"""A question beside a text: its frame, and marks on exactly the words that repeat."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data.two_texts import QUESTION, REPEATED, TEXT, question_and_text
from workbench.data.whole_words import whole_words

WORDS = ("who", "asked", "kim", "sam", "gate", ".", "?")
TOKENIZER = whole_words([" ".join(WORDS)])
said = st.lists(st.sampled_from(WORDS[:5]), min_size=1, max_size=6).map(" ".join)


def test_by_hand() -> None:
    ids, types = question_and_text(TOKENIZER, "who asked sam ?", "kim asked sam .", marked=True)
    assert TOKENIZER.pieces(ids) == ["[CLS]", "who", "asked", "sam", "?", "[SEP]", "kim", "asked", "sam", ".", "[SEP]"]
    assert types == [0, 0, 0, 0, 0, 0, 1, 2, 2, 1, 1]


@settings(deadline=None)
@given(said, said)
def test_marks_are_the_repeated_words_of_the_text_and_nothing_else_changes(question: str, text: str) -> None:
    plain, marked = (question_and_text(TOKENIZER, question, text, marked=each) for each in (False, True))
    assert plain[0] == marked[0]
    assert set(plain[1]) == {QUESTION, TEXT}
    first = len(question.split()) + 2
    for at, (before, after) in enumerate(zip(plain[1], marked[1], strict=True)):
        repeats = first <= at < len(plain[0]) - 1 and text.split()[at - first] in question.split()
        assert after == (REPEATED if repeats else before)
