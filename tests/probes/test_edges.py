"""Edges: patched one by one they are what hand-made edits give, together they are whole runs, and slopes are exact where all is linear."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from probes.edge_attribution_patching import (
    INSTRUMENT,
    EdgeAttributionPatchingResult,
    EdgeAttributionPatchingSpec,
    attributed,
    graph_for,
    patch_spec,
)  # fmt: skip
from probes.edge_graph import EdgeGraph
from probes.edge_runs import Part, parts_of, read_edges, run_circuits
from tests.families.models import build, logits, tokens
from tests.families.test_every_family import tiny
from workbench.core.errors import AssayError, BadValue, Incompatible
from workbench.core.protocol import Add, Apply, FromTrace, Inputs
from workbench.core.result import Result
from workbench.families.gpt import GPT

KINDS = ("plain", "grouped", "one_kv", "no_norm", "attention_only_bare")
METHODS = ("eap", "eap-ig-inputs", "eap-ig-activations")


def spec(**fields: Any) -> EdgeAttributionPatchingSpec:
    return EdgeAttributionPatchingSpec.parse(fields)


def pair(model: GPT, rows: int = 3) -> Inputs:
    clean, corrupt = (tokens(model, rows, 7, seed=seed) for seed in (1, 2))
    return Inputs(clean, reference=corrupt, targets=torch.arange(1, 1 + rows))


def score(model: GPT, inputs: Inputs, **fields: Any) -> EdgeAttributionPatchingResult:
    result = INSTRUMENT(model, inputs, spec(**fields))
    assert isinstance(result, EdgeAttributionPatchingResult)
    return result


def prepared(model: GPT, inputs: Inputs, **fields: Any) -> tuple[EdgeGraph, Part]:
    plan = read_edges(model, inputs, patch_spec(spec(**fields)))
    graph = graph_for(plan, "edges")
    (part,) = parts_of(plan, graph)
    return graph, part


def target(trace: Any, inputs: Inputs) -> np.ndarray:
    assert inputs.targets is not None
    return logits(trace)[torch.arange(len(inputs.batch)), -1, inputs.targets].double().numpy()


def linear() -> GPT:
    """Attention that is even whatever is read, no MLP and no norm: the answer is linear in every edge."""
    model = build("attention_only_bare", dtype=torch.float64)
    with torch.no_grad():
        for block in model.stack.blocks:
            block.get_parameter("attn.q.weight").zero_()
    return model


# --- the graph --------------------------------------------------------------------------------------------------


def test_the_graph_of_two_layers() -> None:
    model = build("grouped", dtype=torch.float64)
    graph, _ = prepared(model, pair(model))
    assert [u.name for u in graph.writers] == ["embed", *(f"L0H{h}" for h in range(4)), "L0MLP", *(f"L1H{h}" for h in range(4)), "L1MLP"]
    layer = lambda i: [*(f"L{i}H{h}.q" for h in range(4)), *(f"L{i}G{g}.{word}" for word in "kv" for g in range(2)), f"L{i}MLP"]  # noqa: E731
    assert [v.name for v in graph.readers] == [*layer(0), *layer(1), "logits"]
    assert len(graph) == len(graph.names) == 8 * 1 + 5 + 8 * 6 + 10 + 11
    assert graph.readers[graph.reader("L1G1.k")].of == ("L1H2", "L1H3")
    assert ("L1H0", "L1H1.q") not in graph.names
    assert ("L1H0", "L1MLP") in graph.names
    with pytest.raises(AssayError, match="no reader 'L1H9.q' in this model's graph"):
        graph.reader("L1H9.q")


@pytest.mark.parametrize("kind", KINDS)
def test_a_circuit_of_all_edges_is_the_clean_run_and_of_none_the_corrupt_one(kind: str) -> None:
    model = build(kind, dtype=torch.float64)
    inputs = pair(model)
    graph, part = prepared(model, inputs)
    inside = np.zeros((3, len(graph)), dtype=bool)
    inside[1] = True
    inside[2] = np.random.default_rng(0).random(len(graph)) > 0.5
    none, whole, some = run_circuits(part, inside, 1 << 30)
    assert np.abs(whole - target(model.run(inputs.batch), inputs)).max() < 1e-10
    assert np.abs(none - target(model.run(inputs.reference), inputs)).max() < 1e-10
    assert np.abs(some - whole).min() > 1e-3
    assert np.abs(run_circuits(part, inside, 1) - np.stack([none, whole, some])).max() < 1e-12  # one at a time


def test_a_circuit_is_what_edits_by_hand_make_layer_by_layer() -> None:
    """Twin: every layer is run from its start, its readers' inputs summed writer by writer."""
    model = build("no_norm", dtype=torch.float64)
    inputs = pair(model)
    graph, part = prepared(model, inputs)
    inside = np.random.default_rng(1).random((1, len(graph))) > 0.4
    kept = {names for names, keep in zip(graph.names, inside[0], strict=True) if keep}
    other = {u.name: part.other[:, :, k] for k, u in enumerate(graph.writers)}
    now: dict[str, Tensor] = {"embed": part.own[:, :, 0]}
    edits: list[Any] = []

    def rebuilt(name: str, site: str, at: dict[str, int]) -> None:
        change = sum(other[u] - value for u, value in now.items() if (u, name) not in kept)
        if isinstance(change, Tensor):
            edits.append(Add(site, value=change.unsqueeze(2) if at else change, at=at))

    for i in range(2):
        for word in "qkv":
            for h in range(4):
                rebuilt(f"L{i}H{h}.{word}", f"blocks.{i}.hook_{word}_input", {"head" if word == "q" else "kv_head": h})
        result = model.run(inputs.batch, edit=edits, capture=f"blocks.{i}.attn.hook_result")[f"blocks.{i}.attn.hook_result"]
        now |= {f"L{i}H{h}": result[:, :, h] for h in range(4)}
        rebuilt(f"L{i}MLP", f"blocks.{i}.hook_mlp_in", {})
        now[f"L{i}MLP"] = model.run(inputs.batch, edit=edits, capture=f"blocks.{i}.hook_mlp_out")[f"blocks.{i}.hook_mlp_out"]
    rebuilt("logits", "blocks.1.hook_resid_post", {})
    expected = target(model.run(inputs.batch, edit=edits), inputs)
    assert np.abs(run_circuits(part, inside, 1 << 30)[0] - expected).max() < 1e-10


