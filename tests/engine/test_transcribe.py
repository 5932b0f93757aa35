"""Greedy decoding of encoder-decoders against one that runs everything anew for every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.engine.models import Wrapped
from workbench.core.batch import SequenceBatch
from workbench.core.errors import BadValue
from workbench.engine.transcribe import greedy
from workbench.families.seq2seq import Seq2Seq, Seq2SeqConfig

VOCAB, MOST, ROWS = 11, 8, 6


def model_of(seed: int = 0, dtype: torch.dtype = torch.float64, **fields: Any) -> Seq2Seq:
    """A random model whose rows differ in what they write and when they end."""
    config = Seq2SeqConfig.parse({"d_model": 16, "n_heads": 4, "d_vocab": VOCAB, "n_ctx": 16, "tied": False, **fields})
    model = Seq2Seq(config, seed=seed)
    for name, parameter in model.named_parameters():
        parameter.data.mul_(20 if parameter.ndim == 2 and "unembed" not in name else 4 if parameter.ndim == 2 else 1)
    return model.to(dtype).eval()


def batch(rows: int = ROWS) -> SequenceBatch:
    generator = torch.Generator().manual_seed(2)
    source = torch.randint(0, VOCAB, (rows, 7), generator=generator)
    lengths = torch.randint(1, 8, (rows, 1), generator=generator)
    return SequenceBatch(source, source[:, :1], mask=torch.arange(7) < lengths)


def slow(model: Seq2Seq, given: SequenceBatch, lead: Sequence[int], end: int | None, most: int) -> list[list[int]]:
    """Row by row, without padding or cache, the whole prefix anew for every token."""
    out: list[list[int]] = []
    for row in range(len(given.source)):
        length = int(given.mask[row].sum()) if given.mask is not None else given.source.shape[1]
        made: list[int] = []
        while len(made) < most:
            read = SequenceBatch(given.source[row : row + 1, :length], torch.tensor([[*lead, *made]]))
            logits = model.run(read).logits
            assert logits is not None
            token = int(logits[0, -1].argmax())
            if token == end:
                break
            made.append(token)
        out.append(made)
    return out


class Watched(Wrapped):
    """The model seen through a wrapper; ``read`` lists the shapes of what the decoder is given."""

    def __init__(self, model: Seq2Seq, *lacking: str) -> None:
        super().__init__(model, *lacking)
        self.read: list[tuple[int, ...]] = []

    def run(self, batch: SequenceBatch, **options: Any) -> Any:
        assert not options.get("cache") or "cache" not in self.lacking
        self.read.append(tuple(batch.tokens.shape))
        return self.model.run(batch, **options)


@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_it_is_what_running_everything_anew_gives(positions: str) -> None:
    model, given = model_of(positions=positions), batch()
    free = slow(model, given, [1], None, MOST)
    assert greedy(model, given, begin=1, end=None, most=MOST) == free
    ends = [token for token in range(VOCAB) if 0 < sum(token in row for row in free) < len(free)]
    assert ends, "some token ends some rows and not others"
    for end in ends:
        expected = [row[: row.index(end)] if end in row else row for row in free]
        assert greedy(model, given, begin=1, end=end, most=MOST) == expected
    assert slow(model, given, [1], ends[0], MOST) == greedy(Watched(model, "cache"), given, begin=1, end=ends[0], most=MOST)


def test_several_ids_to_begin_with() -> None:
    model, given = model_of(), batch(3)
    assert greedy(model, given, begin=[3, 1, 4], end=None, most=4) == slow(model, given, [3, 1, 4], None, 4)


def test_the_source_is_encoded_once_and_ended_rows_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = model_of(13), batch(16)  # of these rows fourteen end, one after another
    free = greedy(model, given, begin=1, end=None, most=15)
    end = max(range(VOCAB), key=lambda token: sum(token in row for row in free))
    encoded: list[int] = []
    plain = type(model.encoder).forward
    monkeypatch.setattr(type(model.encoder), "forward", lambda self, *a, **k: encoded.append(1) or plain(self, *a, **k))
    watched, seen = Watched(model), list[tuple[int, int]]()
    found = greedy(watched, given, begin=1, end=end, most=15, progress=lambda done, total, words: seen.append((done, total)))
    assert encoded == [1]
    assert found == [row[: row.index(end)] if end in row else row for row in free]
    sizes = [rows for rows, _ in watched.read]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 16
    assert 2 * sizes[-1] <= 16
    assert {width for _, width in watched.read} == {1}
    assert seen == sorted(seen)
    assert seen[-1] == (16, 16)


def test_the_batch_does_not_matter() -> None:
    model, given = model_of(1, dtype=torch.float32), batch()
    whole = greedy(model, given, begin=0, end=2, most=MOST)
    assert [greedy(model, given.rows([row]), begin=0, end=2, most=MOST)[0] for row in range(ROWS)] == whole


def test_what_cannot_be_is_refused() -> None:
    model, given = model_of(), batch(2)
    assert [len(row) for row in greedy(model, given, begin=1, end=None, most=16)] == [16, 16]  # reads 16 positions, writes a 17th token
    with pytest.raises(BadValue, match="number of tokens to read is 17, but it must be at most 16, the model's context"):
        greedy(model, given, begin=1, end=None, most=17)
    with pytest.raises(BadValue, match="most is 0"):
        greedy(model, given, begin=1, end=None, most=0)
    with pytest.raises(BadValue, match="begin is"):
        greedy(model, given, begin=[], end=None, most=3)
    with pytest.raises(BadValue, match="a token id is 11"):
        greedy(model, given, begin=11, end=None, most=3)
