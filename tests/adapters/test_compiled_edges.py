"""Edges of compiled circuits: none outside the structural truth has an effect, whatever is put in place; inside, under zero, all but the
ones that are known to be silent have one. What the benchmark prints is what is tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.test_compiled import previous, written
from tests.adapters.test_compiled_patching import AROUND, FOLDERS, KNOWN, SILENT
from tests.scripts import script
from workbench.adapters.compiled import load

LARGE = ("shuffle_dyck2_1", "pair_balance_1", "reverse_1", "make_count_1", "frac_prevs_1")


# Some of the programs take minutes here, where every edge is cut: they are of the full tier.
EACH = [pytest.param(f, id=f.name, marks=pytest.mark.full if f.name in LARGE else pytest.mark.slow) for f in FOLDERS] or AROUND


@pytest.mark.parametrize("folder", EACH)
def test_edges_against_the_structural_truth(folder: Path) -> None:
    table, model = script("compiled_edges"), load(folder)
    truth = set(model.truth.edges)
    for replacement, method in (("zero", "exact"), ("zero", "eap"), ("mean", "exact")):
        found: dict[tuple[str, str], float] = table.effects(model, replacement, method)
        assert truth <= set(found)
        assert {edge: size for edge, size in found.items() if edge not in truth and size > table.EFFECT} == {}
        if method != "exact":  # estimates inside can be as small as rounding where attention is sharp
            continue
        silent = {edge for edge in truth if found[edge] <= table.EFFECT}
        if model.truth.name in KNOWN and replacement == "zero":
            assert silent == {edge for edge in SILENT.get(model.truth.name, set()) if isinstance(edge, tuple)}
        if len(truth) < len(found):
            assert table.area(found, truth) == pytest.approx(1 - 0.5 * len(silent) / len(truth))


@pytest.mark.slow
def test_a_circuit_by_hand_and_a_wrong_one(tmp_path: Path) -> None:
    table = script("compiled_edges")
    meta, arrays = previous()
    model = load(written(tmp_path / "hand", meta, arrays))
    true = {("embed", f"L0H0.{word}") for word in "qkv"}
    for method in table.METHODS:
        found = table.effects(model, "zero", method)
        seen = {edge for edge, size in found.items() if size > table.EFFECT}
        assert seen == true if method == "exact" else seen <= true  # where attention is sharp, its slope is lost
        assert table.area(found, seen) == 1.0
        assert table.area(found, {("L0H0", "L1MLP")}) < 0.5  # a wrong circuit is noticed
    one = table.row(model, ("zero", "mean"))
    assert (one["zero exact"], one["zero silent"], one["zero exact lost"], one["zero eap lost"]) == (
        0.875,
        1,
        0,
        2,
    )  # L0H0 to L1MLP, which nobody reads