# --- edges one by one -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pytest.param("grouped", marks=pytest.mark.slow), "attention_only_bare"])
def test_exact_is_one_run_an_edge(kind: str) -> None:
    """Twin: one edge at a time, by an edit made by hand; with one position, and with circuits that lack one edge."""
    model = build(kind, dtype=torch.float64)
    inputs = pair(model)
    graph, part = prepared(model, inputs)
    found, by_place = score(model, inputs, method="exact"), score(model, inputs, method="exact", per=["pos"])
    clean, corrupt = (model.run(ids, capture=graph.writer_sites) for ids in (inputs.batch, inputs.reference))
    plain = target(clean, inputs)
    for k, (u, v) in enumerate(graph.pairs):
        if k % 5:
            continue
        writer, reader = graph.writers[u], graph.readers[v]
        change = corrupt[writer.site] - clean[writer.site]
        change = change if writer.head is None else change[:, :, writer.head]
        for pos in (None, 3):
            moved = change if pos is None else change * (torch.arange(7) == pos)[:, None]

            def put(value: Tensor, _: Any, moved: Tensor = moved, head: int | None = reader.head) -> Tensor:
                out = value.clone()
                out[(slice(None), slice(None)) if head is None else (slice(None), slice(None), head)] += moved
                return out

            expected = target(model.run(inputs.batch, edit=[Apply(reader.site, fn=put)]), inputs) - plain
            here = found.values.effect.values[k] if pos is None else by_place.values.effect.values[7 * k + 3]
            assert np.abs(here - expected).max() < 1e-12
    lacking = ~np.eye(len(graph), dtype=bool)
    assert np.abs(run_circuits(part, lacking, 1 << 30) - part.clean - found.values.effect.values).max() < 1e-10


