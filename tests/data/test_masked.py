"""Masked rows: how many are hidden and how, drawn by row alone, so that a training continues with what it would have read."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue
from workbench.data.masked import MaskedRows, Masking, side_by_side
from workbench.data.pretrained import PretrainedTokenizer
from workbench.data.text import tokenizer_from_json
from workbench.data.whole_words import whole_words
from workbench.families.bert import BERT, BERTConfig
from workbench.training.loop import train
from workbench.training.spec import TrainSpec

TEXTS = [" ".join(f"w{(i * 7 + j) % 50}" for j in range(5 + i % 30)) + "." for i in range(40)]
TOKENIZER = whole_words(TEXTS)


def test_words_are_whole_and_framed() -> None:
    tokenizer = whole_words(["the cat, the dog.", "yes: a cat"])
    ids = tokenizer.encode("the dog: the bird, yes.")
    assert tokenizer.pieces(ids) == ["the", "dog", ":", "the", "[UNK]", ",", "yes", "."]
    assert tokenizer.framed(ids)[0] == [tokenizer.roles["cls"], *ids, tokenizer.roles["sep"]]
    assert tokenizer.framed([7], [8])[1] == [0, 0, 0, 1, 1]
    assert tokenizer.vocab_size == 5 + 8
    assert tokenizer.mask_id not in tokenizer.encode("[MASK]")
    assert tokenizer_from_json(tokenizer.to_json()).digest() == tokenizer.digest()
    assert whole_words(["yes: a cat", "the cat, the dog."]).digest() == tokenizer.digest()


def test_shares_are_the_papers() -> None:
    rows = MaskedRows.of(TEXTS, TOKENIZER, seed=0, count=40 * 200)
    chosen = hidden = kept = text = other = 0
    for number in range(len(rows)):
        shown, targets = rows.masked(number)
        whole, places = rows.whole(number), np.flatnonzero(rows.masked(number)[1] != IGNORE)
        assert np.array_equal(np.delete(shown, places), np.delete(whole, places)), "what is not predicted is shown as it is"
        assert np.array_equal(targets[places], whole[places])
        assert len(places) == max(1, round(0.15 * (len(whole) - 2)))
        assert not {0, len(whole) - 1} & set(places.tolist()), "control tokens are never hidden"
        chosen, text = chosen + len(places), text + len(whole) - 2
        hidden += int((shown[places] == rows.mask_id).sum())
        kept += int((shown[places] == whole[places]).sum())
        other += int(((shown[places] != rows.mask_id) & (shown[places] != whole[places])).sum())
    assert chosen / text == pytest.approx(0.15, abs=0.01)
    assert hidden / chosen == pytest.approx(0.8, abs=0.01)
    assert kept / chosen == pytest.approx(0.1 + 0.1 / 51, abs=0.01)
    assert other / chosen == pytest.approx(0.1 - 0.1 / 51, abs=0.01)


def test_random_tokens_are_ordinary_and_every_one_comes() -> None:
    rows = MaskedRows.of(TEXTS, TOKENIZER, seed=0, count=4000, masking=Masking(share=1.0, as_mask=0.0, as_random=1.0))
    seen = {int(i) for number in range(len(rows)) for i in rows.masked(number)[0][1:-1]}
    assert seen == set(range(5, TOKENIZER.vocab_size)), "neither a control token nor the unknown one"


def test_a_row_comes_again_under_another_mask() -> None:
    rows = MaskedRows.of(TEXTS, TOKENIZER, seed=0, count=120)
    assert np.array_equal(rows.whole(7), rows.whole(47))
    assert any(not np.array_equal(rows.masked(i)[1], rows.masked(i + 40)[1]) for i in range(40))
    again = MaskedRows.of(TEXTS, TOKENIZER, seed=0, count=120)
    assert all(np.array_equal(a, b) for i in range(120) for a, b in zip(rows.masked(i), again.masked(i), strict=True))
    assert rows.digest() == again.digest()
    for other in (
        MaskedRows.of(TEXTS, TOKENIZER, seed=1, count=120),
        MaskedRows.of(TEXTS, TOKENIZER, seed=0, count=121),
        MaskedRows.of(TEXTS[1:], TOKENIZER, seed=0, count=120),
        MaskedRows.of(TEXTS, TOKENIZER, seed=0, count=120, masking=Masking(share=0.2)),
    ):
        assert other.digest() != rows.digest()


def test_a_batch_is_its_rows() -> None:
    rows = MaskedRows.of(TEXTS, TOKENIZER, seed=3)
    batch = rows.batch([4, 29, 4])
    assert batch.mask is not None
    assert batch.targets is not None
    assert torch.equal(batch.tokens[0], batch.tokens[2])
    for at, number in enumerate((4, 29, 4)):
        shown, targets = rows.masked(number)
        assert batch.tokens[at].tolist() == [*shown, *[TOKENIZER.roles["pad"]] * (batch.tokens.shape[1] - len(shown))]
        assert batch.targets[at].tolist() == [*targets, *[IGNORE] * (batch.tokens.shape[1] - len(shown))]
        assert int(batch.mask[at].sum()) == len(shown)
    assert side_by_side([([1, 2], [3, 4])], 0).mask is None
    for bad in ([], [40], [-1]):
        with pytest.raises(BadValue, match="within 0 to 39"):
            rows.batch(bad)


def test_a_training_that_is_cut_off_reads_the_same_masks(tmp_path) -> None:
    rows = MaskedRows.of(TEXTS, TOKENIZER, seed=0, count=48)
    config = BERTConfig.parse({"n_layers": 1, "d_model": 8, "n_heads": 2, "d_vocab": TOKENIZER.vocab_size, "n_ctx": rows.longest})
    spec = TrainSpec.parse({"steps": 6, "batch_rows": 8, "warmup": 1, "save_every": 2, "threads": 1})
    unbroken = train(BERT(config, TOKENIZER), rows, spec, out=tmp_path / "unbroken")

    def cut(event: str, state) -> None:
        if event == "step" and state["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(BERT(config, TOKENIZER), rows, spec, out=tmp_path / "cut", callbacks=[cut])
    resumed = train(BERT(config, TOKENIZER), MaskedRows.of(TEXTS, TOKENIZER, seed=0, count=48), spec, out=tmp_path / "cut")
    assert resumed["resumed_from"] == 4
    assert resumed["weights"] == unbroken["weights"]
    with pytest.raises(BadValue, match="another training data"):
        train(BERT(config, TOKENIZER), MaskedRows.of(TEXTS, TOKENIZER, seed=1, count=48), spec, out=tmp_path / "cut")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Masking(share=0.0), "above 0"),
        (lambda: Masking(as_mask=0.8, as_random=0.3), "at most 1 together"),
        (lambda: MaskedRows([], TOKENIZER, seed=0), "at least one"),
        (lambda: MaskedRows([[2, 3]], TOKENIZER, seed=0), "token of text"),
        (lambda: MaskedRows([[2, 7, 3]], TOKENIZER, seed=0, count=0), "at least 1"),
    ],
)
def test_bad_input(make, words: str) -> None:
    with pytest.raises(BadValue, match=words):
        make()


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    roles = {role: i for role, i in TOKENIZER.roles.items() if role != "mask"}
    with pytest.raises(BadValue, match="mask and pad"):
        MaskedRows.of(TEXTS, PretrainedTokenizer(json.loads(TOKENIZER.to_json())["engine"], roles), seed=0)
