"""Occlusion and Shapley values: closed forms, enumeration, captum on the same model, groups, and what must be refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, KernelShap, Occlusion, ShapleyValueSampling
from hypothesis import given
from hypothesis import strategies as st

from probes.asked import ask
from probes.coalitions import drawn_coalitions, every_coalition, exactly, from_kernel, from_orders, orders, size_weight, solved
from probes.gradient_once import GradientSpec
from probes.occlusion import INSTRUMENT as OCCLUSION
from probes.shapley import INSTRUMENT as SHAPLEY
from tests.families.models import build
from tests.probes.standin import StandIn
from tests.probes.test_asked import STACKS, question
from workbench.core.errors import BadValue, UsageError
from workbench.core.protocol import Inputs

IDS = torch.tensor([[1, 2, 3, 4, 5, 6], [5, 4, 3, 0, 0, 0], [7, 7, 2, 9, 8, 0]])
LENGTHS = torch.tensor([6, 3, 5])
TARGETS = torch.tensor([3, 8, 10])


def run(tool: Any, model: Any, spec: dict[str, Any] | None = None, **changes: Any) -> Any:
    return tool(model, Inputs(**{"batch": IDS, "lengths": LENGTHS, "targets": TARGETS, **changes}), tool.spec.parse(spec or {}))


def gates(model: Any, row: int) -> Any:
    """f of an item's gates ``[n, pos]``: 1 is the position's own embedding, 0 the zero embedding. What captum is given."""
    asked = ask(model, Inputs(IDS, lengths=LENGTHS, targets=TARGETS), GradientSpec())

    def forward(given: torch.Tensor) -> torch.Tensor:
        whole = torch.ones(len(given), 6, dtype=torch.float64)
        whole[:, : given.shape[1]] = given.double()
        return asked.values(torch.full((len(given),), row), whole[..., None].to(asked.x) * asked.x[row])

    return forward


def parts(model: StandIn) -> np.ndarray:
    """Of the linear stand-in, what each position adds."""
    found = torch.einsum("p,bpd,db->bp", model.weight_at[:6], model.embed[IDS], model.unembed[:, TARGETS])
    return np.where(np.arange(6) < LENGTHS.numpy()[:, None], found.numpy(), np.nan)


# --- closed forms and enumeration -------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [{}, {"window": 3, "stride": 2}])
def test_a_linear_models_positions_are_worth_their_parts(spec: dict[str, Any]) -> None:
    model = StandIn()
    found = run(OCCLUSION, model, spec).values.attribution.values
    if not spec:
        np.testing.assert_allclose(found, parts(model), rtol=1e-10)
        return
    assert found[0, 0] == pytest.approx(parts(model)[0, :3].mean())
    assert found[0, 2] == pytest.approx((parts(model)[0, :3].mean() + parts(model)[0, 2:5].mean()) / 2)
    assert found[0, 5] == pytest.approx(parts(model)[0, 4:].mean())  # the last window is short
    assert found[1, 1] == pytest.approx(parts(model)[1, :3].mean())


@pytest.mark.parametrize("spec", [{}, {"antithetic": False}, {"estimator": "exact"}, {"estimator": "kernel"}, {"samples": 5}])
def test_so_they_are_by_shapley_and_without_an_error(spec: dict[str, Any]) -> None:
    model = StandIn()
    v = run(SHAPLEY, model, spec).values
    np.testing.assert_allclose(v.attribution.values, parts(model), rtol=1e-8)
    assert np.nanmax(v.standard_error.values) < 1e-6
    np.testing.assert_allclose(np.nansum(v.attribution.values, 1), v.value - v.baseline_value, rtol=1e-8)


def by_all_orders(game: Any, count: int) -> np.ndarray:
    """The slow twin: the mean gain over every order, one coalition at a time."""
    total = np.zeros(count)
    every = list(itertools.permutations(range(count)))
    for order in every:
        present = np.zeros((1, count), bool)
        before = game(present)[0]
        for player in order:
            present[0, player] = True
            after = game(present)[0]
            total[player] += after - before
            before = after
    return total / len(every)


@given(st.integers(2, 5), st.integers(0, 1000))
def test_enumeration_is_the_mean_over_all_orders_and_the_kernel_solves_it(count: int, seed: int) -> None:
    numbers = np.random.default_rng(seed).normal(size=2**count)
    game = lambda present: numbers[(present * 2 ** np.arange(count)).sum(1)]  # noqa: E731
    exact = exactly(game, count)
    np.testing.assert_allclose(exact.values, by_all_orders(game, count), atol=1e-10)
    assert exact.values.sum() == pytest.approx(numbers[-1] - numbers[0])
    inner = every_coalition(count)[1:-1]
    weight = np.array([size_weight(count, int(one.sum())) for one in inner])
    whole = solved(inner, game(inner), (float(numbers[0]), float(numbers[-1])), weight)
    np.testing.assert_allclose(whole.values, exact.values, atol=1e-8)


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("way", [from_orders, from_kernel])
def test_sampling_comes_close_within_its_own_standard_error(way: Any, antithetic: bool) -> None:
    count = 7
    numbers = np.random.default_rng(5).normal(size=2**count)
    game = lambda present: numbers[(present * 2 ** np.arange(count)).sum(1)]  # noqa: E731
    truth = exactly(game, count).values
    scores = []
    for seed in range(30):
        found = way(game, count, 400, np.random.default_rng(seed), antithetic=antithetic)
        assert found.values.sum() == pytest.approx(numbers[-1] - numbers[0])
        scores.append((found.values - truth) / found.errors)
    assert np.abs(np.mean(scores)) < 0.3
    assert 0.75 < np.std(scores) < 1.3  # the error says how far off it is


def test_antithetic_orders_are_each_others_reverse_and_say_more() -> None:
    drawn = orders(6, 5, np.random.default_rng(0), antithetic=True)
    assert drawn.shape == (6, 6)
    assert (drawn[1::2] == drawn[::2, ::-1]).all()
    paired = drawn_coalitions(6, 5, np.random.default_rng(0), antithetic=True)
    assert (paired[1::2] == ~paired[::2]).all()
    assert paired.any(1).all()
    assert not paired.all(1).any()
    game = lambda present: (present * np.arange(1, 7)).sum(1) ** 2 / 10.0  # noqa: E731
    spread = {}
    for antithetic in (True, False):
        tries = [from_orders(game, 6, 20, np.random.default_rng(s), antithetic=antithetic).values for s in range(60)]
        spread[antithetic] = np.std(tries, axis=0).mean()
    assert spread[True] < 0.2 * spread[False]  # of a game of pairs, an order and its reverse say all


# --- every family -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "stack"), STACKS)
def test_on_every_family_a_position_is_worth_what_one_plain_run_says(family: str, stack: str) -> None:
    model, inputs, spec = question(family, stack)
    settings = {"stack": stack, "quantity": "logit-difference"}
    found = OCCLUSION(model, inputs, OCCLUSION.spec.parse(settings)).values
    asked = ask(model, inputs, spec)
    for row, pos in [(0, 1), (len(asked) - 1, 2)]:
        gone = asked.x[row].clone()
        gone[pos] = 0
        without = asked.values(torch.tensor([row]), gone[None])
        assert found.attribution.values[row, pos] == pytest.approx(float(asked.value[row] - without[0]), abs=1e-10)
    shared: Any = SHAPLEY(model, inputs, SHAPLEY.spec.parse({**settings, "samples": 4})).values
    np.testing.assert_allclose(np.nansum(shared.attribution.values, 1), shared.value - shared.baseline_value, atol=1e-9)


# --- captum -----------------------------------------------------------------------------------------------------


def test_occlusion_is_captums() -> None:
    model = build(dtype=torch.float64)
    plain, windowed = run(OCCLUSION, model).values, run(OCCLUSION, model, {"window": 3, "stride": 2}).values
    labels = torch.tensor([[1, 1, 2, 2, 2, 3], [1, 2, 2, 0, 0, 0], [2, 1, 1, 1, 2, 0]])
    grouped = run(OCCLUSION, model, labels=labels).values
    for row, length in enumerate(LENGTHS.tolist()):
        ones, forward = torch.ones(1, length, dtype=torch.float64), gates(model, row)
        theirs = FeatureAblation(forward).attribute(ones)
        np.testing.assert_allclose(plain.attribution.values[row, :length], theirs[0].numpy(), atol=1e-12)
        mask = labels[row : row + 1, :length] - 1
        size = np.bincount(mask[0].numpy())[mask[0].numpy()]
        theirs = FeatureAblation(forward).attribute(ones, feature_mask=mask)
        np.testing.assert_allclose(grouped.attribution.values[row, :length] * size, theirs[0].numpy(), atol=1e-12)
    theirs = Occlusion(gates(model, 0)).attribute(torch.ones(1, 6, dtype=torch.float64), sliding_window_shapes=(3,), strides=(2,))
    whole = windowed.attribution.values[0]
    np.testing.assert_allclose(whole[:4] * 3, theirs[0, :4].numpy(), atol=1e-12)  # theirs gives each position of a window its whole effect
    np.testing.assert_allclose(whole[5] * 2, theirs[0, 5].numpy(), atol=1e-12)


def test_shapley_sampling_is_captums_with_the_same_orders() -> None:
    model = build(dtype=torch.float64)
    for antithetic in (True, False):
        found = run(SHAPLEY, model, {"samples": 6, "antithetic": antithetic, "seed": 3}).values
        for row, length in enumerate(LENGTHS.tolist()):
            theirs: Any = ShapleyValueSampling(gates(model, row))
            ours = orders(length, 6, np.random.default_rng([3, length]), antithetic=antithetic)
            theirs.permutation_generator = lambda *_, drawn=ours: iter([[int(p) for p in order] for order in drawn])
            expected = theirs.attribute(torch.ones(1, length, dtype=torch.float64), n_samples=6)
            np.testing.assert_allclose(found.attribution.values[row, :length], expected[0].numpy(), atol=1e-6)  # theirs adds up in float32


@pytest.mark.slow
def test_the_kernel_and_captums_meet_at_the_exact_values() -> None:
    model = build(dtype=torch.float64)
    exact = run(SHAPLEY, model, {"estimator": "exact"}).values
    kernel = run(SHAPLEY, model, {"estimator": "kernel", "samples": 100}).values
    off = (kernel.attribution.values - exact.attribution.values) / np.maximum(kernel.standard_error.values, 1e-9)
    assert np.nanmax(np.abs(off)) < 4
    torch.manual_seed(0)
    theirs = KernelShap(gates(model, 0)).attribute(torch.ones(1, 6, dtype=torch.float64), n_samples=300)
    spread = float(np.abs(exact.attribution.values[0]).max())
    np.testing.assert_allclose(theirs[0].numpy(), exact.attribution.values[0], atol=0.15 * spread)


# --- groups and refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", [OCCLUSION, SHAPLEY])
def test_groups_share_evenly_and_what_is_named_by_none_stands(tool: Any) -> None:
    model = StandIn()
    labels = torch.tensor([[1, 1, 0, 2, 2, 2], [0, 1, 2, 0, 0, 0], [0, 0, 3, 3, 0, 0]])
    v = run(tool, model, labels=labels).values
    own = parts(model)
    assert v.attribution.values[0, :2] == pytest.approx([own[0, :2].mean()] * 2)
    assert v.attribution.values[0, 3] == pytest.approx(own[0, 3:].mean())
    assert v.attribution.values[0, 2] == 0
    assert v.candidate.values[0].tolist() == [True, True, False, True, True, True]
    assert v.attribution.values[2, 2] == pytest.approx(own[2, 2:4].mean())
    named = np.array([["a", "a", "", "b", "b", "b"], ["", "x", "y", "", "", ""], ["", "", "z", "z", "", ""]])
    np.testing.assert_array_equal(run(tool, model, labels=named).values.attribution.values, v.attribution.values)


def test_numbers_do_not_depend_on_the_batch() -> None:
    model = build(dtype=torch.float64)
    for tool, spec in ((OCCLUSION, {}), (SHAPLEY, {"samples": 4})):
        whole = run(tool, model, spec).values.attribution.values
        small = run(tool, model, {**spec, "tokens_a_pass": 7}).values.attribution.values
        np.testing.assert_allclose(whole, small, atol=1e-12)
        alone = run(tool, model, spec, batch=IDS[1:2, :3], lengths=None, targets=TARGETS[1:2]).values.attribution.values
        np.testing.assert_allclose(alone[0], whole[1, :3], atol=1e-12)


def test_what_cannot_be_meant_is_said() -> None:
    model = StandIn()
    with pytest.raises(UsageError, match="stride at most as many as window"):
        OCCLUSION.spec.parse({"stride": 2})
    with pytest.raises(BadValue, match="1 where `labels` name the groups"):
        run(OCCLUSION, model, {"window": 2}, labels=torch.ones(3, 6).long())
    with pytest.raises(BadValue, match="more than 12 players"):
        run(SHAPLEY, model, {"estimator": "exact"}, batch=torch.ones(1, 14).long(), lengths=None, targets=TARGETS[:1])
    with pytest.raises(BadValue, match="content at padding"):
        run(OCCLUSION, model, labels=torch.ones(3, 6).long())
    with pytest.raises(UsageError, match="samples"):
        SHAPLEY.spec.parse({"samples": 1})
