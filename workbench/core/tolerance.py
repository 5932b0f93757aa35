"""How far two computations of one quantity may lie apart: one table by dtype and operation, with the reason.

A gap within the table is rounding; beyond it, or in float64 beyond 1e-12 relative, it is a bug.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from workbench.core.errors import BadValue

Operation = Literal["logits", "activation", "attention", "loglik", "gradient"]


@dataclass(frozen=True)
class Tolerance:
    """``|Δ| <= bound * max(1, largest |value|)`` for a tensor; for ``loglik`` the bound is per scored token and absolute."""

    bound: float
    reason: str


_F32 = "float32 keeps 24 bits (6e-8); sums of some hundred terms through a few layers, in another order, reach tens of roundings"
_F64 = "float64 keeps 53 bits (1.1e-16); the same sums stay below 1e-12, and any real difference of definition is far above it"
_BF16 = "bfloat16 keeps 8 bits (2**-9 a rounding); every activation between two blocks is rounded, some ten a layer"
_F16 = "float16 keeps 11 bits (2**-12 a rounding); every activation between two blocks is rounded, some ten a layer"
_SUM = "a token's log-probability is one logit less a logsumexp in float32; errors of tokens add up"
_GRAD = "a gradient passes every sum twice, and sums over the batch besides"

TOLERANCES: dict[tuple[torch.dtype, Operation], Tolerance] = {
    (torch.float64, "logits"): Tolerance(1e-12, _F64),
    (torch.float64, "activation"): Tolerance(1e-12, _F64),
    (torch.float64, "attention"): Tolerance(1e-12, _F64),
    (torch.float64, "loglik"): Tolerance(1e-12, _F64),
    (torch.float64, "gradient"): Tolerance(1e-11, _GRAD),
    (torch.float32, "logits"): Tolerance(2e-6, _F32),
    (torch.float32, "activation"): Tolerance(2e-6, _F32),
    (torch.float32, "attention"): Tolerance(2e-6, _F32),
    (torch.float32, "loglik"): Tolerance(1e-5, _SUM),
    (torch.float32, "gradient"): Tolerance(1e-5, _GRAD),
    (torch.bfloat16, "logits"): Tolerance(4e-2, _BF16),
    (torch.bfloat16, "activation"): Tolerance(4e-2, _BF16),
    (torch.bfloat16, "attention"): Tolerance(1e-2, "one attention: its inputs are equal, its output is rounded to bfloat16 once or twice"),
    (torch.float16, "logits"): Tolerance(5e-3, _F16),
    (torch.float16, "activation"): Tolerance(5e-3, _F16),
    (torch.float16, "attention"): Tolerance(1.5e-3, "one attention: its inputs are equal, its output is rounded to float16 once or twice"),
}


def tolerance(dtype: torch.dtype, operation: Operation) -> Tolerance:
    """The line of the table; BadValue where there is none (no claim is made for that pair)."""
    if (dtype, operation) not in TOLERANCES:
        raise BadValue("dtype and operation", f"{dtype}, {operation}", f"one of {', '.join(f'{d} {o}' for d, o in TOLERANCES)}")
    return TOLERANCES[dtype, operation]


def gap(found: Tensor, expected: Tensor) -> float:
    """The largest ``|found - expected|`` over ``max(1, largest finite |expected|)``; infinite where shapes, NaNs or infinities differ.

    Equal infinities agree (masked scores are -inf in both).
    """
    if found.shape != expected.shape:
        return float("inf")
    wide = torch.promote_types(found.dtype, torch.float64)
    a, b = found.detach().to(wide), expected.detach().to(wide)
    finite = a.isfinite() & b.isfinite()
    if bool((~finite & ~(a == b)).any()):
        return float("inf")
    if not bool(finite.any()):
        return 0.0
    return float((a[finite] - b[finite]).abs().max() / max(1.0, float(b[finite].abs().max())))


def agree(found: Tensor, expected: Tensor, operation: Operation, dtype: torch.dtype | None = None) -> bool:
    """Whether two tensors differ by rounding alone; ``dtype`` is what they were computed in (default: that of ``found``)."""
    return gap(found, expected) <= tolerance(dtype or found.dtype, operation).bound
