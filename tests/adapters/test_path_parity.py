"""Path patching as it is written by hand with TransformerLens's hooks, run on our weights, beside the instrument; and the edges of
its models."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from probes import INSTRUMENTS
from probes.path_patching import INSTRUMENT, PathPatchingSpec
from tests.adapters.test_transformer_lens import bridge_of, gpt2, neox, taken_in
from tests.families.models import build, tokens
from workbench.adapters import transformer_lens as tl
from workbench.core.errors import Incompatible
from workbench.core.protocol import Inputs

pytest.importorskip("transformer_lens")


def held(value: Tensor, hook: Any, cache: Any, other: Any, sender: tuple[int, int]) -> Tensor:
    """All heads at their clean outputs, the sender at its corrupt one."""
    value[:] = cache[hook.name]
    if hook.name.startswith(f"blocks.{sender[0]}."):
        value[:, :, sender[1]] = other[hook.name][:, :, sender[1]]
    return value


def of_cache(value: Tensor, hook: Any, cache: Any, heads: list[int] | None = None) -> Tensor:
    """All of it, or some heads, as in a cache."""
    if heads is None:
        value[:] = cache[hook.name]
    else:
        value[:, :, heads] = cache[hook.name][:, :, heads]
    return value


@pytest.mark.parametrize("through", ["mlps", pytest.param("nothing", marks=pytest.mark.slow)])
def test_the_same_paths_as_by_their_hooks(through: str) -> None:
    model = build("plain", dtype=torch.float64)
    clean, corrupt = tokens(model, 2, 5), tokens(model, 2, 5, seed=9)
    targets = torch.tensor([3, 4])
    presented: Any = tl.present(model)
    with torch.no_grad():
        _, cache = presented.run_with_cache(clean)
        _, other = presented.run_with_cache(corrupt)
        for receiver, heads in (("blocks.1.attn.hook_q", [2]), ("blocks.1.attn.hook_v", [0, 3]), ("blocks.1.hook_resid_post", None)):
            word = receiver[-1]
            names = ["logits"] if heads is None else [f"L1H{head}.{word}" for head in heads]
            first = [(f"blocks.{i}.attn.hook_z", partial(held, cache=cache, other=other, sender=(0, 1))) for i in (0, 1)]
            if through == "nothing":
                first += [(f"blocks.{i}.hook_mlp_out", partial(of_cache, cache=cache)) for i in (0, 1)]
            kept: dict[str, Tensor] = {}
            keep = (receiver, lambda value, hook, kept=kept: kept.update({hook.name: value.clone()}))
            presented.run_with_hooks(clean, fwd_hooks=[*first, keep])
            logits = presented.run_with_hooks(clean, fwd_hooks=[(receiver, partial(of_cache, cache=kept, heads=heads))])
            theirs = logits[torch.arange(2), -1, targets].numpy()
            spec = PathPatchingSpec.parse({"senders": ["L0H1"], "receivers": names, "through": through})
            ours: Any = INSTRUMENT(model, Inputs(clean, reference=corrupt, targets=targets), spec).values
            assert np.abs(ours.value.values[0] - theirs).max() < 1e-12
            assert np.abs(ours.effect.values).max() > 1e-3


@pytest.mark.full
def test_edges_of_their_models_are_those_of_ours(tmp_path: Path) -> None:
    """The same weights in a bridge: every edge, a circuit at each size, and the paths into the logits. Parts side by side are refused."""
    theirs = gpt2(torch.float64)
    ours = taken_in(theirs, tmp_path / "theirs")
    models = (tl.load(bridge_of(theirs)), ours)
    clean, corrupt = tokens(ours, 3, 6), tokens(ours, 3, 6, seed=9)
    inputs = Inputs(clean, reference=corrupt, targets=torch.tensor([1, 2, 3]))
    for name, fields in (
        ("edge-attribution-patching", {"method": "eap-ig-activations", "steps": 2, "confirm": 5}),
        ("circuit-discovery", {"by": "exact", "nulls": 1, "resamples": 2}),
        ("path-patching", {"through": "mlps"}),
    ):
        tool = INSTRUMENTS.load(name)
        one, two = (tool(model, inputs, tool.spec.parse(fields)).values for model in models)
        for variable in one.data_vars:
            if variable != "joins":
                assert np.allclose(one[variable], two[variable], atol=1e-9, equal_nan=True), (name, variable)
    beside = tl.load(bridge_of(neox()))
    with pytest.raises(Incompatible, match="the MLP of layer 0 does not read what its attention has written"):
        INSTRUMENTS.load("path-patching")(beside, inputs)
