"""Which row when, which rate when, what decays."""

from __future__ import annotations

import math
from collections import Counter

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from tests.training.setting import model, spec
from workbench.core.errors import BadValue, CorruptFile, UsageError
from workbench.training.optimizer import adamw, decaying, restore, state_of
from workbench.training.order import row_order


@hypothesis.settings(max_examples=80, deadline=None)
@hypothesis.given(st.integers(0, 5), st.integers(1, 40), st.integers(1, 60))
def test_every_epoch_is_a_permutation_and_steps_join_without_gaps(seed: int, rows: int, n: int) -> None:
    steps = -(-3 * n // rows)
    stream = [row for step in range(steps) for row in row_order(seed, step, rows, n)]
    for epoch in range(3):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert all(len(row_order(seed, step, rows, n)) == rows for step in range(steps))


def test_the_order_depends_on_seed_and_step_alone() -> None:
    first = row_order(1, 7, 8, 1000)
    assert row_order(1, 7, 8, 1000) == first
    assert row_order(2, 7, 8, 1000) != first
    assert row_order(1, 8, 8, 1000) != first
    epochs = [[row for step in range(5) for row in row_order(3, e * 5 + step, 8, 40)] for e in range(2)]
    assert epochs[0] != epochs[1]
    # Rows a step are a way of cutting one stream, not another stream.
    assert row_order(1, 0, 16, 1000) == row_order(1, 0, 8, 1000) + row_order(1, 1, 8, 1000)


def test_any_row_may_come_first() -> None:
    """Chi-square over 4,000 seeds of the first of 20 rows: within the 99.9 % bound of 19 degrees of freedom (43.8)."""
    counts = Counter(row_order(seed, 0, 1, 20)[0] for seed in range(4000))
    assert sum((counts[row] - 200) ** 2 / 200 for row in range(20)) < 43.8


def test_a_huge_data_set_needs_no_table() -> None:
    assert max(row_order(0, 10**12, 8, 10**15)) < 10**15


def test_orders_that_cannot_be() -> None:
    with pytest.raises(BadValue, match="the number of rows is 0"):
        row_order(0, 0, 4, 0)
    with pytest.raises(BadValue, match="step and rows_per_step"):
        row_order(0, -1, 4, 4)


def test_cosine_against_its_closed_form() -> None:
    s = spec(steps=100, warmup=10, lr=1.0, min_lr=0.1)
    assert [s.lr_at(i) for i in range(10)] == pytest.approx([(i + 1) / 11 for i in range(10)])
    for i in range(10, 101):
        assert s.lr_at(i) == pytest.approx(0.1 + 0.9 * math.cos(math.pi * (i - 10) / 90 / 2) ** 2)
    assert s.lr_at(10) == 1.0
    assert s.lr_at(55) == pytest.approx(0.55)
    assert s.lr_at(100) == pytest.approx(0.1)


def test_wsd_against_its_closed_form() -> None:
    s = spec(steps=100, warmup=10, lr=1.0, min_lr=0.2, schedule="wsd", decay=0.25)
    assert [s.lr_at(i) for i in (10, 50, 75)] == [1.0, 1.0, 1.0]
    for i in range(75, 101):
        assert s.lr_at(i) == pytest.approx(1.0 - 0.8 * (i - 75) / 25)
    assert s.lr_at(100) == pytest.approx(0.2)
    assert spec(steps=5, warmup=0).lr_at(0) == pytest.approx(1e-2)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"accumulate": 3}, r"accumulate must divide batch_rows \(4\)"),
        ({"min_lr": 1.0}, "min_lr must be at most lr"),
        ({"patience": 2}, "patience needs validate_every"),
        ({"steps": 0}, "steps"),
        ({"schedule": "linear"}, "schedule"),
        ({"lr": float("nan")}, "lr"),
    ],
)
def test_specs_that_cannot_be(fields: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        spec(**fields)


def test_only_matrices_of_linear_maps_decay() -> None:
    tied, untied = model(tied=True, positions="learned", act="swiglu"), model(tied=False)
    names = set(decaying(tied))
    assert names == {n for n, p in tied.named_parameters() if p.ndim == 2 and not n.startswith("embed.")}
    assert "stack.blocks.0.mlp.gate.weight" in names
    assert not any("ln" in n or n.endswith("bias") or n.startswith("embed.") for n in names)
    assert "unembed.own.weight" in decaying(untied)
    groups = adamw(untied, spec(weight_decay=0.3)).param_groups
    assert [g["weight_decay"] for g in groups] == [0.3, 0.0]
    assert sum(len(g["params"]) for g in groups) == len(list(untied.parameters()))


def test_decay_shrinks_matrices_and_nothing_else() -> None:
    """With zero gradients AdamW moves a parameter by its decay alone."""
    m = model()
    optimizer = adamw(m, spec(weight_decay=0.5, lr=0.1))
    before = {n: p.detach().clone() for n, p in m.named_parameters()}
    for p in m.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    names = set(decaying(m))
    for n, p in m.named_parameters():
        assert torch.allclose(p, before[n] * (0.95 if n in names else 1.0)), n


def test_optimizer_state_by_name() -> None:
    m = model()
    optimizer = adamw(m, spec())
    for p in m.parameters():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    optimizer.step()
    state = state_of(optimizer, m)
    assert set(state) == {f"{n}.{part}" for n, _ in m.named_parameters() for part in ("exp_avg", "exp_avg_sq")}
    twin = model()
    twin.load_state_dict(m.state_dict())
    other = adamw(twin, spec())
    restore(other, twin, state, 1, "file")
    for a, b in zip(m.parameters(), twin.parameters(), strict=True):
        b.grad = a.grad = torch.ones_like(a)
    optimizer.step()
    other.step()
    assert all(torch.equal(a, b) for a, b in zip(m.parameters(), twin.parameters(), strict=True))
    state.pop("embed.token.weight.exp_avg")
    with pytest.raises(CorruptFile, match=r"1 entries do not match, such as 'embed\.token\.weight\.exp_avg'"):
        restore(other, twin, state, 1, "file")
