"""First-order patching against circuits that are known: what is unused has no slope; dropping slopes finds what a saturated unit hides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from probes.attribution_patching import AttributionPatchingSpec, attributed
from tests.adapters.test_compiled_patching import AROUND, EFFECT, KNOWN, auroc, examples, told
from workbench.adapters.compiled import Compiled, load
from workbench.core.protocol import Inputs


def estimated(model: Compiled) -> tuple[dict[str, float], dict[str, float]]:
    """The largest |effect| to first order, and the largest reach, of each head and MLP set to zero, over examples and positions."""
    ids, lengths = examples(model)
    plain: dict[str, float] = {}
    reach: dict[str, float] = {}
    for position in range(1, int(lengths.max())):
        longer = lengths > position
        given = Inputs(ids[longer], lengths[longer], targets=torch.zeros(int(longer.sum())).long())
        for grid in ({"components": ["z"]}, {"components": ["mlp_out"], "per": []}):
            spec = AttributionPatchingSpec.parse({"replacement": "zero", "grad_drop": True, **grid, "position": position})
            v = attributed(model, given, spec, metric=told).values
            for k in range(v.sizes["cell"]):
                head = int(v["head"][k])
                name = f"L{int(v['layer'][k])}{'MLP' if head < 0 else f'H{head}'}"
                plain[name] = max(plain.get(name, 0.0), float(np.abs(v.effect.values[k]).max()))
                reach[name] = max(reach.get(name, 0.0), float(v.reach.values[k].max()))
    return plain, reach


@pytest.mark.parametrize("folder", AROUND)
def test_what_is_unused_has_no_slope_and_what_is_used_is_ranked_above(folder: Path, record_property: Callable[[str, object], None]) -> None:
    model = load(folder)
    truth, (plain, reach) = model.truth, estimated(model)
    for found in (plain, reach):
        assert {name: value for name, value in found.items() if name not in truth.used and value > EFFECT} == {}
    record_property("no slope", sorted(name for name in truth.used if plain[name] <= EFFECT))
    if len(truth.used) < truth.possible:
        record_property("AUROC", auroc(plain, set(truth.used)))
        if truth.name in KNOWN:
            deep = truth.name == "shuffle_dyck2_1"  # ten of its parts are saturated on every example
            assert auroc(reach, set(truth.used)) >= (0.85 if deep else 1.0)
            assert auroc(plain, set(truth.used)) >= (0.65 if deep else 0.8)
            assert auroc({name: -value for name, value in plain.items()}, set(truth.used)) < 0.5  # a wrong ranking is noticed
