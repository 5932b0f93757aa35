"""The induction circuit of a shipped recipe's model, edge by edge, and nothing of the kind in its first weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.scripts import script
from workbench.lab.run import train


@pytest.mark.slow
def test_the_twin_hides_what_followed() -> None:
    inputs = script("induction_circuit").strings(20, 3)
    clean, corrupt = inputs.batch, inputs.reference
    assert clean.shape == (20, 24)
    assert ((clean != corrupt).sum(1) == 1).all()
    assert (clean[:, 16:] == clean[:, :8]).all()
    assert (clean[:, 8] == inputs.targets).all()
    assert ((corrupt[:, :16] == corrupt[:, 23:]).sum(1) == 0).all()  # the last symbol was not there before
    assert (inputs.targets != inputs.foils).all()


@pytest.mark.full
def test_the_head_of_previous_tokens_feeds_the_keys_of_the_second_layer() -> None:
    book = script("induction_circuit")
    model: Any = train("gpt-repeats", settings={"train": {"seed": 1}}, store=None).model
    inputs = book.strings(32, 0)
    for ranking in ("exact", "greedy-pruning"):
        result = book.circuit(model, inputs, ranking)
        found = set(result.circuit(0.2))
        assert {("embed", "L0H1.v"), *((f"L1H{h}", "logits") for h in range(4)), *(("L0H1", f"L1H{h}.k") for h in range(4))} <= found
        at = lambda kind, result=result: result.curve(kind).set_index("size").loc[0.2]  # noqa: E731
        assert at("found").faithfulness > 0.9
        assert abs(at("complement").faithfulness) < 0.05
        assert at("random").high < 0.4
    whole = result.values.value.values[0].mean()
    keys, queries = (book.sent(model, inputs, f"L1H*.{word}") for word in "kq")
    assert max(keys, key=lambda name: abs(keys[name])) == "L0H1"
    assert keys["L0H1"] < -0.9 * whole
    assert max(abs(value) for value in queries.values()) < 0.05 * whole
    blank = type(model)(model.config, model.tokenizer, seed=1).eval()
    nothing = book.circuit(blank, inputs, "exact")
    assert np.abs(nothing.values.value.values[:2].mean(1)).max() < 1
    assert float(nothing.curve().set_index("size").stability[0.2]) < 0.6  # whatever it is, other items say otherwise
