"""Drawn programs: weights do what the program means, the folder's truth is that of its weights, and idle components change nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.scripts import script
from workbench.adapters.compiled import Compiled, load
from workbench.core.errors import BadValue
from workbench.core.protocol import Edit, Zero
from workbench.organisms.drawn import BOS, Part, Program, draw, examples, write

SEEDS = (0, 1, 2)
"""The benchmark keeps those from 1000 on for itself."""


def differs(model: Compiled) -> list[int]:
    return [i for i, one in enumerate(model.truth.examples) if model.outputs(one.given[1:]) != list(one.expected)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_drawn_program_does_what_it_means(seed: int, tmp_path: Path) -> None:
    program = draw(seed)
    model = load(write(program, tmp_path))  # which holds the stated components and edges against the weights
    assert differs(model) == []
    assert 3 <= len(program.live()) < len(program.parts)
    assert len({one.expected[1:] for one in model.truth.examples}) > 3
    again = draw(seed)
    assert (again.parts[0].reads, again.output, again.live()) == (program.parts[0].reads, program.output, program.live())
    assert examples(again) == examples(program)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_idle_changes_nothing_and_what_is_live_is_found_along_the_weights(seed: int, tmp_path: Path) -> None:
    script("compiled_edges")
    table, program = script("drawn_circuits"), draw(seed)
    model = load(write(program, tmp_path))
    live, edges = table.circuit(model)
    assert live == program.live()
    assert edges == {edge for part in program.parts if part.name in live for edge in part.edges()}
    ids = torch.tensor([[model.symbols.bos_id, *model.symbols.ids(given)] for given in examples(program)[:20]])
    idle = [part.name for part in program.parts if part.name not in live]
    edits: list[Edit] = []
    for name in idle:
        layer, _, head = name[1:].partition("H")
        mlp = f"blocks.{name[1:-3]}.hook_mlp_out"
        edits.append(Zero(f"blocks.{layer}.attn.hook_z", at={"head": int(head)}) if head else Zero(mlp))
    plain, edited = model.run(ids).logits, model.run(ids, edit=edits).logits
    assert plain is not None
    assert edited is not None
    assert torch.equal(plain, edited)


def test_induction_by_hand(tmp_path: Path) -> None:
    """After what did this symbol come the last time? A shift by one gives the keys, and the symbols are the queries."""
    parts = (Part("L0H0", "shift", ("embed",), by=1), Part("L1H1", "lookup", ("embed", "embed", "L0H0")))
    program = Program("induction", ("a", "b", "c"), 2, parts, "L1H1")
    assert program.run(["a", "b", "c", "a", "a"]) == [BOS, BOS, BOS, BOS, "b", "a"]
    assert program.live() == {"L0H0", "L1H1"}
    model = load(write(program, tmp_path))
    assert differs(model) == []
    assert set(model.truth.edges) == {
        ("embed", "L0H0.q"), ("embed", "L0H0.k"), ("embed", "L0H0.v"),
        ("embed", "L1H1.q"), ("embed", "L1H1.k"), ("L0H0", "L1H1.k"), ("embed", "L1H1.v"),
    }  # fmt: skip


def test_a_wrong_table_is_noticed_and_so_is_a_wrong_seed(tmp_path: Path) -> None:
    program = draw(1)
    table = next(part for part in program.parts if part.op == "table" and part.name in program.live())
    turned = Part(table.name, "table", table.reads, table=(table.table + 1) % len(program.values))
    other = Program(
        program.name, program.symbols, program.layers, tuple(turned if p is table else p for p in program.parts), program.output
    )
    write(other, tmp_path / "other")
    arrays = (tmp_path / "other" / "params.npz").read_bytes()
    write(program, tmp_path / "mixed")
    (tmp_path / "mixed" / "params.npz").write_bytes(arrays)
    assert differs(load(tmp_path / "mixed")) != []
    with pytest.raises(BadValue, match="0 or more"):
        draw(-1)


def test_scores_by_hand() -> None:
    script("compiled_edges")
    table = script("drawn_circuits")
    exact = {"a": 1.0, "b": 0.5, "c": 0.0, "d": 0.0, "e": 0.2}
    found = table.scored({"a": 1.0, "b": 0.001, "c": 0.3, "d": 0.0, "e": 0.0}, exact, {"a", "b", "c"})
    assert found == {"auroc": pytest.approx(1.0), "true": 3, "possible": 5, "silent": 1, "lost": 1, "outside": 0}
    assert table.scored(exact, exact, {"a", "c"})["auroc"] == pytest.approx((3 + 0.5) / 6)
    assert table.scored(exact, exact, {"a", "c"})["outside"] == 2
    assert table.scored(exact, exact, set(exact))["auroc"] is None
    assert np.isfinite(found["auroc"])
