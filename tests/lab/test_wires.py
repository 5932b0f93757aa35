"""The circuit between two prompts: sizes, edges and faithfulness are the instrument's own, and one of them is drawn."""

from __future__ import annotations

from typing import Any

import pytest

from tests.dashboards.conftest import tiny
from workbench.core.errors import BadValue
from workbench.lab import wires

CLEAN, CORRUPT = "The nurse said that", "The pilot said that"


@pytest.mark.slow
def test_a_circuit_of_every_size_is_the_instruments_own() -> None:
    found: Any = wires.found(tiny(), CLEAN, CORRUPT, target=" she", foil=" he", quantity="logit-difference")
    sizes = wires.sizes_of(found)
    curve = found.curve()
    assert [one.edges for one in sizes] == sorted(set(curve["edges"].astype(int)) - {0})
    for one in sizes:
        edges = wires.edges_of(found, one.size)
        assert len(edges) == one.edges
        assert set(zip(edges["writer"], edges["reader"], strict=True)) == set(found.circuit(one.size))
        assert edges["score"].is_monotonic_decreasing
        assert one.faithfulness == pytest.approx(float(curve.loc[curve["edges"] == one.edges, "faithfulness"].iloc[0]))
    assert sizes[-1].faithfulness == pytest.approx(1.0, abs=1e-4), "all edges are the whole model"
    drawn = wires.drawn(found, sizes[0]).to_dict()
    assert len(drawn["datasets"][drawn["layer"][0]["data"]["name"]]) == sizes[0].edges
    assert f"{sizes[0].edges} edges keep" in wires.said(sizes[0])


def test_prompts_of_unequal_length_are_a_sentence() -> None:
    with pytest.raises(BadValue, match="token"):
        wires.found(tiny(), CLEAN, "The pilot of the boat said that", target=" she", foil=" he", quantity="logit-difference")
