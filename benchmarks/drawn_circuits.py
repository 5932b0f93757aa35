"""Circuits found in programs that were looked at while the instruments were written, and in programs that nobody had looked at.

    python benchmarks/drawn_circuits.py measure OUT.jsonl [--folder COMPILED] [--drawn]
    python benchmarks/drawn_circuits.py write OUT.jsonl

``measure`` appends a line a program: of those in COMPILED (one folder a program, as ``compiled_edges.py`` takes them), and of those drawn
from ``SEEDS`` (``workbench.organisms.drawn``); what OUT.jsonl has already is left alone. ``write`` puts the table into
``docs/benchmarks/drawn-circuits.md``. The seeds were fixed, with all of this file, before any instrument was asked about one of them;
seeds under 1000 are for trying things out.

The truth is what the answer comes from: components and edges from which a way leads to the read-out along the weights. An effect is the
largest over the program's examples and the positions read, as in ``compiled_edges.py``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import compiled_edges
import numpy as np

from probes import activation_patching, attribution_patching
from probes.edge_attribution_patching import Method
from workbench.adapters.compiled import Compiled, load
from workbench.core.stats.counts import rank_auc
from workbench.core.stats.resampling import bootstrap, mean
from workbench.engine.threads import one_thread
from workbench.organisms.drawn import draw, write

SEEDS = range(1000, 1024)
REPLACEMENTS = ("zero", "resample")
EDGES: tuple[Method, ...] = ("exact", "eap", "eap-ig-inputs")
NODES = ("exact", "slope")
GRIDS: tuple[dict[str, Any], ...] = ({"components": ["z"]}, {"components": ["mlp_out"], "per": []})
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "drawn-circuits.md"
HEADING = "## The numbers\n\n"
Found = dict[Any, float]


def nodes(model: Compiled, replacement: str, method: str) -> Found:
    """The largest effect of each head and MLP: patched, or to first order."""
    out: Found = {}
    for position, given in compiled_edges.questions(model, replacement):
        for grid in GRIDS:
            fields = {"replacement": replacement, **grid, "position": position}
            if method == "exact":
                spec = activation_patching.ActivationPatchingSpec.parse(fields)
                v: Any = activation_patching.patched(model, given, spec, metric=compiled_edges.told).values
            else:
                v = attribution_patching.attributed(
                    model, given, attribution_patching.AttributionPatchingSpec.parse(fields), metric=compiled_edges.told
                ).values
            for k in range(v.sizes["cell"]):
                head = int(v["head"][k])
                name = f"L{int(v['layer'][k])}{'MLP' if head < 0 else f'H{head}'}"
                out[name] = max(out.get(name, 0.0), float(np.abs(v.effect.values[k]).max()))
    return out


def circuit(model: Compiled) -> tuple[set[str], set[tuple[str, str]]]:
    """The components and edges from which a way leads to the read-out, along the weights."""
    state = model.state_dict()
    columns = state["unembed.own.weight"].any(0)
    size, found = model.config.d_head, set()
    todo = []
    for i in range(model.config.n_layers):
        out = state[f"stack.blocks.{i}.attn.o.weight"]
        todo += [f"L{i}H{h}" for h in range(model.config.n_heads) if out[columns, h * size : (h + 1) * size].any()]
        if state[f"stack.blocks.{i}.mlp.out.weight"][columns].any() or state[f"stack.blocks.{i}.mlp.out.bias"][columns].any():
            todo.append(f"L{i}MLP")
    while todo:
        name = todo.pop()
        if name not in found and name != "embed":
            found.add(name)
            todo += [writer for writer, reader in model.truth.edges if reader.partition(".")[0] == name]
    return found, {(writer, reader) for writer, reader in model.truth.edges if reader.partition(".")[0] in found}


def scored(found: Found, exact: Found, truth: set[Any]) -> dict[str, Any]:
    """The area under the ROC curve (None where one side is empty); how many of the truth are silent (patched, nothing moves), how many that
    do move something are lost (estimated below a hundredth of it), and how many outside move something all the same."""
    inside, outside = ([value for name, value in found.items() if (name in truth) == kind] for kind in (True, False))
    moving = [name for name in truth if exact[name] > compiled_edges.EFFECT]
    return {
        "auroc": float(rank_auc(inside, outside).value) if inside and outside else None,
        "true": len(truth), "possible": len(found), "silent": len(truth) - len(moving),
        "lost": sum(found[name] < compiled_edges.LOST * exact[name] for name in moving),
        "outside": sum(value > compiled_edges.EFFECT for value in outside),
    }  # fmt: skip


def row(model: Compiled, group: str) -> dict[str, Any]:
    """All numbers of one program."""
    live, edges = circuit(model)
    out: dict[str, Any] = {"program": model.truth.name, "group": group, "idle": len(set(model.truth.used) - live)}
    for replacement in REPLACEMENTS:
        for what, methods, measure, truth in (("components", NODES, nodes, live), ("edges", EDGES, compiled_edges.effects, edges)):
            exact: Found = {}
            for method in methods:
                found = measure(model, replacement, method)
                exact = exact or found
                out[f"{replacement} {what} {method}"] = scored(found, exact, truth)
    return out


def programs(folder: Path | None, drawn: bool) -> Iterator[tuple[str, str, Path | int]]:
    """(name, group, where from) of all that are asked for."""
    if drawn:
        yield from ((f"drawn-{seed}", "kept apart", seed) for seed in SEEDS)
    if folder is not None:
        yield from ((path.name, "looked at", path) for path in sorted(folder.iterdir()) if path.is_dir())


def measure(out: Path, folder: Path | None, drawn: bool) -> None:
    done = {json.loads(line)["program"] for line in out.read_text(encoding="utf-8").splitlines()} if out.is_file() else set()
    for name, group, source in programs(folder, drawn):
        if name in done:
            continue
        with tempfile.TemporaryDirectory() as place, one_thread():
            one = row(load(write(draw(source), Path(place)) if isinstance(source, int) else source), group)
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**one, "program": name}) + "\n")
        print(name, {key: value["auroc"] for key, value in one.items() if isinstance(value, dict)}, flush=True)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """In each cell the mean area over programs with its interval, and of the truth how many are silent, and of the others how many lost."""
    groups = [name for name in ("looked at", "kept apart") if any(one["group"] == name for one in rows)]
    lines = [f"| put in place | what | method | {' | '.join(groups)} |", "|---" * (3 + len(groups)) + "|"]
    for key in (key for key, value in rows[0].items() if isinstance(value, dict)):
        replacement, what, method = key.split(" ", 2)
        cells = [_cell([one[key] for one in rows if one["group"] == group]) for group in groups]
        lines.append(f"| {replacement} | {what} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: Sequence[dict[str, Any]]) -> str:
    areas = np.array([one["auroc"] for one in found if one["auroc"] is not None])
    told = bootstrap(areas, mean, level=0.95, bounds=(0.0, 1.0), seed=0) if len(areas) > 5 else None
    words = f"{areas.mean():.3f}" + (f" [{told.interval.low:.3f}, {told.interval.high:.3f}]" if told else "") + f" of {len(areas)}"
    true, silent, lost, outside = (sum(one[name] for one in found) for name in ("true", "silent", "lost", "outside"))
    return f"{words}; silent {silent} of {true}, lost {lost} of {true - silent}, outside {outside}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "write"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--drawn", action="store_true")
    given = parser.parse_args()
    if given.what == "measure":
        if not given.drawn and given.folder is None:
            parser.error("nothing to measure: say --drawn, --folder COMPILED or both")
        measure(given.out, given.folder, given.drawn)
        return
    rows = [json.loads(line) for line in given.out.read_text(encoding="utf-8").splitlines()]
    before = PAGE.read_text(encoding="utf-8").partition(HEADING)[0]
    PAGE.write_text(f"{before}{HEADING}{table(rows)}\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
