"""Published tokenizers: the published ids, no control token from text, and the same tokenizer back from a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from workbench.core.errors import BadValue, CorruptFile, MissingFile
from workbench.core.protocol import Tokenizer
from workbench.data.pretrained import PretrainedTokenizer
from workbench.data.text import tokenizer_from_json

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = ["The nurse said that she was tired.", "the doctor said that he was late", "naïve façade – 東京 [SEP] un-related"] * 3


def word_pieces() -> tokenizers.Tokenizer:
    """A small vocabulary of word pieces with the published wiring."""
    engine = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]", max_input_chars_per_word=100))
    engine.normalizer = normalizers.BertNormalizer(lowercase=True)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False))
    ids = [(word, engine.token_to_id(word)) for word in ("[CLS]", "[SEP]")]
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )  # fmt: skip
    engine.decoder = decoders.WordPiece()
    engine.enable_truncation(5)  # what a folder may say about lengths is no part of how text is read
    engine.enable_padding(length=9, pad_token="[PAD]")
    return engine


def bytes_pairs() -> tokenizers.Tokenizer:
    engine = tokenizers.Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    engine.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    engine.add_special_tokens(["<|end|>"])
    engine.post_processor = processors.ByteLevel(trim_offsets=False)
    return engine


def unigram() -> tokenizers.Tokenizer:
    """A vocabulary of pieces with scores, in which the control tokens are pieces too."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁the", -2.0), ("▁", -3.0), *((c, -5.0) for c in "abcdefghijklmnopqrst</>")]
    engine = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=2))
    engine.pre_tokenizer = pre_tokenizers.Metaspace()
    engine.decoder = decoders.Metaspace()
    engine.add_special_tokens(["<pad>", "</s>", "<unk>"])
    engine.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    return engine


def made(engine: tokenizers.Tokenizer, **roles: str) -> PretrainedTokenizer:
    ids = {role: engine.token_to_id(word) for role, word in roles.items()}
    return PretrainedTokenizer(json.loads(engine.to_str()), {role: i for role, i in ids.items() if i is not None})


ENGINES = {"word pieces": word_pieces(), "byte pairs": bytes_pairs(), "unigram": unigram()}
OURS = {
    "word pieces": made(ENGINES["word pieces"], pad="[PAD]", unk="[UNK]", cls="[CLS]", sep="[SEP]", mask="[MASK]"),
    "byte pairs": made(ENGINES["byte pairs"], bos="<|end|>", eos="<|end|>"),
    "unigram": made(ENGINES["unigram"], pad="<pad>", eos="</s>", unk="<unk>"),
}
CONTROL = [*SPECIAL, "<|end|>", "</s>", "<pad>"]
anything = st.one_of(
    st.text(max_size=12),
    st.lists(st.one_of(st.sampled_from([*CONTROL, "the ", " nurse", "é", "🙂", "["]), st.text(max_size=3))).map("".join),
)


@pytest.mark.parametrize("name", ENGINES)
def test_ids_and_frames_are_the_published_ones(name: str) -> None:
    ours, engine = OURS[name], tokenizers.Tokenizer.from_str(ENGINES[name].to_str())
    engine.no_truncation()
    engine.no_padding()
    assert isinstance(ours, Tokenizer)
    assert ours.vocab_size == engine.get_vocab_size()
    for one, two in (("the nurse was here", "he said so"), ("The Nürse said that 東京 is", ""), ("", "")):
        alone, pair = engine.encode(one), engine.encode(one, two)
        assert ours.encode(one) == engine.encode(one, add_special_tokens=False).ids
        assert ours.framed(ours.encode(one)) == (alone.ids, alone.type_ids)
        assert ours.framed(ours.encode(one), ours.encode(two)) == (pair.ids, pair.type_ids)
        bare = engine.encode(one, add_special_tokens=False)
        assert ours.offsets(one) == (bare.ids, bare.offsets)
        assert ours.decode(alone.ids) == engine.decode(bare.ids, skip_special_tokens=False)  # the unknown is shown, no control token
        assert ours.encode_batch([one, two]) == [ours.encode(one), ours.encode(two)]


@pytest.mark.parametrize("name", ENGINES)
@given(text=anything)
def test_no_text_becomes_a_control_token(name: str, text: str) -> None:
    ours = OURS[name]
    control = set(ours._control)
    assert not control & set(ours.encode(text))
    assert not control & set(ours.encode_batch([text, "the"])[0])


@pytest.mark.parametrize("name", ENGINES)
def test_the_published_engine_would_have_made_one(name: str) -> None:
    """The contract above can fail: read as published, the same texts hold control tokens."""
    found = set(ENGINES[name].encode(" ".join(CONTROL), add_special_tokens=False).ids)
    assert found & set(OURS[name]._control)


