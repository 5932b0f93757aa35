"""Our tokenizers in the published form: the published library reads a text as the same ids, and writes ids as the same text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engine.models import words
from workbench.core.errors import BadValue
from workbench.core.protocol import Tokenizer
from workbench.data.pretrained import PretrainedTokenizer
from workbench.data.text import CharTokenizer
from workbench.data.tokenizer_files import tokenizer_files

transformers = pytest.importorskip("transformers")

TEXTS = ("the cat sat on the mat", "  two  spaces,\na line; naïve 猫 🐈", "x", "don't I'll 1234")


def opened(tokenizer: Tokenizer, folder: Path, *, begin: bool = True) -> Any:
    for name, text in tokenizer_files(tokenizer, begin=begin).items():
        (folder / name).write_text(text, encoding="utf-8")
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("begin", [True, False])
def test_byte_pairs_are_the_same_there(tmp_path: Path, begin: bool) -> None:
    ours = words()
    theirs = opened(ours, tmp_path, begin=begin)
    assert len(theirs) == ours.vocab_size
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (ours.bos_id, ours.eos_id, ours.pad_id)
    for text in TEXTS:
        ids = theirs(text).input_ids
        assert ids == ours.encode(text, bos=begin)
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids) == text
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == ours.eos_id
    again = PretrainedTokenizer.from_folder(tmp_path)  # what comes in again reads no control token out of a text
    assert [again.encode(text) for text in TEXTS] == [ours.encode(text) for text in TEXTS]
    assert (again.bos_id, again.vocab_size) == (ours.bos_id, ours.vocab_size)


def test_characters_are_the_same_there_and_others_are_no_token(tmp_path: Path) -> None:
    ours = CharTokenizer.of("the cat\nsat, 猫")
    theirs = opened(ours, tmp_path)
    for text in ("the cat", "sat\n猫,,  e"):
        assert theirs(text).input_ids == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    with pytest.raises(Exception, match="UNK"):
        theirs("z")
    again = PretrainedTokenizer.from_folder(tmp_path)
    assert again.encode_batch(["the cat", "e"]) == [ours.encode("the cat"), ours.encode("e")]
    for call in (lambda: again.encode("the zoo"), lambda: again.encode_batch(["the", "the zoo"])):
        with pytest.raises(BadValue, match="text is 'the zoo', but it must be of what is in this vocabulary"):
            call()
    assert not (tmp_path / "generation_config.json").exists()


def test_a_published_tokenizer_comes_out_as_it_came_in(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    opened(words(), tmp_path / "one")
    ours = PretrainedTokenizer.from_folder(tmp_path / "one")
    theirs = opened(ours, tmp_path / "two", begin=False)  # its own template stays
    again = PretrainedTokenizer.from_folder(tmp_path / "two")
    assert again.digest() == ours.digest()
    assert theirs("the cat").input_ids == words().encode("the cat", bos=True)


def test_a_tokenizer_of_another_kind_has_no_files() -> None:
    class Other:
        pass

    other: Any = Other()
    assert tokenizer_files(other, begin=True) == {}