def test_on_a_linear_model_the_slope_is_exact() -> None:
    model, bent = linear(), build("attention_only_bare", dtype=torch.float64)
    inputs = pair(model, rows=2)
    for replacement, per in (("counterfactual", []), ("zero", []), ("mean", []), ("counterfactual", ["pos"])):
        given = inputs if replacement == "counterfactual" else replace(inputs, reference=None)
        exact = score(model, given, method="exact", replacement=replacement, per=per).values.effect.values
        assert np.abs(exact).max() > 0.1
        for method in METHODS:
            assert np.abs(score(model, given, method=method, replacement=replacement, per=per).values.effect - exact).max() < 1e-10
    twisted = score(bent, inputs, method="exact").values.effect.values
    assert np.abs(score(bent, inputs).values.effect.values - twisted).max() > 1e-2  # where attention reads, a slope is an estimate


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grouped", "no_norm"])
def test_integrated_slopes_add_up_to_what_they_integrate(kind: str) -> None:
    """Along its own way a group of writers brings, over all its edges, what patching the group brings; the input, all there is."""
    model = build(kind, dtype=torch.float64)
    inputs = pair(model)
    graph, part = prepared(model, inputs)
    corrupt = model.run(inputs.reference, capture=graph.writer_sites)
    whole = part.corrupt - part.clean
    near: dict[int, float] = {}
    exact = np.abs(whole).max()
    for steps in (1, 40):
        by_input, by_writer = (score(model, inputs, method=f"eap-ig-{which}", steps=steps) for which in ("inputs", "activations"))
        gaps = [np.abs(by_input.values.effect.values[[u == "embed" for u, _ in graph.names]].sum(0) - whole).max()]
        for site in graph.writer_sites:
            mine = {u.name for u in graph.writers if u.site == site}
            moved = target(model.run(inputs.batch, edit=[FromTrace(site.name, trace=corrupt)]), inputs) - part.clean
            summed = by_writer.values.effect.values[[u in mine for u, _ in graph.names]].sum(0)
            gaps.append(np.abs(summed - moved).max())
        near[steps] = max(gaps)
    assert near[40] < (0.01 if kind == "grouped" else 0.1) * exact  # ReLU bends the way at corners
    assert near[1] > 5 * near[40]


def test_the_strongest_predictions_are_patched_too() -> None:
    model = build("grouped", dtype=torch.float64)
    inputs = pair(model)
    found, exact = score(model, inputs, method="eap-ig-activations", steps=8, confirm=12), score(model, inputs, method="exact")
    known = np.isfinite(found.mean("exact"))
    assert known.sum() == 12
    assert np.abs(found.mean())[known].min() >= np.abs(found.mean())[~known].max()
    assert np.abs(found.values.exact.values[known] - exact.values.effect.values[known]).max() < 1e-12
    assert "Of the 12 strongest, patched as well, " in " ".join(found.notes)
    assert not np.isfinite(score(model, inputs, confirm=0).values.exact.values).any()
    assert "patched +" in found.summary() or "patched −" in found.summary()
    assert found.edges()["embed", "logits"] == pytest.approx(found.mean()[found.values.reader.values == "logits"][0])


def test_each_replacement_puts_what_it_says() -> None:
    model = build("grouped", dtype=torch.float64)
    inputs = replace(pair(model), reference=None)
    graph, _ = prepared(model, inputs, replacement="zero")
    k = graph.names.index(("L0H1", "L1MLP"))
    trace = model.run(inputs.batch, capture="blocks.0.attn.hook_result")
    value = trace["blocks.0.attn.hook_result"][:, :, 1]
    donors = [score(model, inputs, method="exact", replacement="resample", seed=s).values.effect.values[k] for s in (0, 0, 1)]
    read = lambda change: target(model.run(inputs.batch, edit=[Add("blocks.1.hook_mlp_in", value=change)]), inputs) - target(trace, inputs)  # noqa: E731
    for replacement, put in (("zero", torch.zeros_like(value)), ("mean", value.mean(0, keepdim=True))):
        effect = score(model, inputs, method="exact", replacement=replacement).values.effect.values[k]
        assert np.abs(effect - read(put - value)).max() < 1e-12
    assert np.array_equal(donors[0], donors[1])
    every = np.stack([read(value[[row] * 3] - value) for row in range(3)])
    assert all(np.abs(every[:, i] - donors[0][i]).min() < 1e-12 for i in range(3))


