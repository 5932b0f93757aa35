"""Tokenizers are exactly reversible, text never becomes a control token, and rows hold what was put in."""

import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue, CorruptFile, UnknownName
from workbench.core.protocol import Tokenizer
from workbench.data.text import CONTROL, BPETokenizer, CharTokenizer, ContiguousRows, PackedRows, _packed, tokenizer_from_json
from workbench.data.worlds.town import Town, TownSpec

TOWN = Town(TownSpec.parse({"documents": 3_000, "secrets": (3,)}))
TEXTS = TOWN.texts()
BPE = BPETokenizer.train([*TEXTS, "naïve façade – 東京 🙂🙃 " * 20, "write <|bos|> or <|eos|> or <|pad|> here " * 20], 900)
anything = st.one_of(
    st.text(),
    st.lists(st.one_of(st.sampled_from([*CONTROL, "<|", "|>", " the", "🙂", "\n\n", "  "]), st.text(max_size=4))).map("".join),
)


# --- tokenizers -----------------------------------------------------------------------------------------------


@given(anything)
def test_round_trip(text: str):
    ids = BPE.encode(text)
    assert BPE.decode(ids) == text
    assert "".join(BPE.pieces(ids)) == text
    assert BPE.decode(BPE.encode(text, bos=True)) == text


@given(anything)
def test_no_text_becomes_a_control_token(text: str):
    control = {BPE.bos_id, BPE.eos_id, BPE.pad_id}
    assert len(control) == 3
    assert not control & set(BPE.encode(text))
    assert not control & set(BPE.encode_batch([text])[0])


@pytest.mark.parametrize("spelling", CONTROL)
def test_a_control_token_spelt_out_is_text(spelling: str):
    ids = BPE.encode(f"say {spelling} now")
    assert max(ids) < BPE.bos_id
    assert BPE.decode(ids) == f"say {spelling} now"


@given(anything)
def test_offsets_cover_the_text(text: str):
    ids, spans = BPE.offsets(text)
    assert ids == BPE.encode(text)
    assert len(ids) == len(spans)
    at = 0  # the slow twin: byte by byte
    char_of = [i for i, c in enumerate(text) for _ in c.encode()]
    for i, (start, end) in zip(ids, spans, strict=True):
        width = len(BPE._bytes[i])
        assert (start, end) == (char_of[at], char_of[at + width - 1] + 1)
        at += width
    assert at == len(char_of)


def merged_slowly(word: str) -> list[str]:
    """BPE as the paper says it: again and again join the pair that was learned first."""
    rank = {pair: i for i, pair in enumerate(BPE._merges)}
    parts = list(word)
    while True:
        ranks = [rank.get(pair, len(rank)) for pair in itertools.pairwise(parts)]
        if not ranks or min(ranks) == len(rank):
            return parts
        at = ranks.index(min(ranks))
        parts[at : at + 2] = ["".join(parts[at : at + 2])]


@given(st.sampled_from(TEXTS))
@settings(max_examples=40)
def test_merges_are_applied_in_the_order_learned(text: str):
    words = [w for w, _ in BPE._engine.pre_tokenizer.pre_tokenize_str(text)]  # type: ignore[union-attr]  # it is set
    assert [BPE._tokens[i] for i in BPE.encode(text)] == [part for word in words for part in merged_slowly(word)]


@given(st.lists(anything, min_size=1, max_size=6))
def test_batches_encode_alike(texts: list[str]):
    assert BPE.encode_batch(texts) == [BPE.encode(t) for t in texts]


def test_a_town_word_is_one_token():
    tokenizer = BPETokenizer.train(TOWN.texts(), 1024)
    split = Counter(w.text for d in TOWN.documents() for w in d.words[1:] if len(tokenizer.encode(f" {w.text}")) > 1)
    assert set(split) <= {".", ",", ":"}  # which follow without a space
    assert tokenizer.vocab_size == 1024


def test_training_is_deterministic_and_counts_control_tokens():
    one, two = BPETokenizer.train(TEXTS, 600), BPETokenizer.train(list(TEXTS), 600)
    assert one.vocab_size == 600 == one.pad_id + 1
    assert one.to_json() == two.to_json()
    assert BPETokenizer.train(["a"], 600).vocab_size == 259  # nothing occurs twice
    with pytest.raises(BadValue, match="vocab_size is 258, but it must be at least 259"):
        BPETokenizer.train(TEXTS, 258)


