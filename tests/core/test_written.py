"""Files that people write by hand are read, or refused in a sentence that says what was found."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.core.errors import CorruptFile
from workbench.core.written import fields_in, text_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"), ("# only a remark", "it is empty"), ("- 1", "it holds a list"), ("seven", "it holds a text without fields"),
        ("7", "it holds a number"), ("yes", "it holds a truth value"), ("a: [", "it is not: while parsing"), ("2026-01-02", "one value"),
    ],
)  # fmt: skip
def test_what_has_no_fields_is_named_for_what_it_is(text: str, words: str) -> None:
    with pytest.raises(CorruptFile, match=r"'p\.yaml' should be a YAML file") as caught:
        fields_in(text, "p.yaml", "a plan")
    assert words in str(caught.value)
    assert not any(word in str(caught.value) for word in ("NoneType", "unicode string"))


def test_fields_and_text_are_read_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("name: größer\nn: 3\n", encoding="utf-8")
    assert fields_in(text_of(tmp_path / "p.yaml", "a plan file"), "p.yaml", "a plan") == {"name": "größer", "n": 3}


def test_a_folder_and_what_is_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="should be a plan file, but it is a folder"):
        text_of(tmp_path, "a plan file")
    (tmp_path / "p.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(CorruptFile, match="should be a plan file in UTF-8, but byte 6 is none"):
        text_of(tmp_path / "p.yaml", "a plan file")
