"""TransformerLens's own patching sweeps, run on our weights, beside the instrument: the same grid, cell by cell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from probes.activation_patching import INSTRUMENT, ActivationPatchingResult, ActivationPatchingSpec
from tests.families.models import build, tokens
from workbench.adapters import transformer_lens as tl
from workbench.core.protocol import Inputs

lens = pytest.importorskip("transformer_lens")
patching: Any = lens.patching
SLOW = pytest.mark.slow

# their function, our component, our grid, and where our axes lie in theirs
SWEEPS: dict[str, tuple[Any, str, tuple[str, ...], tuple[str, ...]]] = {
    "resid_pre": (patching.get_act_patch_resid_pre, "resid_pre", ("pos",), ("layer", "pos")),
    "resid_mid": (patching.get_act_patch_resid_mid, "resid_mid", ("pos",), ("layer", "pos")),
    "attn_out": (patching.get_act_patch_attn_out, "attn_out", ("pos",), ("layer", "pos")),
    "mlp_out": (patching.get_act_patch_mlp_out, "mlp_out", ("pos",), ("layer", "pos")),
    "out": (patching.get_act_patch_attn_head_out_all_pos, "z", ("head",), ("layer", "head")),
    "q": (patching.get_act_patch_attn_head_q_all_pos, "q", ("head",), ("layer", "head")),
    "k": (patching.get_act_patch_attn_head_k_all_pos, "k", ("head",), ("layer", "head")),
    "v": (patching.get_act_patch_attn_head_v_all_pos, "v", ("head",), ("layer", "head")),
    "pattern": (patching.get_act_patch_attn_head_pattern_all_pos, "pattern", ("head",), ("layer", "head")),
    "out_by_pos": (patching.get_act_patch_attn_head_out_by_pos, "z", ("head", "pos"), ("layer", "pos", "head")),
    "q_by_pos": (patching.get_act_patch_attn_head_q_by_pos, "q", ("head", "pos"), ("layer", "pos", "head")),
    "k_by_pos": (patching.get_act_patch_attn_head_k_by_pos, "k", ("head", "pos"), ("layer", "pos", "head")),
    "v_by_pos": (patching.get_act_patch_attn_head_v_by_pos, "v", ("head", "pos"), ("layer", "pos", "head")),
    "pattern_by_pos": (patching.get_act_patch_attn_head_pattern_by_pos, "pattern", ("head", "pos"), ("layer", "head", "pos")),
    "pattern_dest_src": (
        patching.get_act_patch_attn_head_pattern_dest_src_pos, "pattern", ("head", "pos", "key"), ("layer", "head", "pos", "key"),
    ),
}  # fmt: skip


@contextmanager
def default_of(dtype: torch.dtype) -> Iterator[None]:
    """Their sweeps keep results in torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("sweep", [name if name in ("resid_pre", "out_by_pos", "k") else pytest.param(name, marks=SLOW) for name in SWEEPS])
@pytest.mark.parametrize("name", ["grouped", pytest.param("one_kv", marks=SLOW)])
def test_the_same_grid_as_theirs(name: str, sweep: str) -> None:
    function, component, per, order = SWEEPS[sweep]
    model = build(name, dtype=torch.float64)
    clean, corrupt = tokens(model, 2, 5), tokens(model, 2, 5, seed=9)
    corrupt[:, 0] = clean[:, 0]  # a position that both share: theirs runs it, ours knows
    targets, foils = torch.tensor([3, 4]), torch.tensor([5, 6])
    rows = torch.arange(2)

    def metric(out: Tensor) -> Tensor:
        return (out[rows, -1, targets] - out[rows, -1, foils]).mean()

    presented = tl.present(model)
    with torch.no_grad(), default_of(torch.float64):
        _, cache = presented.run_with_cache(clean)
        theirs = function(presented, corrupt, cache, metric).numpy()
    spec = ActivationPatchingSpec.parse({"components": [component], "per": list(per), "quantity": "logit-difference"})
    result = INSTRUMENT(model, Inputs(clean, reference=corrupt, targets=targets, foils=foils), spec)
    assert isinstance(result, ActivationPatchingResult)
    ours = result.grid(of="value").transpose(*order).values
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-12 * max(1.0, np.abs(theirs).max())
    assert np.ptp(theirs) > 1e-3  # patches move the answer, so that equal is no coincidence
