"""A table given on a page: its kind and size are checked, its columns are named and never rendered, and what is kept can be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evals.own_task.file import read
from workbench.core.errors import AssayError, BadValue, UnknownName
from workbench.lab import own

CSV = b"question,answer,who\nIs the sky blue?,yes,a\nIs {{ 7*7 }} red?,no,b\n"


def kept(home: Path, **changes: Any) -> tuple[own.Table, Path]:
    table = own.keep_table(home, "Questions.CSV", CSV)
    told: dict[str, Any] = {"output": "multiple_choice", "question": "question", "target": "answer", "listed": "yes, no"}
    return table, own.task_of(table, "mine", **{**told, **changes})


def test_a_table_becomes_a_task_whose_first_questions_are_its_rows(tmp_path: Path) -> None:
    table, file = kept(tmp_path, subgroup="who")
    first = own.first_questions(table, file)
    assert [one.context for one in first] == ["Is the sky blue?", "Is {{ 7*7 }} red?"], "a cell is text and stays text"
    assert first[1].choices[first[1].right[0]] == "no"
    assert read(file).subgroup == "who"
    assert table.file.parent == tmp_path / own.PLACE
    assert "Questions" not in table.file.name, "no name that was given becomes a path"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.exe", CSV, "ends in '.exe'"),
        ("../../a.csv/..", CSV, "ends in"),
        ("a.csv", b"", "from 1 to 1,000,000"),
        ("a.csv", b"x" * 1_000_001, "1,000,001 bytes"),
        ("a.csv", b"a,b\n\xff\xfe,1\n", "UTF-8 text"),
        ("a.jsonl", b'{"a": 1}\nno json\n', "a.*line 2|line 2"),
        ("a.json", b'{"a": 1}', "a json list of objects"),
        ("a.csv", b"a,b\n", "at least one row"),
    ],
)
def test_what_is_no_such_table_is_a_sentence_and_is_not_kept(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    with pytest.raises(AssayError, match=words):
        own.keep_table(tmp_path, name, content)
    assert not list(tmp_path.rglob("*.csv")) + list(tmp_path.rglob("*.jsonl")) + list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"question": "{{ answer }}"}, "column"),
        ({"target": "nothing"}, "column"),
        ({"cluster": "nothing"}, "column"),
        ({"choices": "nothing"}, "column"),
        ({"output": "sum"}, "kind of answer"),
        ({"listed": ""}, "doc_to_choice"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises((UnknownName, BadValue), match=words):
        kept(tmp_path, **changes)
    with pytest.raises(BadValue, match="small letters"):
        own.task_of(
            own.keep_table(tmp_path, "a.csv", CSV), "../x", "multiple_choice", question="question", target="answer", listed="yes, no"
        )
