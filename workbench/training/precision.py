"""In what precision a training step is computed. Weights and optimizer state stay as they are (float32, unless the model is wider).

Under ``bf16`` and ``fp16`` matrix products and fused attention are computed in 16 bits (torch's autocast). Norms, softmax and losses
are not: each part of the model widens what it sums. float16 has few exponents, so its gradients are scaled up before the backward pass
(Micikevicius et al. 2018) and a step whose gradients still overflow is skipped, counted, and repeated at half the scale by the next.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch

Precision = Literal["float32", "bf16", "fp16"]
LOW: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
BAND: dict[Precision, float] = {"float32": 0.0, "bf16": 0.005, "fp16": 0.005}
"""How far, as a share of it, a final loss may lie from the float32 one, on the runs of ``docs/training/precision.md``."""


def computing(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass."""
    return torch.autocast(device.type, dtype=LOW[precision]) if precision in LOW else contextlib.nullcontext()


class Scaler:
    """The factor that float16 gradients are scaled by: a power of two, so scaling itself rounds nothing.

    It is halved where gradients overflow and doubled after ``GROWTH`` steps without. ``skipped`` are the steps that were not taken.
    """

    START, GROWTH, LEAST = 2.0**16, 2000, 2.0**-14

    def __init__(self) -> None:
        self.scale, self.good, self.skipped = self.START, 0, list[int]()

    def after(self, step: int, norm: float) -> bool:
        """Heed the gradient norm of a step; whether the step is to be taken."""
        if math.isfinite(norm):
            self.good += 1
            if self.good == self.GROWTH:
                self.scale, self.good = self.scale * 2.0, 0
            return True
        self.scale, self.good = self.scale / 2.0, 0
        self.skipped.append(step)
        return False

    @property
    def spent(self) -> bool:
        """Whether the scale is so small that what still overflows is no matter of scale."""
        return self.scale < self.LEAST

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"scale": self.scale, "good": self.good, "skipped": list(self.skipped)}

    def take(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        self.scale, self.good, self.skipped = float(state["scale"]), int(state["good"]), list(state["skipped"])
