"""A published model of random weights beside ours made from it: everything both can show, compared by the table of tolerances."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from workbench.adapters import hf
from workbench.core.protocol import Trace
from workbench.core.tolerance import Operation, gap, tolerance


def shaken(model: Any, seed: int = 0) -> Any:
    """The published model in evaluation mode with every weight moved, so that no bias is zero and no norm is one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype), alpha=0.1)
    return model.eval()


def taken_in(theirs: Any, folder: Path) -> Any:
    """Ours, from the folder that the published library writes of ``theirs``."""
    theirs.save_pretrained(folder)
    return hf.load(folder)


def same_state(theirs: Any, ours: Any, folder: Path, kind: str = "") -> None:
    """Export ``ours`` and let the published library open it: every tensor must be the one it came from."""
    hf.save(ours, folder, kind)
    again, loading = type(theirs).from_pretrained(folder, output_loading_info=True, dtype=next(theirs.parameters()).dtype)
    assert not any(loading[f"{word}_keys"] for word in ("missing", "unexpected", "mismatched")), loading
    before, after = theirs.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


def compared(trace: Trace, expected: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Every named site of ``trace`` (``logits`` among them) against the published tensor."""
    for name, theirs in expected.items():
        found = trace.logits if name == "logits" else trace[name]
        assert found is not None, name
        kind: Operation = "logits" if name == "logits" else "attention" if name.endswith("hook_pattern") else "activation"
        distance = gap(found, theirs)
        assert distance <= tolerance(dtype, kind).bound, f"{name}: {distance:.2e}"


def streams(prefix: str, hidden: Any, *, last_is_normed: bool) -> dict[str, Any]:
    """The published ``hidden_states`` by our names: before each layer, and after the last where no norm follows it there."""
    layers = len(hidden) - 1
    out = {f"{prefix}blocks.{i}.hook_resid_pre": hidden[i] for i in range(layers)}
    return out if last_is_normed else out | {f"{prefix}blocks.{layers - 1}.hook_resid_post": hidden[-1]}


def patterns(prefix: str, attentions: Any, part: str = "attn") -> dict[str, Any]:
    """The published attention weights by our names."""
    return {f"{prefix}blocks.{i}.{part}.hook_pattern": weights for i, weights in enumerate(attentions)}
