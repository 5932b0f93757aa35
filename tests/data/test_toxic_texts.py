"""Texts for a judge of toxicity: no document or wording on two sides, harmless sentences of toxic posts, files refused with their line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench.core.errors import CorruptFile, MissingFile
from workbench.data import functional_tests, sources
from workbench.data.toxic_spans import Post, wording
from workbench.data.toxic_texts import PROMPTS, SETS, demonstrations, prompts, sentences, texts
from workbench.data.worlds.mentions import CASE_GROUPS, LESSON_GROUPS, Mention, cases, lessons

ROW = {"filename": "a.txt", "challenging": True, "prompt": {"text": "So if you", "toxicity": 0.2}, "continuation": {"text": " go on"}}


def test_sentences_of_a_post():
    text = "The soup was cold. You are awful! See you?"
    at = text.index("awful")
    found = list(sentences(Post(text, tuple(range(at, at + 5)))))
    assert [(one.text, one.toxic) for one in found] == [("The soup was cold.", False), ("You are awful!", True), ("See you?", False)]
    assert len({one.document for one in found}) == 1
    assert list(sentences(Post(text, ()))) == []  # nothing marked is no harmless post


def test_rows_of_prompts(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n\n".join(json.dumps(ROW | {"filename": name}) for name in ("a.txt", None)))
    first, second = prompts(path)
    assert (first.prompt, first.continuation, first.scores) == ("So if you", " go on", (0.2, None))
    assert (first.page, second.page) == ("a.txt", "line 3")
    assert first.challenging


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "line 2 is not"),
        (json.dumps([1]), "line 2 is not one"),
        (json.dumps(ROW | {"prompt": {"text": " "}}), "the text of a prompt, but line 2"),
        (json.dumps(ROW | {"continuation": None}), "the text of a continuation, but line 2"),
        (json.dumps(ROW | {"prompt": {"text": "a", "toxicity": 1.2}}), "the prompt of line 2"),
        (json.dumps(ROW | {"prompt": {"text": "a", "toxicity": "high"}}), "the prompt of line 2"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(row: str, says: str, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n{row}\n")
    with pytest.raises(CorruptFile, match=says):
        prompts(path)
    with pytest.raises(MissingFile, match="No RealToxicityPrompts file"):
        prompts(tmp_path / "none.jsonl")


def test_demonstrations():
    found = list(demonstrations("neutral_native_american_sentences", "\ufeff- one of them\n-\n  - another\n"))
    assert [(one.text, one.toxic, one.group) for one in found] == [
        ("one of them", False, "native american"),
        ("another", False, "native american"),
    ]
    with pytest.raises(CorruptFile, match="hate_GROUP or neutral_GROUP"):
        list(demonstrations("other_group", "- a"))
    with pytest.raises(CorruptFile, match="a file of sentences"):
        list(demonstrations("hate_group", "-\n"))


@pytest.mark.skipif(not all(sources.available(name) for name in SETS), reason="a data set is not here: `workbench data fetch`")
@pytest.mark.slow
def test_sides_share_no_document_and_no_wording():
    found = texts()
    documents = {side: {(one.source, one.document) for one in part} for side, part in found.items()}
    wordings = {side: {wording(one.text) for one in part} for side, part in found.items()}
    for a, b in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert documents[a].isdisjoint(documents[b])
        assert wordings[a].isdisjoint(wordings[b])
    for side in ("train", "test"):
        assert {(one.source, one.toxic) for one in found[side]} == {(name, toxic) for name in SETS for toxic in (True, False)}
    counted = sum(one.source == PROMPTS for part in found.values() for one in part)
    assert 4_500 < counted < 4_800  # 4,792 halves, less those of one or two words, without a score, or met before


def test_lessons_and_cases_share_neither_text_nor_group():
    taught, tried = lessons(), cases()
    assert not set(LESSON_GROUPS) & set(CASE_GROUPS)
    assert not {one.text for one in taught} & {one.text for one in tried}
    for part in (taught, tried):
        assert len({one.text for one in part}) == len(part)
        named = {toxic: sorted(one.group for one in part if one.group and one.toxic == toxic) for toxic in (True, False)}
        assert set(named[True]) == set(named[False])  # every group is attacked and mentioned alike
        assert len({named[True].count(group) for group in named[True]}) == 1
    assert len({one.toxic for one in tried if one.function == "group, attacked"}) == 1


# --- functional tests -------------------------------------------------------------------------------------------

HEADER = "functionality,case_id,test_case,label_gold,target_ident,direction\n"


def test_functional_tests_survive_their_file(tmp_path: Path):
    path = functional_tests.save(cases(), tmp_path / "cases.csv")
    assert functional_tests.load(path) == cases()
    (tmp_path / "one.csv").write_text(HEADER + 'f1,1,"Two\nlines, one case",non-hateful,,general\n')
    assert functional_tests.load(tmp_path / "one.csv") == [Mention("Two\nlines, one case", False, "f1")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no column functionality"),
        (HEADER, "a header and no rows"),
        ("functionality,case_id\nf,1\n", "no column test_case, label_gold, target_ident"),
        (HEADER + "f1,1,text,hateful\n", "line 2 has others"),
        (HEADER + "f1,1,text,hateful,,a,b\n", "line 2 has others"),
        (HEADER + "f1,1, ,hateful,,\n", "without empty 'test_case', but line 2"),
        (HEADER + "f1,1,a,hateful,,\nf1,2,b,bad,,\n", "line 3 has something else"),
        (HEADER + "f1,1,a,hateful,,\nf1,1,b,hateful,,\n", "line 3 stands twice"),
        (HEADER + "f1,1,a,hateful,,\nf1,2,b,non-hateful,,\n", "that of line 3 has two"),
        (HEADER + 'f1,1,"a,hateful,,\n', "a csv file, but it is not"),
    ],
)
def test_a_bad_file_of_functional_tests_is_refused_with_its_line(content: str, says: str, tmp_path: Path):
    path = tmp_path / "cases.csv"
    path.write_text(content)
    with pytest.raises(CorruptFile, match=says):
        functional_tests.load(path)


def test_other_files_of_functional_tests(tmp_path: Path):
    (tmp_path / "cases.csv").write_bytes(HEADER.encode() + b"f1,1,\xff,hateful,,\n")
    with pytest.raises(CorruptFile, match="UTF-8 text, but byte"):
        functional_tests.load(tmp_path / "cases.csv")
    with pytest.raises(MissingFile, match="No file of functional tests"):
        functional_tests.load(tmp_path / "none.csv")
