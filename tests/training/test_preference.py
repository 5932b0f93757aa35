"""Direct preference optimisation: its loss and gradient by hand, and that training does what it says."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue
from workbench.core.tolerance import gap
from workbench.data.chat import ChatRows, ChatTemplate, Message
from workbench.data.text import CharTokenizer
from workbench.families.gpt import GPT, GPTConfig
from workbench.training.loop import evaluate, train
from workbench.training.lora import LoRASpec, attach, base_digest
from workbench.training.preference import DPOSpec, Preference, PreferenceRows, logprobs, margins, preference_loss, preferring
from workbench.training.spec import TrainSpec

CHAR = CharTokenizer.of("qas:\nxyzuvw")
TEMPLATE = ChatTemplate.parse({role: {"before": f"{mark}:"} for role, mark in (("user", "q"), ("assistant", "a"), ("system", "s"))})
PAIRS = [Preference([Message("user", one)], good, bad) for one, good, bad in (("x", "uv", "vu"), ("y", "wu", "w"), ("z", "vvw", "uuu"))]


def model(seed: int = 0, **fields: Any) -> Any:
    config = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_vocab": CHAR.vocab_size, "n_ctx": 24, "init_std": 0.25, **fields}
    return GPT(GPTConfig.parse(config), CHAR, seed=seed).double()


def rows(reference: Any, beta: float = 0.1) -> PreferenceRows:
    return PreferenceRows.of(PAIRS, TEMPLATE, CHAR, 24, reference=reference, spec=DPOSpec(beta=beta))


def by_hand(one: Any, asked: str, answer: str) -> float:
    """log p(answer, end | prompt), token by token."""
    ids, total = CHAR.encode(f"q:{asked}\na:"), 0.0
    for token in CHAR.encode(f"{answer}\n"):
        total += float(one.run(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[token])
        ids = [*ids, token]
    return total


def test_the_loss_is_the_papers_by_hand() -> None:
    policy, reference, beta = model(1), model(0), 0.3
    data = rows(reference, beta)
    total, count = preference_loss(policy, data.batch([0, 1, 2]))
    expected = 0.0
    for pair in PAIRS:
        asked = pair.asked[0].text
        good, bad = (by_hand(policy, asked, a) - by_hand(reference, asked, a) for a in (pair.chosen, pair.rejected))
        expected += -math.log(1 / (1 + math.exp(-beta * (good - bad))))
    assert count == 3
    assert gap(total.detach(), torch.tensor(expected, dtype=torch.float64)) < 1e-12


def test_a_loss_with_the_answers_turned_round_would_be_caught() -> None:
    policy, data = model(1), rows(model(0), 0.3)
    batch = data.batch([0, 1, 2])
    turned = type(batch)(batch.tokens.flip(1), batch.targets.flip(1), batch.reference.flip(1), batch.beta)
    assert gap(margins(policy, turned), -margins(policy, batch)) < 1e-12
    assert gap(preference_loss(policy, turned)[0].detach(), preference_loss(policy, batch)[0].detach()) > 1e-3


def test_the_reference_itself_prefers_nothing() -> None:
    policy = model()
    data = rows(policy)
    assert float(margins(policy, data.batch([0, 1, 2])).detach().abs().max()) < 1e-12
    with preferring(policy):
        assert evaluate(policy, data)[0] == pytest.approx(math.log(2), abs=1e-12)


def test_the_gradient_is_the_papers() -> None:
    """Equation 7: -beta sigmoid(-margin) (grad log p(chosen) - grad log p(rejected))."""
    policy, data = model(1), rows(model(0), 0.3)
    batch = data.batch([0, 1, 2])
    preference_loss(policy, batch)[0].backward()
    found = [p.grad.clone() for p in policy.parameters()]
    expected = [torch.zeros_like(p) for p in policy.parameters()]
    with torch.no_grad():
        weight = 0.3 * torch.sigmoid(-margins(policy, batch))
    for answer, sign in ((0, -1.0), (1, 1.0)):
        for row in range(3):
            score = logprobs(policy, data.answers[answer].batch([row])).sum()
            for total, gradient in zip(expected, torch.autograd.grad(score, list(policy.parameters())), strict=True):
                total += sign * weight[row] * gradient
    assert max(gap(one, other) for one, other in zip(found, expected, strict=True)) < 1e-11


def test_filling_and_prompts_do_not_count() -> None:
    data = rows(model())
    batch = data.batch([0, 1])
    assert batch.tokens.shape == batch.targets.shape
    for row in range(2):
        for answer, text in enumerate((PAIRS[row].chosen, PAIRS[row].rejected)):
            said = [i for i in batch.targets[row, answer].tolist() if i != IGNORE]
            assert CHAR.decode(said) == f"{text}\n"
    alone = torch.cat([margins(model(1), data.batch([row])) for row in range(2)])
    assert gap(margins(model(1), batch), alone) < 1e-12


@pytest.mark.parametrize("adapted", [False, True])
def test_training_prefers_what_was_preferred(adapted: bool) -> None:
    policy = model().float()
    start = copy.deepcopy(policy)
    data = rows(policy)
    if adapted:
        attach(policy, LoRASpec.parse({"rank": 4, "select": ["blocks.*"]}))
    spec = TrainSpec.parse({"steps": 60, "batch_rows": 3, "lr": 1e-2, "min_lr": 1e-3, "warmup": 5, "threads": 1})
    with preferring(policy):
        history = train(policy, data, spec)
        again = copy.deepcopy(policy)
        assert again.loss.__self__ is again  # a copy prefers by itself
    assert history["record"][0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert history["record"][-1]["loss"] < 0.3
    assert history["tokens"] == 60 * 3  # pairs
    batch = data.batch([0, 1, 2])
    assert bool((margins(policy, batch) > 0.5).all())
    assert "loss" not in vars(policy)
    plain = ChatRows([[*PAIRS[0].asked, Message("assistant", "uv")]], TEMPLATE, CHAR, 24).batch([0])
    assert policy.loss(plain)[1] == 3  # its own loss again
    if adapted:
        assert base_digest(policy) == start.digest()


def test_a_weak_hold_moves_further() -> None:
    """With a small beta the same loss takes a larger difference of log-ratios."""
    ratios = []
    for beta in (0.05, 1.0):
        policy = model().float()
        data = rows(policy, beta)
        spec = TrainSpec.parse({"steps": 40, "batch_rows": 3, "lr": 1e-2, "min_lr": 1e-3, "warmup": 5, "threads": 1})
        with preferring(policy):
            train(policy, data, spec)
        ratios.append(float((margins(policy, data.batch([0, 1, 2])).detach() / beta).mean()))
    assert ratios[0] > 1.5 * ratios[1]


def test_rows_are_told_apart() -> None:
    policy = model()
    assert rows(policy).digest() == rows(policy).digest()
    assert len({rows(policy).digest(), rows(policy, 0.2).digest(), rows(model(1)).digest()}) == 3


def test_what_is_no_preference() -> None:
    with pytest.raises(BadValue, match="the answers of pair 0 is 'equal'"):
        PreferenceRows.of([Preference([Message("user", "x")], "u", "u")], TEMPLATE, CHAR, 24, reference=model(), spec=DPOSpec())
    one = ChatRows([[Message("user", "x"), Message("assistant", "u")]], TEMPLATE, CHAR, 24)
    with pytest.raises(BadValue, match="as many chosen as rejected"):
        PreferenceRows(one, one, torch.zeros(2, 2), DPOSpec())


def test_the_loss_is_put_back_after_a_failure() -> None:
    policy = model()
    with pytest.raises(BadValue, match="the training data"), preferring(policy):
        train(policy, _Empty(), TrainSpec.parse({"steps": 1, "warmup": 0}))
    assert "loss" not in vars(policy)


class _Empty:
    def __len__(self) -> int:
        return 0

    def batch(self, indices: Any) -> Any:
        raise AssertionError("nothing is asked for")

    def digest(self) -> str:
        return "empty"
