"""Text and image codes in one decoder: the joint row, the loss, padding, drawing with and without the cache, the two phases, bad input."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.families.models import logits
from workbench.blocks.init import generator_of
from workbench.core.batch import IGNORE, PairBatch, TokenBatch
from workbench.core.errors import BadValue, UnknownName, UsageError
from workbench.core.protocol import HookedModel, Resume, Zero
from workbench.core.tolerance import agree, gap
from workbench.data.text import CharTokenizer
from workbench.families.dalle import Dalle, DalleConfig
from workbench.training.checkpoint import load_model
from workbench.training.loop import train
from workbench.training.spec import TrainSpec

SMALL: dict[str, Any] = {
    "n_layers": 2, "d_model": 16, "n_heads": 4, "d_vocab_text": 11, "n_text": 5, "height": 4, "width": 6, "channels": 2, "patch": 2,
    "n_codes": 7, "d_code": 3, "d_coder": 8,
}  # fmt: skip
TEXT = torch.tensor([[1, 2, 3, 4], [5, 6, 9, 9], [7, 8, 0, 10]])
MASK = torch.tensor([[True] * 4, [True, True, False, False], [True] * 4])


def build(dtype: torch.dtype = torch.float64, **changes: Any) -> Dalle:
    """A model with weights large enough that every part of it matters."""
    model = Dalle(DalleConfig.parse({**SMALL, **changes}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model.to(dtype).eval()


def pairs(dtype: torch.dtype = torch.float64, mask: Tensor | None = MASK) -> PairBatch:
    return PairBatch(torch.rand(3, 2, 4, 6, generator=torch.Generator().manual_seed(1)).to(dtype), TEXT, mask)


def test_it_is_a_hooked_model_and_its_vocabulary_is_joint() -> None:
    model = build()
    assert isinstance(model, HookedModel)
    assert (model.config.joint.begin, model.config.d_vocab, model.config.n_ctx) == (18, 19, 11)
    assert logits(model.run(pairs())).shape == (3, 10, 19)
    assert tuple(model.weight("coder.codebook").shape) == (7, 3)
    assert tuple(model.weight("W_pos").shape) == (11, 16)


def test_a_row_is_text_begin_and_all_codes_but_the_last() -> None:
    model, batch = build(), pairs()
    rows, codes = model.sequence(batch), model.coder.encode(batch.pixels)
    assert rows.positions is not None
    assert rows.segments is not None
    for row in range(3):
        image = [11 + int(code) for code in codes[row]]
        assert rows.tokens[row].tolist() == [*TEXT[row].tolist(), 18, *image[:-1]]
        assert rows.positions[row].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert rows.targets[0].tolist() == [2, 3, 4, IGNORE, *(11 + int(code) for code in codes[0])]
    assert rows.targets[1].tolist() == [6, IGNORE, IGNORE, IGNORE, *(11 + int(code) for code in codes[1])]
    assert rows.segments[1].tolist() == [0, 0, 1, 1] + [0] * 6
    assert model.sequence(pairs(mask=None)).segments is None


def test_nothing_reads_what_comes_later_and_ids_are_read_like_pairs() -> None:
    model, batch = build(), pairs(mask=None)
    rows = model.sequence(batch)
    whole = logits(model.run(batch))
    assert torch.equal(logits(model.run(rows)), whole)
    changed = rows.tokens.clone()
    changed[:, 7] = (changed[:, 7] - 11 + 1) % 7 + 11
    again = logits(model.run(changed, resume=Resume(positions=rows.positions)))
    assert gap(again[:, :7], whole[:, :7]) < 1e-12
    assert gap(again[:, 7:], whole[:, 7:]) > 1e-3


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_padding_is_as_if_it_were_not_there(dtype: torch.dtype, bound: float) -> None:
    model, batch = build(dtype), pairs(dtype)
    together = logits(model.run(batch))[1]
    alone = logits(model.run(PairBatch(batch.pixels[1:2], TEXT[1:2, :2])))[0]
    assert gap(together[[0, 1, *range(4, 10)]], alone) < bound
    other = TEXT.clone()
    other[1, 2:] = 0
    assert torch.equal(logits(model.run(PairBatch(batch.pixels, other, MASK)))[1, 4:], together[4:])
    assert gap(logits(model.run(PairBatch(batch.pixels, TEXT)))[1, 4:], together[4:]) > 1e-3  # unmasked, it is text


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_loss_is_that_of_the_codes_with_a_weight_on_the_text(weight: float) -> None:
    model, batch = build(text_weight=weight), pairs()
    total, count = model.loss(batch)
    shares, rows = logits(model.run(batch)).log_softmax(-1), model.sequence(batch)
    slow = 0.0
    for row in range(3):
        for pos, target in enumerate(rows.targets[row].tolist()):
            if target != IGNORE:
                slow -= float(shares[row, pos, target]) * (1.0 if pos >= 4 else weight)
    assert total.item() == pytest.approx(slow, rel=1e-12)
    assert count == 3 * 6


# --- drawing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mask", [None, MASK])
def test_with_the_cache_each_step_has_the_logits_of_the_whole_row(dtype: torch.dtype, mask: Tensor | None) -> None:
    model, batch = build(dtype), pairs(dtype, mask)
    rows = model.sequence(batch)
    whole = logits(model.run(rows))
    assert rows.positions is not None
    segments = None if rows.segments is None else rows.segments[:, :5]
    start = TokenBatch(rows.tokens[:, :5], rows.targets[:, :5], segments, rows.positions[:, :5])
    trace = model.run(start, cache=True)
    steps = [logits(trace)]
    for pos in range(5, 10):
        seen = None if rows.segments is None else (rows.segments[:, : pos + 1] == 0).unsqueeze(1)
        resume = Resume(past=trace.past, positions=rows.positions[:, pos : pos + 1], mask=seen)
        trace = model.run(rows.tokens[:, pos : pos + 1], resume=resume, cache=True)
        steps.append(logits(trace))
    assert agree(torch.cat(steps, 1), whole, "logits")


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 3.0])
def test_the_cache_draws_the_same_codes(mask: Tensor | None, temperature: float) -> None:
    model = build()
    cached, plain = (model.draw(TEXT, mask=mask, seed=3, temperature=temperature, cache=cache) for cache in (True, False))
    assert torch.equal(cached, plain)
    assert int(cached.min()) >= 0
    assert int(cached.max()) < 7
    assert torch.equal(model.paint(TEXT, mask=mask, seed=3, temperature=temperature), model.coder.decode(cached))


def test_what_is_drawn_is_what_a_slow_twin_draws() -> None:
    model = build()
    codes = model.draw(TEXT, mask=MASK, seed=5, temperature=0.8)
    for row in range(3):
        luck = torch.rand(6, 1, generator=generator_of("draw", 5, row), dtype=torch.float64)
        real, made = TEXT[row][MASK[row]].tolist(), []
        for step in range(6):
            ids = torch.tensor([[*real, 18, *(11 + code for code in made)]])
            places = torch.tensor([[*range(len(real)), *range(5, 6 + step)]])
            out = logits(model.run(ids, resume=Resume(positions=places)))[0, -1, 11:18] / 0.8
            sizes = [math.exp(float(v - out.max())) for v in out]
            left, code = float(luck[step]) * sum(sizes), 0
            while left >= sizes[code]:
                left, code = left - sizes[code], code + 1
            made.append(code)
        assert made == codes[row].tolist()


def test_a_row_draws_alike_alone_and_seeds_and_heat_matter() -> None:
    model = build()
    codes = model.draw(TEXT, seed=1, temperature=2.0)
    assert torch.equal(model.draw(TEXT[:1], seed=1, temperature=2.0), codes[:1])
    assert not torch.equal(model.draw(TEXT, seed=2, temperature=2.0), codes)
    greedy = model.draw(TEXT, seed=1, temperature=0.0)
    assert torch.equal(model.draw(TEXT, seed=2, temperature=0.0), greedy)
    assert torch.equal(model.draw(TEXT, seed=2, temperature=1e-6), greedy)


def test_an_edit_in_the_middle_of_a_run_changes_what_is_said_of_the_image() -> None:
    model, batch = build(), pairs()
    trace = model.run(batch, capture="blocks.1.attn.hook_pattern")
    assert float(trace["blocks.1.attn.hook_pattern"][1, :, 4:, 2:4].abs().max()) == 0  # padding is not looked at
    cut = model.run(batch, edit=[Zero("blocks.0.attn.hook_z", at={"head": 2})])
    assert gap(logits(cut), logits(trace)) > 1e-3


# --- learning -----------------------------------------------------------------------------------------------------


class Flats:
    """Images of one colour, and a word for each colour (a RowData)."""

    COLOURS = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.8, 0.8]])

    def __len__(self) -> int:
        return 24

    def batch(self, indices: Sequence[int]) -> PairBatch:
        word = torch.tensor([int(i) % 3 for i in indices])
        shade = torch.tensor([int(i) // 3 / 8 * 0.1 for i in indices]).view(-1, 1, 1, 1)
        return PairBatch((self.COLOURS[word].view(-1, 2, 1, 1) - shade).expand(-1, 2, 4, 6).contiguous(), word.unsqueeze(1))

    def digest(self) -> str:
        return hashlib.sha256(b"flats").hexdigest()


SPEC = TrainSpec.parse({"steps": 100, "batch_rows": 12, "lr": 1e-2, "min_lr": 1e-3, "warmup": 5, "weight_decay": 0.0, "threads": 1})


def test_the_coder_learns_then_the_decoder_and_what_is_painted_is_what_was_asked_for(tmp_path: Path) -> None:
    model = Dalle(DalleConfig.parse({**SMALL, "d_vocab_text": 3, "n_text": 1, "init_std": 0.2}))
    before = copy.deepcopy(model.state_dict())
    model.learn("coder")
    train(model, Flats(), SPEC, out=tmp_path / "coder")
    coder = copy.deepcopy(model.state_dict())
    moved = {name for name, value in coder.items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("coder.") for name in moved)
    loaded = load_model(tmp_path / "coder" / "final")
    assert loaded.learning == "decoder"
    assert loaded.digest() == model.digest()
    train(loaded, Flats(), SPEC)
    after = loaded.state_dict()
    assert all(torch.equal(value, coder[name]) for name, value in after.items() if name.startswith("coder."))
    assert all(not torch.equal(value, coder[name]) for name, value in after.items() if name.endswith("attn.q.weight"))
    loaded.eval()
    painted = loaded.paint(torch.arange(3).unsqueeze(1), temperature=0.5)
    apart = (painted.mean((2, 3)).unsqueeze(1) - Flats.COLOURS).abs().sum(2)
    assert apart.argmin(1).tolist() == [0, 1, 2]
    assert float(apart.min(1).values.max()) < 0.4


def test_a_phase_that_was_cut_off_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    def trained(out: Path, stop: int | None) -> str:
        model = Dalle(DalleConfig.parse({**SMALL, "d_vocab_text": 3, "n_text": 1}))
        model.learn("coder")

        def cut(event: str, state: Any) -> None:
            if event == "step" and state["step"] == stop:
                raise KeyboardInterrupt

        spec = SPEC.override({"steps": 30, "save_every": 10})
        return str(train(model, Flats(), spec, out=out, callbacks=[cut])["weights"])

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", 25)
    assert trained(tmp_path / "cut", None) == trained(tmp_path / "whole", None)


def test_each_phase_has_gradients_of_its_own_part_alone() -> None:
    model = build().train()
    for part in ("coder", "decoder"):
        model.learn(part)
        model.zero_grad()
        model.loss(pairs())[0].backward()
        have = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert have == {name for name, _ in model.named_parameters() if name.startswith("coder.") == (part == "coder")}
    with pytest.raises(UnknownName, match="There is no part to learn 'text'"):
        model.learn("text")


# --- bad input ----------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_with_the_rule_it_breaks() -> None:
    model, pixels = build(), pairs().pixels
    cases: list[tuple[Any, str]] = [
        (PairBatch(pixels, torch.zeros(3, 6, dtype=torch.long)), r"the shape of the text is \(3, 6\), but it must be \[3, at most 5\]"),
        (PairBatch(pixels[:2], TEXT), r"the shape of the text is \(3, 4\), but it must be \[2, at most 5\]"),
        (PairBatch(pixels, TEXT + 1), "a token id is 11, but it must be within 0 to 10"),
        (PairBatch(pixels, TEXT, MASK[:, :2]), r"the mask is .* but it must be bool \(3, 4\)"),
        (PairBatch(pixels[..., :4], TEXT), r"must be \[batch, 2, 4, 6\]"),
        (torch.full((1, 3), 19), "a token id is 19, but it must be within 0 to 18"),
        (torch.zeros(1, 12, dtype=torch.long), "the number of tokens is 12, but it must be at most 11"),
        ("a text", "this model has no tokenizer"),
    ]
    for batch, words in cases:
        with pytest.raises(BadValue, match=words):
            model.run(batch)
    with pytest.raises(BadValue, match="temperature is -1.0"):
        model.draw(TEXT, temperature=-1.0)


def test_a_config_or_tokenizer_that_does_not_fit_is_refused() -> None:
    for changes, words in (({"n_heads": 3}, "n_heads must divide d_model"), ({"patch": 4}, "patch must divide height and width")):
        with pytest.raises(UsageError, match=words):
            DalleConfig.parse({**SMALL, **changes})
    letters = CharTokenizer("abcdefghijk")
    with pytest.raises(BadValue, match="d_vocab_text is 3, but it must be the tokenizer's"):
        Dalle(DalleConfig.parse({**SMALL, "d_vocab_text": 3}), letters)
    model = Dalle(DalleConfig.parse({**SMALL, "d_vocab_text": letters.vocab_size}), letters)
    assert logits(model.run("abc")).shape == (1, 3, model.config.d_vocab)
