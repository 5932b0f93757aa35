"""Patching against circuits that are known, by zero ablation: what the weights do not have has no effect; what they have has one on the
program's examples, or is listed by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from probes.activation_patching import ActivationPatchingSpec, patched
from tests.adapters.test_compiled import FOLDERS, SHARED, previous, written
from workbench.adapters.compiled import Compiled, load
from workbench.core.protocol import Add, Edit, Inputs
from workbench.engine.sweep import prepare

EFFECT = 1e-6
# What is in the weights and moves nothing on the examples of the shared folder, under zero ablation.
SILENT: dict[str, set[str | tuple[str, str]]] = {
    "length_categorical_1": {("embed", "L0H0.q"), ("embed", "L0H0.k")},  # attention is even: scores of zero say the same
    "reverse_1": {("embed", "L0H0.q"), ("embed", "L0H0.k")},
    "shuffle_dyck2_1": {("embed", f"L{reader}") for reader in ("0H0.q", "0H0.k", "5H0.q", "6H0.q", "6H0.k")},
}
"""Where a program is not listed here (other folders of this layout), what is silent is recorded with the test, not compared."""
KNOWN = (
    "detect_pattern_ab", "frac_prevs_1", "hist", "length_categorical_1", "make_count_1", "pair_balance_1", "reverse_1", "shift_by_one",
    "shuffle_dyck2_1", "sort_1", "sort_unique_1", "xproportion",
)  # fmt: skip
FOLDED = [pytest.param(folder, id=folder.name, marks=pytest.mark.full if "dyck" in folder.name else pytest.mark.slow) for folder in FOLDERS]
AROUND = FOLDED or [pytest.param(None, marks=pytest.mark.skip(reason=f"no compiled circuits at {SHARED}"))]


def examples(model: Compiled) -> tuple[Tensor, Tensor]:
    """The examples that say anything (longer than their BOS), padded, and their lengths."""
    rows = [model.symbols.ids(one.given) for one in model.truth.examples if len(one.given) > 1]
    width = max(map(len, rows))
    padded = torch.tensor([row + [model.symbols.pad_id] * (width - len(row)) for row in rows])
    return padded, torch.tensor([len(row) for row in rows])


def told(logits: Tensor) -> Tensor:
    """A number that every answer moves."""
    return (logits.double() * torch.linspace(1.0, 2.0, logits.shape[-1], dtype=torch.float64)).sum(-1)


def nodes(model: Compiled) -> dict[str, float]:
    """The largest effect of each head and MLP, over examples and positions after BOS, set to zero at every position."""
    ids, lengths = examples(model)
    zero = {"replacement": "zero"}
    out: dict[str, float] = {}
    for position in range(1, int(lengths.max())):
        longer = lengths > position
        given = Inputs(ids[longer], lengths[longer], targets=torch.zeros(int(longer.sum())).long())
        for grid in ({"components": ["z"]}, {"components": ["mlp_out"], "per": []}):
            v = patched(model, given, ActivationPatchingSpec.parse({**zero, **grid, "position": position}), metric=told).values
            for k in range(v.sizes["cell"]):
                head = int(v["head"][k])
                name = f"L{int(v['layer'][k])}{'MLP' if head < 0 else f'H{head}'}"
                out[name] = max(out.get(name, 0.0), float(np.abs(v.effect.values[k]).max()))
    return out


def edges(model: Compiled) -> dict[tuple[str, str], float]:
    """The largest effect of each writer that comes before each reader, taken out of what that reader alone sees."""
    ids, lengths = examples(model)
    c = model.config
    trace = model.run(ids, capture=["hook_embed", "hook_pos_embed", "blocks.*.attn.hook_result", "blocks.*.hook_mlp_out"])
    writers = {"embed": trace["hook_embed"] + trace["hook_pos_embed"]}
    cells: dict[tuple[str, str], Edit] = {}
    for i in range(c.n_layers):
        for h in range(c.n_heads):
            for word in "qkv":
                at = {"head" if word == "q" else "kv_head": h}
                for name, value in writers.items():
                    cells[name, f"L{i}H{h}.{word}"] = Add(f"blocks.{i}.hook_{word}_input", value=-value.unsqueeze(2), at=at)
        writers |= {f"L{i}H{h}": trace[f"blocks.{i}.attn.hook_result"][:, :, h] for h in range(c.n_heads)}
        cells |= {(name, f"L{i}MLP"): Add(f"blocks.{i}.hook_mlp_in", value=-value) for name, value in writers.items()}
        writers[f"L{i}MLP"] = trace[f"blocks.{i}.hook_mlp_out"]
    counted = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)) & (torch.arange(ids.shape[1]) > 0)
    ready = prepare(model, ids, list(cells.values()), logits="all")
    plain = ready.plain(told)
    names = list(cells)
    return {names[index]: float((value - plain)[counted].abs().max()) for index, value in ready.results(told)}


def auroc(effects: dict[str, float], truth: set[str]) -> float:
    """The chance that a node of the circuit has a larger effect than one that is not, ties counted half."""
    inside, outside = ([value for name, value in effects.items() if (name in truth) == kind] for kind in (True, False))
    return float(np.mean([(a > b) + 0.5 * (a == b) for a in inside for b in outside]))


@pytest.mark.parametrize("folder", AROUND)
def test_the_circuit_is_found_in_every_program(folder: Path, record_property: Callable[[str, object], None]) -> None:
    model = load(folder)
    truth, found, by_edge = model.truth, nodes(model), edges(model)
    assert len(found) == truth.possible
    assert {name: value for name, value in found.items() if name not in truth.used and value > EFFECT} == {}
    assert set(truth.edges) <= set(by_edge)
    assert {pair: value for pair, value in by_edge.items() if pair not in truth.edges and value > EFFECT} == {}
    silent = {name for name in truth.used if found[name] <= EFFECT}
    quiet = {pair for pair in truth.edges if by_edge[pair] <= EFFECT}
    record_property("silent nodes and edges", sorted(map(str, silent | quiet)))
    if len(truth.used) < truth.possible:
        assert auroc({name: value for name, value in found.items() if name not in silent}, set(truth.used)) == 1.0
    if truth.name in KNOWN:
        assert silent | quiet == SILENT.get(truth.name, set())


def test_a_circuit_by_hand_and_a_wrong_one(tmp_path: Path) -> None:
    """L0H0 is read; L1MLP writes where nobody reads, so it has no effect, and the other two components are empty."""
    meta, arrays = previous()
    model = load(written(tmp_path / "hand", meta, arrays))
    found = nodes(model)
    assert {name for name, value in found.items() if value > EFFECT} == {"L0H0"}
    assert auroc(found, {"L0H0"}) == 1.0
    assert auroc(found, {"L0MLP"}) < 0.5  # a wrong circuit is noticed
    by_edge = edges(model)
    assert {pair for pair, value in by_edge.items() if value > EFFECT} == {("embed", f"L0H0.{word}") for word in "qkv"}