def test_a_vocabulary_that_can_only_read_a_control_token_refuses_the_text() -> None:
    engine = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1, "<e>": 2, "<?>": 3}, unk_token="<?>"))
    engine.add_special_tokens(["<e>"])
    ours = made(engine, eos="<e>")
    assert ours.encode("<e>") == [3]
    hidden = "\ue000control 2\ue000"  # how the piece is spelt inside, which whoever reads this may spell as well
    with pytest.raises(BadValue, match="can only read as the control token '<e>'"):
        ours.encode(hidden)
    with pytest.raises(BadValue, match="can only read as the control token"):
        ours.encode_batch(["a", hidden])


def test_what_is_unknown_is_no_control_token() -> None:
    ours = OURS["word pieces"]
    assert ours.encode("☃") == [ours.roles["unk"]]
    assert ours.roles["unk"] not in ours.encode("[UNK]")[:1]  # and spelling it out is text like any other
    assert ours.mask_id == ENGINES["word pieces"].token_to_id("[MASK]")
    assert ours.mask_id not in ours.encode("[MASK]")


def test_pieces() -> None:
    ours = OURS["word pieces"]
    ids, types = ours.framed(ours.encode("the nurse"))
    assert ours.pieces(ids)[0] == "[CLS]"
    assert ours.pieces(ids)[-1] == "[SEP]"
    assert "".join(ours.pieces(ours.encode("the nurse"))).replace("##", "") == "thenurse"
    assert types == [0] * len(ids)
    pairs = OURS["byte pairs"]
    for text in ("naïve – 東京 🙂", "the nurse"):
        assert "".join(pairs.pieces(pairs.encode(text))) == text == pairs.decode(pairs.encode(text))
    assert pairs.pieces([pairs.eos_id or 0]) == ["<|end|>"]
    cut = pairs.encode("🙂")[:1]
    assert "".join(pairs.pieces(cut)) == "\ufffd"


@pytest.mark.parametrize("name", ENGINES)
def test_it_survives_a_checkpoint(name: str) -> None:
    ours = OURS[name]
    again = tokenizer_from_json(ours.to_json())
    assert isinstance(again, PretrainedTokenizer)
    assert again.to_json() == ours.to_json()
    assert again.digest() == ours.digest()
    assert again.encode("the [SEP] nurse") == ours.encode("the [SEP] nurse")
    assert (again.bos_id, again.eos_id, again.pad_id, again.mask_id) == (ours.bos_id, ours.eos_id, ours.pad_id, ours.mask_id)
    assert again.framed([3], [4]) == ours.framed([3], [4])


def folder(path: Path, **files: Any) -> Path:
    path.mkdir()
    (path / "tokenizer.json").write_text(ENGINES["word pieces"].to_str(), encoding="utf-8")
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def test_a_folder(tmp_path: Path) -> None:
    given = {"pad_token": "[PAD]", "cls_token": {"content": "[CLS]", "special": True}, "unk_token": "[UNK]", "sep_token": "[SEP]"}
    ours = PretrainedTokenizer.from_folder(folder(tmp_path / "a", tokenizer_config={**given, "mask_token": "[MASK]", "bos_token": None}))
    assert ours.digest() == OURS["word pieces"].digest()
    assert PretrainedTokenizer.from_folder(folder(tmp_path / "b", special_tokens_map=given)).mask_id is None
    with pytest.raises(MissingFile, match="No published tokenizer"):
        PretrainedTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CorruptFile, match=r"tokenizer\.json' should be JSON"):
        PretrainedTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CorruptFile, match="a model with a vocabulary"):
        PretrainedTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Riddle", "vocab": {"a": 0}}}')
    with pytest.raises(CorruptFile, match="that its library reads"):
        PretrainedTokenizer.from_folder(tmp_path)


def test_every_error() -> None:
    ours = OURS["word pieces"]
    with pytest.raises(BadValue, match="without lone surrogates"):
        ours.encode("a\ud800")
    with pytest.raises(BadValue, match="bos is True, but it must be false"):
        ours.encode("a", bos=True)
    with pytest.raises(BadValue, match="token id is 999"):
        ours.decode([999])
    with pytest.raises(BadValue, match="token id is -1"):
        ours.pieces([-1])
    with pytest.raises(BadValue, match="roles is 'judge'"):
        PretrainedTokenizer(json.loads(ENGINES["unigram"].to_str()), {"judge": 1})
    with pytest.raises(BadValue, match="roles is 'pad'"):
        PretrainedTokenizer(json.loads(ENGINES["unigram"].to_str()), {"pad": 999})
    assert OURS["byte pairs"].encode("the", bos=True)[0] == OURS["byte pairs"].bos_id