def test_pieces_show_control_tokens_and_broken_characters():
    ids = [BPE.bos_id, *BPE.encode("hi"), BPE.eos_id]
    assert BPE.pieces(ids)[0] == "<|bos|>"
    assert BPE.pieces(ids)[-1] == "<|eos|>"
    assert BPE.decode(ids) == "hi"
    half = BPE._tokens.index(next(c for c, b in _byte_items() if b == 0xE6))  # first byte of a three-byte character
    assert BPE.decode([half]) == "\ufffd" == "".join(BPE.pieces([half]))
    assert BPE.pieces([half, BPE.eos_id])[-1] == "\ufffd<|eos|>"


def _byte_items():
    return [(token, raw[0]) for token, raw in zip(BPE._tokens, BPE._bytes, strict=True) if len(raw) == 1]


@pytest.mark.parametrize("tokenizer", [BPE, CharTokenizer.of("hello world")])
def test_json_round_trip_and_dispatch(tokenizer: BPETokenizer | CharTokenizer):
    again = tokenizer_from_json(tokenizer.to_json())
    assert type(again) is type(tokenizer)
    assert again.digest() == tokenizer.digest()
    assert again.encode("hello") == tokenizer.encode("hello")
    assert isinstance(again, Tokenizer)


def test_every_error_of_the_tokenizers():
    with pytest.raises(BadValue, match="without lone surrogates"):
        BPE.encode("a\ud800")
    with pytest.raises(BadValue, match="token id is 900"):
        BPE.decode([900])
    with pytest.raises(BadValue, match="token id is -1"):
        BPE.pieces([-1])
    with pytest.raises(CorruptFile, match="should be JSON"):
        tokenizer_from_json("{")
    with pytest.raises(CorruptFile, match="a JSON object"):
        tokenizer_from_json("[]")
    with pytest.raises(UnknownName, match="no tokenizer type 'bqe'.*'bpe'"):
        tokenizer_from_json('{"type": "bqe"}')
    with pytest.raises(CorruptFile, match="format 1, with alphabet"):
        tokenizer_from_json('{"type": "char", "format": 2, "alphabet": ["a"]}')
    with pytest.raises(BadValue, match="256 bytes among them"):
        BPETokenizer(["a"], [])


def test_characters():
    tokenizer = CharTokenizer.of("to be or not to be")
    assert tokenizer.vocab_size == 7
    assert tokenizer.decode(tokenizer.encode("to be")) == "to be"
    assert tokenizer.offsets("ore") == ([4, 5, 2], [(0, 1), (1, 2), (2, 3)])
    assert tokenizer.bos_id is None
    with pytest.raises(UnknownName, match="no character 'x' in this tokenizer's alphabet .position 3 of the text"):
        tokenizer.encode("to x")
    with pytest.raises(BadValue, match="no begin token"):
        tokenizer.encode("to", bos=True)
    with pytest.raises(BadValue, match="within 0 to 6"):
        tokenizer.decode([7])
    with pytest.raises(BadValue, match="distinct single characters"):
        CharTokenizer(["a", "a"])


# --- packed rows ----------------------------------------------------------------------------------------------


