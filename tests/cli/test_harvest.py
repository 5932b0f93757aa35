"""``workbench harvest``: from words to shards, resumed, by parts, and what cannot be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Call
from workbench.data.lines import Lines
from workbench.engine.harvest_read import Harvest

SITES = ("--sites", "blocks.*.hook_resid_post", "--sites", "hook_embed")


def test_a_file_is_harvested_by_parts_and_read_back(call: Call, trained: str, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the plumber met sam\n\nat the market\nbecause she was tired\n")
    words = ("harvest", trained, *SITES, "--data", str(text), "--set", "items_a_shard=2", "--json")
    half = call(*words, "--out", str(tmp_path / "parts"), "--part", "1/2").document
    assert (half["shards"], half["of"], half["items"]) == (1, 2, 3)
    both = call(*words, "--out", str(tmp_path / "parts"), "--part", "0/2").document
    whole = call(*words, "--out", str(tmp_path / "whole"))
    assert whole.code == 0, whole.err
    assert both["digest"] == whole.document["digest"]
    found = Harvest.open(tmp_path / "whole")
    assert [one["site"] for one in whole.document["sites"]] == list(found.sites)
    assert whole.document["sites"][0]["rows"] == found.rows("hook_embed") > 0
    assert call(*words, "--out", str(tmp_path / "whole")).document == whole.document, "whole already"
    said = call(*words[:-1], "--out", str(tmp_path / "whole")).out
    assert "3 items, 2 of 2 shards" in said
    assert found.digest() in said


def test_what_the_model_was_made_from(call: Call, trained: str, tmp_path: Path) -> None:
    said = call("harvest", trained, "--data", "own", "--out", str(tmp_path / "h"), "--set", "count=5", "--set", "cut=true", "--json")
    assert said.code == 0, said.err
    assert said.document["items"] == 5


def test_what_cannot_be_meant(call: Call, trained: str, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "h"))
    for words, sentence in (
        (("--data", "ud-english-etw"), "There is no text 'ud-english-etw'. Did you mean 'ud-english-ewt'?"),
        (("--data", "own", "--set", "cont=4"), "There is no setting 'cont' of a harvest. Did you mean 'count'"),
        (("--data", "own", "--set", "split=dev"), "There is no split 'dev' of 'own'"),
        (("--data", "own", "--part", "4/4"), "--part is '4/4'"),
        (("--data", "own", "--sites", "blocks.77.*"), "matches no site"),
    ):
        said = call("harvest", trained, *words, *out)
        assert said.code == 64, said
        assert sentence in said.err
    assert call("harvest", "family:gpt", "--data", "own", *out).code == 64
    assert not (tmp_path / "h").exists()


def test_lines_are_read_one_by_one(tmp_path: Path) -> None:
    place = tmp_path / "text.txt"
    place.write_bytes("one\r\n\n  \nzwei ü\nthree".encode())
    lines = Lines(place)
    assert list(lines) == ["one", "zwei ü", "three"]
    assert lines[1:] == ["zwei ü", "three"]
    with pytest.raises(IndexError):
        lines[3]
    place.write_bytes(b"\xff\xfe")
    with pytest.raises(Exception, match=r"text.txt' should be UTF-8, but line 0 of its text is not"):
        list(Lines(place))
    with pytest.raises(Exception, match="No text file at"):
        Lines(tmp_path / "nothing")
