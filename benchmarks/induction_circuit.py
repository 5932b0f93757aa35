"""The induction circuit of a model trained here, edge by edge: ``python benchmarks/induction_circuit.py [--seeds 1 2 3] [--home DIR]``.

Trains `gpt-repeats` with each seed (some minutes a seed) and asks what happens at the second time of a symbol in a repeated string. Clean
rows are 16 different symbols and their first 8 again; in the corrupt twin the last symbol's first time is another symbol, so that nothing
tells what comes next. The number read is the logit of the symbol that followed, less that of another in the string. Printed, beside the
same of the model's first weights: circuits by every ranking, their edges at 20 %, and what the head of previous tokens sends to the
queries, keys and values of the second layer (path patching).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from probes.circuit_discovery import CircuitDiscoverySpec, discovered
from probes.circuit_result import CircuitDiscoveryResult
from probes.path_patching import PathPatchingSpec, path_patched
from workbench.core.protocol import HookedModel, Inputs
from workbench.lab.run import train
from workbench.store.runs import Store

PERIOD, AGAIN, SYMBOLS = 16, 8, 64
RANKINGS: dict[str, dict[str, Any]] = {
    "exact": {"by": "exact"}, "eap": {"by": "eap"}, "eap-ig-inputs": {}, "eap-ig-activations": {"by": "eap-ig-activations"},
    "greedy-pruning": {"method": "greedy-pruning", "threshold": 0.3},
}  # fmt: skip


def strings(count: int, seed: int) -> Inputs:
    """Rows with their twins, what followed the last symbol the first time as target, and another symbol of the string as foil."""
    draw = np.random.default_rng(seed)
    drawn = np.stack([draw.permutation(SYMBOLS)[: PERIOD + 1] for _ in range(count)])
    string, instead = drawn[:, :PERIOD], drawn[:, PERIOD]
    clean = np.concatenate([string, string[:, :AGAIN]], 1)
    corrupt = clean.copy()
    corrupt[:, AGAIN - 1] = instead
    target, foil = string[:, AGAIN], string[:, AGAIN + 4]
    return Inputs(torch.from_numpy(clean), None, torch.from_numpy(corrupt), targets=torch.from_numpy(target), foils=torch.from_numpy(foil))


def circuit(model: HookedModel, inputs: Inputs, ranking: str) -> CircuitDiscoveryResult:
    """The circuits that a ranking finds."""
    return discovered(model, inputs, CircuitDiscoverySpec.parse({"quantity": "logit-difference", **RANKINGS[ranking]}))


def sent(model: HookedModel, inputs: Inputs, receivers: str) -> dict[str, float]:
    """The mean effect of each earlier part on the direct way into ``receivers``."""
    result = path_patched(model, inputs, PathPatchingSpec(quantity="logit-difference", receivers=(receivers,)))
    return dict(zip(result.values.sender.values.tolist(), result.mean().tolist(), strict=True))


def told(words: str, model: HookedModel, inputs: Inputs) -> None:
    """Print what is found."""
    for ranking in RANKINGS:
        result = circuit(model, inputs, ranking)
        v: Any = result.values
        if ranking == "exact":
            ends = f"clean {float(v.value[0].mean()):.2f}, corrupt {float(v.value[1].mean()):.2f}"
            print(f"{words}: {int(v.edges[0])} edges; {ends}")
        curve, rest, null = (result.curve(kind).set_index("size") for kind in ("found", "complement", "random"))
        sizes = ", ".join(
            f"{100 * size:g} % ({int(curve.edges[size])} edges) {curve.faithfulness[size]:.3f} [{curve.low[size]:.3f}, "
            f"{curve.high[size]:.3f}], left {rest.faithfulness[size]:.3f}, random at most {null.high[size]:.3f}, "
            f"stability {curve.stability[size]:.2f}"
            for size in (0.1, 0.2, 0.5)
        )
        print(f"  {ranking}: {sizes}; CPR {float(v.cpr):.3f} ({float(v.random_cpr):.3f}), log {float(v.cpr_log):.3f}")
        print(f"    at 20 %: {', '.join(f'{u}>{r}' for u, r in result.circuit(0.2))}")
    for receivers in ("L1H*.q", "L1H*.k", "L1H*.v", "logits"):
        strongest = sorted(sent(model, inputs, receivers).items(), key=lambda one: -abs(one[1]))[:4]
        print(f"  into {receivers}: {', '.join(f'{name} {value:+.2f}' for name, value in strongest)}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--home", default="assay-runs/textbook")
    given = parser.parse_args(argv)
    store = Store.open(given.home)
    for seed in given.seeds:
        model: Any = train("gpt-repeats", settings={"train": {"seed": seed}}, store=store).model
        told(f"gpt-repeats, seed {seed}", model, strings(32, 0))
        told("its first weights", type(model)(model.config, model.tokenizer, seed=seed).eval(), strings(32, 0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