def unpacked(rows: PackedRows) -> list[tuple[list[int], list[int]]]:
    """Every segment's inputs and targets, found place by place."""
    batch = rows.batch(range(len(rows)))
    assert batch.segments is not None
    assert batch.positions is not None
    found: dict[tuple[int, int], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for row in range(len(rows)):
        for at in range(rows.length):
            segment = int(batch.segments[row, at])
            if segment < 0:
                assert int(batch.tokens[row, at]) == BPE.pad_id
                assert int(batch.targets[row, at]) == IGNORE
                assert int(batch.positions[row, at]) == 0
                continue
            tokens, targets = found[row, segment]
            assert int(batch.positions[row, at]) == len(tokens)
            tokens.append(int(batch.tokens[row, at]))
            targets.append(int(batch.targets[row, at]))
    return list(found.values())


@pytest.mark.parametrize("length", [40, 64])
def test_packed_rows_hold_every_document_once(length: int):
    texts = TEXTS[:400]
    rows = PackedRows(texts, BPE, length)
    segments = unpacked(rows)
    assert rows.cut == 0
    assert Counter(BPE.decode(tokens) for tokens, _ in segments) == Counter(texts)
    for tokens, targets in segments:
        assert tokens[0] == BPE.bos_id
        assert targets[-1] == BPE.eos_id
        assert tokens[1:] == targets[:-1]
    assert rows.predicted == sum(len(BPE.encode(t)) + 1 for t in texts)
    assert rows.predicted > 0.9 * len(rows) * length  # little padding


def test_long_documents_are_cut_without_losing_a_target():
    texts = ["alpha beta gamma delta epsilon " * 12, "short one", ""]
    rows = PackedRows(texts, BPE, 16)
    assert rows.cut == 1
    targets = [t for _, part in unpacked(rows) for t in part]
    assert Counter(targets) == Counter(i for t in texts for i in (*BPE.encode(t), BPE.eos_id))
    assert sum(tokens[0] == BPE.bos_id for tokens, _ in unpacked(rows)) == 3


def best_fit_slowly(lengths: list[int], room: int) -> list[tuple[int, int]]:
    """The fullest row that has room; among equals the one that came to its present fill last."""
    rows: list[list[int]] = []  # [used, when it was last changed]
    out = []
    for now, length in enumerate(lengths):
        fitting = [i for i, (used, _) in enumerate(rows) if room - used >= length and used < room]
        row = max(fitting, key=lambda i: tuple(rows[i])) if fitting else len(rows)
        if row == len(rows):
            rows.append([0, now])
        out.append((row, rows[row][0]))
        rows[row] = [rows[row][0] + length, now]
    return out


@given(st.integers(2, 30).flatmap(lambda room: st.tuples(st.just(room), st.lists(st.integers(1, room), max_size=60))))
def test_packing_equals_the_slow_search(case: tuple[int, list[int]]):
    room, lengths = case
    assert list(_packed(lengths, room)) == best_fit_slowly(lengths, room)


def test_packed_batches_and_digests():
    rows = PackedRows(TEXTS[:200], BPE, 48)
    again = PackedRows(TEXTS[:200], BPE, 48)
    batch = rows.batch([3, 1])
    assert batch.tokens.dtype == torch.int64
    assert batch.tokens.shape == (2, 48)
    assert torch.equal(batch.tokens[1], rows.batch([1]).tokens[0])
    assert rows.digest() == again.digest()
    assert rows.digest() != PackedRows(TEXTS[1:201], BPE, 48).digest()
    assert rows.digest() != PackedRows(TEXTS[:200], BPE, 47).digest()


def test_every_error_of_packed_rows():
    with pytest.raises(BadValue, match="length is 1"):
        PackedRows(TEXTS[:3], BPE, 1)
    with pytest.raises(BadValue, match="at least one document"):
        PackedRows([], BPE, 8)
    rows = PackedRows(TEXTS[:3], BPE, 64)
    for wrong in ([], [-1], [len(rows)]):
        with pytest.raises(BadValue, match="row indices"):
            rows.batch(wrong)


# --- windows --------------------------------------------------------------------------------------------------


def test_windows_are_windows_and_each_depends_on_its_number_alone():
    ids = np.arange(1000) * 3
    rows, more = ContiguousRows(ids, 32, rows=50, seed=7), ContiguousRows(ids, 32, rows=500, seed=7)
    batch = rows.batch(range(50))
    assert torch.equal(batch.targets[:, :-1], batch.tokens[:, 1:])
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        start = int(tokens[0]) // 3
        assert tokens.tolist() == ids[start : start + 32].tolist()
        assert targets.tolist() == ids[start + 1 : start + 33].tolist()
    assert torch.equal(more.batch(range(50)).tokens, batch.tokens)
    assert not torch.equal(ContiguousRows(ids, 32, rows=50, seed=8).batch(range(50)).tokens, batch.tokens)
    assert rows.digest() != more.digest()
    assert rows.digest() == ContiguousRows(ids.tolist(), 32, rows=50, seed=7).digest()


def test_windows_begin_everywhere():
    starts = ContiguousRows(np.arange(100), 90, rows=4000, seed=0).batch(range(4000)).tokens[:, 0]
    assert set(starts.tolist()) == set(range(10))
    assert torch.bincount(starts).min() > 300


@given(st.integers(2, 200), st.integers(1, 50))
def test_side_by_side_windows_predict_each_token_once(n: int, length: int):
    if n <= length:
        with pytest.raises(BadValue, match="length is"):
            ContiguousRows(range(n), length)
        return
    rows = ContiguousRows(range(n), length)
    targets = rows.batch(range(len(rows))).targets.flatten().tolist()
    assert targets == list(range(1, n - rows.left_out))
    assert rows.left_out < length


def test_windows_of_a_text():
    tokenizer = CharTokenizer.of("abc ")
    rows = ContiguousRows.of("abc abc abc", tokenizer, 4)
    assert [tokenizer.decode(r.tolist()) for r in rows.batch([0, 1]).tokens] == ["abc ", "abc "]
    with pytest.raises(BadValue, match="together with a seed"):
        ContiguousRows.of("abc abc abc", tokenizer, 4, rows=3)
    with pytest.raises(BadValue, match="rows is 0"):
        ContiguousRows.of("abc abc abc", tokenizer, 4, rows=0, seed=1)
