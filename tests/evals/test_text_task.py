"""The text task: the model's number is the perplexity suite's, both counts are sums by hand, and the difference has the right sign."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from evals.ngram import KneserNey, as_bytes
from evals.runner import run_suite
from evals.suites.perplexity import SUITE, PerplexitySpec
from evals.task import Measure
from evals.tasks.text import TextTaskSpec, make, score
from workbench.core.errors import MissingData
from workbench.data import sources
from workbench.data.worlds.town import Town, TownSpec
from workbench.families.gpt import GPT, GPTConfig
from workbench.training.loop import train
from workbench.training.spec import TrainSpec

WORLD = TownSpec.parse({"documents": 300, "held_out": 60, "secrets": (), "unplanted": 0})
SPEC = TextTaskSpec(source="town", world=WORLD, vocabulary=330, documents=25, length=48)


def small(data: Any, **other: int) -> GPT:
    return GPT(GPTConfig(n_layers=1, d_model=16, n_heads=2, **{**data.shape, **other}), data.tokenizer, seed=0).eval()


def named(measures: Any) -> dict[str, Measure]:
    return {one.name: one for one in measures}


def test_the_numbers_are_the_suites_and_sums_by_hand() -> None:
    data = make(SPEC, 1)
    model = small(data)
    found = named(score(model, data))
    suite = run_suite(SUITE, model, PerplexitySpec(world=WORLD, documents=25)).values
    assert found["bits per byte"].value == pytest.approx(float(suite.bits_per_byte), rel=1e-8)
    assert found["byte 5-gram"].value == pytest.approx(float(suite.baseline_bits.sel(order=5)), rel=1e-12)
    tokenizer = data.tokenizer
    assert tokenizer is not None
    train_texts, texts = Town(WORLD).texts(), [d.text for d in Town(WORLD).documents(0, 25, split="test")]
    counts = KneserNey([np.array(tokenizer.encode(t)) for t in train_texts], order=5, vocab=tokenizer.vocab_size)
    octets = sum(len(as_bytes(t)) for t in texts)
    slow = sum(float(counts.nats(np.array(tokenizer.encode(t))).sum()) for t in texts) / math.log(2) / octets
    assert found["token 5-gram"].value == pytest.approx(slow, rel=1e-12)
    better = min(found["byte 5-gram"].value, slow)
    assert found["below the better count"].value == pytest.approx(better - found["bits per byte"].value, rel=1e-9)
    assert {one.count for one in found.values()} == {octets}
    assert not found["bits per byte"].larger


def test_an_untrained_model_is_above_counting_and_its_numbers_depend_on_no_window() -> None:
    data = make(SPEC, 1)
    model = small(data)
    gap = named(score(model, data))["below the better count"]
    assert gap.high < -1.0
    short = small(data, n_ctx=8)
    short.load_state_dict(model.state_dict())
    assert named(score(short, data))["bits per byte"].value == pytest.approx(named(score(model, data))["bits per byte"].value, rel=0.05)


@pytest.mark.slow
def test_training_moves_it_towards_counting() -> None:
    data = make(SPEC, 1)
    model = small(data)
    before = named(score(model, data))["bits per byte"].value
    train(model, data.train, TrainSpec(steps=150, batch_rows=8, lr=5e-3, warmup=20, seed=0, threads=1))
    after = named(score(model.eval(), data))
    assert after["bits per byte"].value < 0.7 * before
    with torch.no_grad():
        for parameter in model.parameters():  # broken on purpose: its knowledge is gone
            parameter.mul_(0.0)
    uniform = named(score(model, data))["bits per byte"].value
    assert uniform > after["bits per byte"].value


def test_wikitext_is_read_in_its_own_split() -> None:
    try:
        sources.path("wikitext-2", "valid.txt")
    except MissingData as missing:
        pytest.skip(str(missing))
    data = make(TextTaskSpec(vocabulary=300, length=32), 4)
    assert len(data.train) == 4
    batch: Any = data.train.batch([0, 1])
    assert batch.tokens.shape == (2, 32)
    held = {data.validation.digest(), data.train.digest()}
    assert len(held) == 2
