"""One JSON object a line: each with its number, and what is none refused with file and line, never with the text."""

import pytest

from workbench.core.errors import CorruptFile
from workbench.data.json_lines import objects


def test_objects_come_with_the_numbers_of_their_lines() -> None:
    content = b'\xef\xbb\xbf{"a": 1}\n\n  \n{"a": "\xc3\xa4"}\r\n'
    assert list(objects("f", content, do="")) == [(1, {"a": 1}), (4, {"a": "ä"})]


def test_a_separator_within_a_text_ends_no_line() -> None:
    row = '{"a": "one\u2028two\u0085three\x1c"}'.replace("\x1c", "\\u001c")
    assert list(objects("f", f"{row}\n{row}".encode(), do="")) == [(n, {"a": "one\u2028two\u0085three\x1c"}) for n in (1, 2)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": 1}\n{"secret": ', "a json object a line, but line 2 is not"),
        (b'{"a": 1}\n["secret"]\n', "line 2 is not one"),
        (b'{"a": "\xff"}', "UTF-8 text, but byte 7 is not"),
        (b"\n \n", "a file of json objects, but it has none"),
        (b'{"a": ' + b"9" * 5000 + b"}", "line 1 is not"),
        (b"[" * 100_000, "line 1 is not"),
    ],
)
def test_what_is_none_is_refused_without_its_text(content: bytes, words: str) -> None:
    with pytest.raises(CorruptFile, match=words) as refused:
        list(objects("some/file", content, do="Fetch it again."))
    assert "some/file" in str(refused.value)
    assert "Fetch it again." in str(refused.value)
    assert "secret" not in str(refused.value)
