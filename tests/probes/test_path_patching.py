"""Path patching: what is sent on the direct way, against streams summed by hand; held, it is the sum of edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from probes import INSTRUMENTS
from probes.edge_runs import run_circuits
from probes.path_patching import INSTRUMENT, PathPatchingResult, PathPatchingSpec, path_patched
from tests.families.models import build
from tests.probes.lookup import induction, swapped
from tests.probes.test_edges import pair, prepared, target
from workbench.core.errors import AssayError, BadValue, EmptySelection
from workbench.core.protocol import Inputs, Replace
from workbench.core.result import Result
from workbench.families.gpt import GPT


def spec(**fields: Any) -> PathPatchingSpec:
    return PathPatchingSpec.parse(fields)


def send(model: GPT, inputs: Inputs, **fields: Any) -> PathPatchingResult:
    result = INSTRUMENT(model, inputs, spec(**fields))
    assert isinstance(result, PathPatchingResult)
    return result


def by_hand(model: GPT, inputs: Inputs, head: int, reader: str, through: str, positions: list[int]) -> np.ndarray:
    """The value where a head of the first layer sends to one reader of the second: its result is exchanged in the sum that makes the
    stream, MLP let go or held, and the reader alone reads that stream."""
    names = [
        "blocks.0.hook_resid_mid",
        "blocks.1.hook_resid_pre",
        "blocks.0.attn.hook_result",
        "blocks.0.hook_mlp_out",
        "blocks.1.hook_mlp_in",
    ]
    clean, corrupt = (model.run(ids, capture=names) for ids in (inputs.batch, inputs.reference))
    change = (corrupt["blocks.0.attn.hook_result"] - clean["blocks.0.attn.hook_result"])[:, :, head]
    at = torch.zeros(change.shape[1])
    at[positions] = 1
    change = change * at[:, None]
    middle = clean["blocks.0.hook_resid_mid"] + change
    moved: Tensor = change
    if through == "mlps":
        stop = model.run(inputs.batch, edit=[Replace("blocks.0.hook_mlp_in", value=middle)], capture="blocks.0.hook_mlp_out")
        moved = change + stop["blocks.0.hook_mlp_out"] - clean["blocks.0.hook_mlp_out"]
    if reader == "logits":
        if through == "mlps":  # the second MLP reads the changed stream, its heads are held
            read = clean["blocks.1.hook_mlp_in"] + moved
            out = model.run(inputs.batch, edit=[Replace("blocks.1.hook_mlp_in", value=read)], capture="blocks.1.hook_resid_post")
            return target(
                model.run(inputs.batch, edit=[Replace("blocks.1.hook_resid_post", value=out["blocks.1.hook_resid_post"] + moved)]), inputs
            )
        whole = model.run(inputs.batch, capture="blocks.1.hook_resid_post")["blocks.1.hook_resid_post"] + moved
        return target(model.run(inputs.batch, edit=[Replace("blocks.1.hook_resid_post", value=whole)]), inputs)
    stream = clean["blocks.1.hook_resid_pre"] + moved
    word, number = reader[-1], int(reader[3])
    axis = "head" if word == "q" else "kv_head"
    edit = Replace(f"blocks.1.hook_{word}_input", value=stream.unsqueeze(2), at={axis: number})
    return target(model.run(inputs.batch, edit=[edit]), inputs)


@pytest.mark.parametrize("kind", ["plain", "grouped", "no_norm"])
@pytest.mark.parametrize("through", ["nothing", "mlps"])
def test_one_path_by_hand(kind: str, through: str) -> None:
    model = build(kind, dtype=torch.float64)
    inputs = pair(model)
    groups = "G" if kind == "grouped" else "H"
    for reader in ("L1H2.q", f"L1{groups}1.k", f"L1{groups}0.v", "logits"):
        for positions in (None, [2, 6]):
            found = send(model, inputs, senders=["L0H1"], receivers=[reader], through=through, positions=positions)
            expected = by_hand(model, inputs, 1, reader, through, list(range(7)) if positions is None else positions)
            assert np.abs(found.values.value.values[0] - expected).max() < 1e-12
            assert np.abs(expected - found.values.clean.values).max() > 1e-6


def test_held_paths_are_sums_of_edges() -> None:
    """Several senders to several receivers at once, none of which reads another, are a circuit that lacks the edges between them."""
    model = build("grouped", dtype=torch.float64)
    inputs = pair(model)
    graph, part = prepared(model, inputs)
    senders, receivers = ["embed", "L0H3", "L0MLP"], ["L1H0.q", "L1G1.v", "L1H3.q"]
    inside = np.array([[not (u in senders and v in receivers) for u, v in graph.names]])
    found = send(model, inputs, senders=senders, receivers=receivers, together=True)
    assert found.values.sender.values.tolist() == ["embed + L0H3 + L0MLP"]
    assert np.abs(found.values.value.values - run_circuits(part, inside, 1 << 30)).max() < 1e-10
    pinned = send(model, inputs, senders=senders, receivers=["L1H0.q", "logits"], together=True)  # the logits read what was kept alone
    assert np.abs(pinned.values.value - send(model, inputs, senders=senders, together=True).values.value).max() < 1e-12
    everything = send(model, inputs, receivers=["*"], together=True)
    assert np.abs(everything.values.value.values[0] - part.corrupt).max() < 1e-10
    assert everything.plot().to_dict()
    small = send(model, inputs, senders=senders, receivers=receivers, memory_mib=1)
    assert np.abs(small.values.value - send(model, inputs, senders=senders, receivers=receivers).values.value).max() < 1e-12


def test_globs_and_defaults() -> None:
    model = build("grouped", dtype=torch.float64)
    inputs = pair(model)
    direct = send(model, inputs)
    graph, _ = prepared(model, inputs)
    assert direct.values.sender.values.tolist() == [u.name for u in graph.writers]
    some = send(model, inputs, senders=["L0H*"], receivers=["L1H?.q", "L1G*.k"])
    assert some.values.sender.values.tolist() == [f"L0H{h}" for h in range(4)]
    assert send(model, inputs, receivers=["L1*.v"]).values.sender.values.tolist() == ["embed", *(f"L0H{h}" for h in range(4)), "L0MLP"]
    for replacement in ("zero", "mean", "resample"):
        result = send(model, replace(inputs, reference=None), senders=["L0H1"], replacement=replacement)
        assert np.isfinite(result.values.effect.values).all()
        assert np.isnan(result.values.corrupt.values).all()
    own = path_patched(model, inputs, spec(senders=["L0H1"]), metric=lambda given: given.argmax(-1).double(), name="the top")
    assert "The number read is the top." in own.notes
    assert Result.from_json(direct.to_json()).digest() == direct.digest()
    assert "Paths into logits. All parts between are held" in direct.summary()


@pytest.mark.slow
def test_a_planted_lookup_sends_its_word_by_values_alone() -> None:
    """The word that is looked up differs between the two inputs: it reaches the later heads as a value, not as a query or key."""
    inputs, _ = swapped(32, 999)
    sent = lambda word: float(  # noqa: E731
        send(induction(), inputs, quantity="logit-difference", receivers=[f"L1H*.{word}"], together=True).mean()[0]
    )
    direct = send(induction(), inputs, quantity="logit-difference", senders=["L1H*"], together=True).mean()[0]
    whole = -float((send(induction(), inputs, quantity="logit-difference").values.clean.values).mean())
    assert sent("v") < 0.7 * whole  # most of the answer's fall, and the answer falls
    assert direct < 0.7 * whole
    assert abs(sent("q")) < 0.2 * abs(whole)


def test_what_makes_no_sense_says_so() -> None:
    model = build("grouped", dtype=torch.float64)
    inputs = pair(model)
    cases: list[tuple[dict[str, Any], dict[str, Any], type[AssayError], str]] = [
        ({"senders": []}, {}, BadValue, r"senders is \[\], but it must be at least one"),
        ({"receivers": []}, {}, BadValue, r"receivers is \[\], but it must be at least one"),
        ({"senders": ["L0H9"]}, {}, EmptySelection, "'L0H9' matches no sender of this gpt model's graph"),
        ({"receivers": ["L1H2.k"]}, {}, EmptySelection, "'L1H2.k' matches no receiver.*Nearest: 'L1"),  # keys are shared: L1G1.k
        ({"receivers": ["L5*"]}, {}, EmptySelection, "matches no receiver"),
        ({"senders": ["L1H0"], "receivers": ["L1H1.q"]}, {}, BadValue, "senders is 'L1H0', but it must be before a receiver.*layer 1"),
        ({"senders": ["L1MLP"], "receivers": ["L0MLP", "L1MLP"]}, {}, BadValue, "'L1MLP'.*Nothing goes from a part to an earlier one"),
        ({"positions": [7]}, {}, BadValue, r"positions is \[7\], but it must be different numbers from 0 to 6"),
        ({"positions": []}, {}, BadValue, "at least one"),
        ({}, {"reference": inputs.reference[:, :5]}, BadValue, "length of corrupt item 0"),
        ({}, {"reference": None}, BadValue, r"inputs\.reference is None"),
    ]
    for fields, changes, kind, words in cases:
        with pytest.raises(kind, match=words):
            send(model, replace(inputs, **changes), **fields)
    dropping = build({"dropout": 0.1}, dtype=torch.float64).train()
    with pytest.raises(BadValue, match="training, with dropout"):
        send(dropping, pair(dropping))
    with torch.no_grad():
        model.stack.blocks[1].get_parameter("mlp.out.weight")[0, 0] = float("nan")
    with pytest.raises(BadValue, match="NaN or infinity"):
        send(model, inputs)


@pytest.mark.parametrize(
    "name", ["activation-patching", "attribution-patching", "edge-attribution-patching", "circuit-discovery", "path-patching"]
)
def test_kl_compares_whole_answers_and_needs_no_target(name: str) -> None:
    """The same numbers without targets as with any; other quantities still ask for them."""
    tool, model = INSTRUMENTS.load(name), build("grouped", dtype=torch.float64)
    inputs = pair(model)
    more: dict[str, Any] = {"circuit-discovery": {"nulls": 1, "resamples": 2}, "edge-attribution-patching": {"method": "exact"}}.get(
        name, {}
    )
    without = replace(inputs, targets=None, foils=None)
    found, expected = (tool(model, one, tool.spec.parse({"quantity": "kl", **more})) for one in (without, inputs))
    assert "targets" not in tool.needs.given(tool.spec.parse({"quantity": "kl"}))
    for word, values in found.values.data_vars.items():
        np.testing.assert_array_equal(values.values, expected.values[word].values)
    with pytest.raises(BadValue, match=r"inputs\.targets is None"):
        tool(model, without, tool.spec.parse(more))