@pytest.mark.parametrize("method", ["eap", pytest.param("exact", marks=pytest.mark.slow)])
def test_padding_has_no_edges_and_does_not_matter(method: str) -> None:
    model = build("grouped", dtype=torch.float64)
    inputs = pair(model)
    longer: dict[str, Any] = {name: torch.cat([getattr(inputs, name), torch.zeros(3, 2).long()], 1) for name in ("batch", "reference")}
    padded = Inputs(**longer, lengths=torch.tensor([7, 7, 7]), targets=inputs.targets)
    alone, wide = (score(model, one, method=method, per=["pos"]).values for one in (inputs, padded))
    count = len(alone.edge) // 7
    found = wide.effect.values.reshape(count, 9, 3)
    assert np.isnan(found[:, 7:]).all()
    assert np.abs(found[:, :7] - alone.effect.values.reshape(count, 7, 3)).max() < 1e-12
    assert np.abs(score(model, padded, method=method).values.effect - score(model, inputs, method=method).values.effect).max() < 1e-12


def test_pixels_are_followed_too_and_stacks_of_several_are_not() -> None:
    model, batch = tiny("vit")
    rows = len(next(iter(vars(batch).values())))
    twin = batch.rows(list(range(rows))[::-1])
    inputs = Inputs(batch, reference=twin, targets=torch.zeros(rows).long())
    graph, part = prepared(model, inputs)
    inside = np.stack([np.zeros(len(graph), dtype=bool), np.ones(len(graph), dtype=bool)])
    none, whole = run_circuits(part, inside, 1 << 30)
    assert np.abs(none - part.corrupt).max() < 1e-10
    assert np.abs(whole - part.clean).max() < 1e-10
    assert Result.from_json(score(model, inputs).to_json()).plot().to_dict()
    for name, words in (("bert", "not additive"), ("seq2seq", "in 2 stacks"), ("clip", "in 2 stacks")):
        foreign, theirs = tiny(name)
        with pytest.raises(Incompatible, match=words):
            INSTRUMENT(foreign, Inputs(theirs, targets=torch.zeros(1).long()))


def test_sums_that_do_not_hold_are_refused() -> None:
    """A model whose attention is scaled after its heads, one whose MLP reads beside attention, one that adds something of its own."""
    model = build("plain", dtype=torch.float64)

    class Odd:
        def __init__(self, change: Any) -> None:
            self.change = change

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def run(self, batch: Any, **options: Any) -> Any:
            trace = model.run(batch, **options)
            for name, value in trace.at.items():
                self.change(name, value)
            return trace

    def scaled(name: str, value: Tensor) -> None:
        if name == "blocks.1.hook_attn_out":
            value *= 0.5

    def beside(name: str, value: Tensor) -> None:
        if name == "blocks.0.hook_mlp_in":
            value -= 0.25

    def more(name: str, value: Tensor) -> None:
        if name == "blocks.1.hook_resid_post":
            value += 0.5

    for change, words in ((scaled, "heads of layer 1 do not add up"), (beside, "MLP of layer 0 does not read"), (more, "to the stream")):
        odd: Any = Odd(change)
        with pytest.raises(Incompatible, match=words):
            score(odd, pair(model))


# --- bad input --------------------------------------------------------------------------------------------------


