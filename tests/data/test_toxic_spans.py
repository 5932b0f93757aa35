"""Posts with marked characters: what a file may hold, what is refused without quoting it, and splits that share no wording."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import CorruptFile, MissingData
from workbench.data import sources, toxic_spans
from workbench.data.toxic_spans import Post, divided, parsed, posts, runs, splits, wording, words_of

GOOD = 'spans,text\n"[4, 5, 6]","you zog, ""you"""\n[],plain\n"[2, 0]","a\nb\u2028c"\n'
offsets = st.sets(st.integers(0, 40)).map(sorted)


def test_rows_are_read_as_they_are_written() -> None:
    found = list(parsed(GOOD))
    assert found == [Post('you zog, "you"', (4, 5, 6)), Post("plain", ()), Post("a\nb\u2028c", (0, 2))]
    assert list(parsed(GOOD.replace("\n[]", "\r\n[]"))) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "columns spans, text, but it has 0 others"),
        ("text,spans\nzog,[]\n", "columns spans, text"),
        ("spans,text\n", "holds none"),
        (GOOD[:-4], "whole file .*after row 2: unexpected end of data"),
        (GOOD[: GOOD.index("5")], "whole file .*after row 0"),
        ("spans,text\n[]\n", "row 1 has 1 columns"),
        ("spans,text\n[],zog,more\n", "row 1 has 3 columns"),
        ("spans,text\n[],\n", "or no text"),
        ("spans,text\n\n", "row 1 has 0 columns"),
        ('spans,text\n"[0, 3]",zog\n', "row 1 has 3 characters and marks number 3"),
        ("spans,text\n[-1],zog\n", "marks number -1"),
        ('spans,text\n"[0, 0]",zog\n', "row 1 names 1 again"),
        ("spans,text\n[true],zog\n", "list of integers, but those of row 1"),
        ("spans,text\n[0.0],zog\n", "list of integers"),
        ("spans,text\n3,zog\n", "list of integers"),
        ('spans,text\n"{""0"": 1}",zog\n', "list of integers"),
        ("spans,text\n[0,zog\n", "list of integers"),
        ("spans,text\n" + "[" * 100_000 + ",zog\n", "list of integers"),
        ("spans,text\n[" + "9" * 5000 + "],zog\n", "list of integers"),
        ("spans,text\n[]," + "z" * 200_000 + "\n", "field larger than field limit"),
    ],
)
def test_a_file_that_is_not_one_is_refused_without_quoting_it(text: str, says: str) -> None:
    with pytest.raises(CorruptFile, match=says) as caught:
        list(parsed(text))
    assert "zog" not in str(caught.value)
    assert len(str(caught.value)) < 300


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1), offsets), min_size=1))
def test_what_is_written_is_read_back(rows: list[tuple[str, list[int]]]) -> None:
    known = [(text, [at for at in marks if at < len(text)]) for text, marks in rows]
    quoted = [text.replace('"', '""') for text, _ in known]
    lines = [f'"{json.dumps(marks)}","{text}"' for text, (_, marks) in zip(quoted, known, strict=True)]
    assert [(post.text, list(post.toxic)) for post in parsed("\n".join(["spans,text", *lines]))] == known


@settings(deadline=None)
@given(offsets)
def test_runs_are_the_offsets_put_together(marks: list[int]) -> None:
    found = runs(marks)
    assert [at for start, end in found for at in range(start, end)] == marks
    assert all(end < start for (_, end), (start, _) in pairwise(found)), "neighbours are one run"


def test_words_are_letters_with_apostrophes_between_them() -> None:
    text = "Don’t say 'no', O'Neil_2!"
    assert [text[start:end] for start, end in words_of(text)] == ["Don’t", "say", "no", "O'Neil_2"]
    assert wording(text) == ("don’t", "say", "no", "o'neil_2")


@settings(deadline=None)
@given(st.lists(st.text("ab !", min_size=1)), st.lists(st.text("ab !", min_size=1)))
def test_no_wording_is_on_two_sides(known: list[str], held: list[str]) -> None:
    parts = divided([Post(text, ()) for text in known], [Post(text, ()) for text in held])
    train, validation = ({wording(post.text) for post in parts[name]} for name in ("train", "validation"))
    test = {wording(text) for text in held}
    assert not train & validation | train & test | validation & test
    assert sum(map(len, parts.values())) == sum(wording(text) not in test for text in known), "nothing else is left out"


def test_the_files() -> None:
    if not sources.available(toxic_spans.NAME):
        pytest.skip(str(MissingData(toxic_spans.NAME, [])))
    assert (len(posts("train")), len(posts("trial"))) == (7939, 690)
    found = splits()
    assert {name: len(part) for name, part in found.items()} == {"train": 7100, "validation": 813, "test": 690}
    assert sum(not post.toxic for post in found["test"]) == 43
    sides = [{wording(post.text) for post in part} for part in found.values()]
    assert len(set.union(*sides)) == sum(map(len, sides))
