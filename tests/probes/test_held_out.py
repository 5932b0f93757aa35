"""Items held out: split by whole groups, unseen by what is found, and judged by themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.circuit_discovery import faithfulness
from probes.circuits import areas
from probes.edge_runs import run_circuits
from probes.held_out import rows_of, split
from tests.families.models import build
from tests.probes.test_circuits import find
from tests.probes.test_edges import pair, prepared
from workbench.core.errors import BadValue
from workbench.core.protocol import Inputs

FIELDS: dict[str, Any] = {"by": "eap", "nulls": 2, "resamples": 4, "sizes": [0.05, 0.2, 0.5, 1.0], "held_out": 0.4, "seed": 3}


# --- the split --------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=20), st.floats(0.01, 0.99), st.integers(0, 99))
def test_every_item_is_on_one_side_and_every_group_whole(groups: list[int], share: float, seed: int) -> None:
    if len(set(groups)) < 2:
        with pytest.raises(BadValue, match="at least two"):
            split(len(groups), groups, share, seed)
        return
    found, held = split(len(groups), groups, share, seed)
    assert sorted(found + held) == list(range(len(groups)))
    assert found
    assert held
    assert not {groups[i] for i in found} & {groups[i] for i in held}
    aside = len({groups[i] for i in held})
    assert abs(aside - share * len(set(groups))) <= 1
    assert (found, held) == split(len(groups), groups, share, seed)


def test_an_item_is_a_group_where_none_are_named_and_seeds_differ() -> None:
    assert {len(split(10, None, share, 0)[1]) for share in (0.3,)} == {3}
    assert len({tuple(split(10, None, 0.3, seed)[1]) for seed in range(5)}) > 1
    with pytest.raises(BadValue, match="3 names"):
        split(4, ["a", "b", "c"], 0.5, 0)


def test_rows_go_together_whatever_they_are_held_in() -> None:
    ids = torch.arange(12).reshape(4, 3)
    whole = Inputs(ids, torch.tensor([3, 2, 3, 1]), reference=ids + 20, targets=torch.arange(4), groups=("a", "b", "c", "d"))
    some = rows_of(whole, [0, 3], twins=True)
    assert torch.equal(some.batch, ids[[0, 3]])
    assert torch.equal(some.reference, ids[[0, 3]] + 20)
    assert some.lengths is not None
    assert some.targets is not None
    assert some.lengths.tolist() == [3, 1]
    assert some.targets.tolist() == [0, 3]
    assert some.groups == ["a", "d"]
    assert torch.equal(rows_of(whole, [0], twins=False).reference, ids + 20), "rows that means are taken of are not twins"
    texts = rows_of(Inputs(["p", "q"], reference=["r", "s"]), [1], twins=True)
    assert (texts.batch, texts.reference) == (["q"], ["s"])
    nested = rows_of(replace(whole, reference=Inputs(ids + 20, torch.tensor([3, 2, 3, 1]))), [3], twins=True).reference
    assert nested.lengths.tolist() == [1]


# --- circuits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replacement", ["counterfactual", "mean"])
def test_what_is_found_is_what_is_found_without_them_and_they_are_judged_alone(replacement: str) -> None:
    """Twin: the items found on, asked alone; and the circuits run by hand on those held out, asked alone."""
    model = build("grouped", dtype=torch.float64)
    inputs = pair(model, rows=10)
    inputs = inputs if replacement == "counterfactual" else replace(inputs, reference=None)
    result = find(model, inputs, **FIELDS, replacement=replacement)
    v: Any = result.values
    sides = split(10, None, 0.4, 3)
    assert np.flatnonzero(v.held_out.values).tolist() == sides[1]
    twins = replacement == "counterfactual"
    alone: Any = find(model, rows_of(inputs, sides[0], twins=twins), **{**FIELDS, "held_out": 0.0}, replacement=replacement).values
    for name in ("score", "joins", "faithfulness", "low", "high", "stability", "cpr", "cmd_log", "random_cpr"):
        np.testing.assert_allclose(v[name].values, alone[name].values, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(v.value.values[:, sides[0]], alone.value.values, atol=1e-12)
    other = rows_of(inputs, sides[1], twins=twins)
    g, part = prepared(model, other, replacement=replacement)
    all_, none = (run_circuits(part, np.full((1, len(g)), which), 1 << 30)[0] for which in (True, False))
    curve = result.curve(held_out=True)
    for k, size in enumerate(FIELDS["sizes"]):
        edges = set(result.circuit(size))
        value = run_circuits(part, np.array([[name in edges for name in g.names]]), 1 << 30)[0]
        np.testing.assert_allclose(v.value.values[v.kind.values == "found"][k, sides[1]], value, atol=1e-10)
        assert curve.faithfulness[k] == pytest.approx(float(faithfulness(value, all_, none)), abs=1e-9)
    assert float(v.held_cpr) == pytest.approx(areas(FIELDS["sizes"], curve.faithfulness.to_numpy())["cpr"])
    assert "found on 6 items, drawn with seed 3, and run on these and on 4 held out" in " ".join(result.notes)
    assert "Held out: CPR" in result.summary()
    assert "items held out" in str(result.plot().to_dict())


def test_without_items_held_out_nothing_is_told_of_them() -> None:
    model = build("grouped", dtype=torch.float64)
    result = find(model, pair(model), **{**FIELDS, "held_out": 0.0})
    assert np.isnan(result.values.held_faithfulness.values).all()
    assert np.isnan(float(result.values.held_cmd))
    assert not result.values.held_out.values.any()
    assert "held_out" not in result.spec, "older specs keep their bytes"
    assert "eld out" not in result.summary()
    with pytest.raises(BadValue, match="no items were held out"):
        result.curve(held_out=True)
    with pytest.raises(BadValue, match="at least two"):
        find(model, replace(pair(model), groups=["one"] * len(pair(model).batch)), **FIELDS)