def test_what_makes_no_sense_says_so() -> None:
    model = build("grouped", dtype=torch.float64)
    inputs = pair(model)
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({}, {"reference": None}, r"inputs\.reference is None.*corrupt input"),
        ({}, {"reference": inputs.reference[:, :5]}, "length of corrupt item 0 is '5 tokens'"),
        ({}, {"reference": inputs.reference[:2]}, "number of corrupt items is 2"),
        ({"replacement": "zero"}, {}, r"inputs\.reference is 'given'"),
        ({"quantity": "kl"}, {}, "quantity is 'kl'.*no slope.*'eap-ig-inputs'"),
        ({"quantity": "logit-difference"}, {}, r"inputs\.foils is None"),
        ({"max_cells": 5}, {}, "number of cells is '82 of 3 items', but it must be at most 5"),
        ({"method": "exact", "max_cells": 20_000}, {}, "at most 200"),
        ({"replacement": "mean"}, {"reference": inputs.reference[:, :5]}, "width of inputs.reference is 5"),
    ]
    for fields, changes, words in cases:
        with pytest.raises(BadValue, match=words):
            score(model, replace(inputs, **changes), **fields)
    with pytest.raises(AssayError, match="method"):
        spec(method="acdc")
    with pytest.raises(AssayError, match="steps"):
        spec(steps=0)


def test_metrics_without_slope_or_shape_and_broken_models() -> None:
    model = build("grouped", dtype=torch.float64)
    inputs = pair(model)
    for method in METHODS:
        with pytest.raises(BadValue, match="metric's slope is 'none, in torch.float64'.*no argmax"):
            attributed(model, inputs, spec(method=method), metric=lambda given: given.argmax(-1).double())
    with pytest.raises(BadValue, match=r"metric's result is .*\(3,\): one number an item"):
        attributed(model, inputs, spec(), metric=lambda given: given)
    own = attributed(model, inputs, spec(), metric=lambda given: given[:, 3], name="the third logit")
    assert np.allclose(own.values.effect, score(model, replace(inputs, targets=torch.full((3,), 3))).values.effect)
    assert "The number read is the third logit." in own.notes
    counted = attributed(model, inputs, spec(method="exact"), metric=lambda given: given.argmax(-1).double()).values.effect.values
    assert (counted == counted.round()).all()
    dropping = build({"dropout": 0.1}, dtype=torch.float64).train()
    with pytest.raises(BadValue, match="training, with dropout"):
        score(dropping, pair(dropping))
    frozen = build("grouped", dtype=torch.float64).requires_grad_(False)
    assert np.array_equal(score(frozen, inputs).values.effect, score(model, inputs).values.effect)
    with torch.no_grad():
        model.stack.blocks[1].get_parameter("mlp.out.weight")[0, 0] = float("nan")
    with pytest.raises(BadValue, match="NaN or infinity"):
        score(model, inputs)


def test_an_infinite_slope_is_named() -> None:
    """The value is finite and its slope is not."""
    model = build("grouped", dtype=torch.float64)
    with pytest.raises(BadValue, match="gradient at a reader is 'NaN or infinity'"):
        attributed(model, pair(model), spec(), metric=lambda given: (given[:, 0] * 0.0).abs().sqrt())


def test_an_interrupted_patching_keeps_what_it_has() -> None:
    model = build("grouped", dtype=torch.float64)

    def stop(done: int, total: int, words: str = "") -> None:
        raise KeyboardInterrupt

    part = INSTRUMENT(model, pair(model), spec(method="exact"), progress=stop)
    known = np.isfinite(part.values.effect.values).all(1)
    assert 0 < known.sum() < len(known)
    assert part.stopped_early
    assert part.notes[-1] == f"Interrupted: {(~known).sum()} of {len(known)} edges were not patched."
    many = replace(
        pair(model, rows=20), targets=torch.zeros(20, dtype=torch.long)
    )  # more than one part: what comes after the one it was stopped in is not begun
    assert INSTRUMENT(model, many, spec(method="exact"), progress=stop).values.effect.isel(batch=slice(16, None)).isnull().all()
    with pytest.raises(KeyboardInterrupt):
        INSTRUMENT(model, pair(model), spec(), progress=stop)
