"""What a training run is to do, as one value."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from workbench.core.spec import Spec, later
from workbench.training.parallel.spec import ParallelSpec
from workbench.training.precision import Precision


class TrainSpec(Spec):
    """AdamW (Loshchilov and Hutter 2019) under a schedule. All counts are in optimizer steps and rows."""

    steps: PositiveInt = 1500
    batch_rows: PositiveInt = Field(default=8, description="rows an optimizer step, over all its micro-batches")
    lr: PositiveFloat = 1.5e-3
    min_lr: NonNegativeFloat = 1.5e-4
    warmup: NonNegativeInt = 100
    schedule: Literal["cosine", "wsd"] = "cosine"
    decay: float = Field(default=0.2, gt=0.0, le=1.0, description="wsd: the share of steps in which the rate falls to min_lr")
    weight_decay: NonNegativeFloat = 0.1
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta2: float = Field(default=0.99, ge=0.0, lt=1.0)
    clip: NonNegativeFloat = Field(default=1.0, description="largest gradient norm; 0: no clipping")
    accumulate: PositiveInt = Field(default=1, description="micro-batches a step; changes memory, not the result")
    precision: Precision = "float32"
    seed: NonNegativeInt = 0
    validate_every: NonNegativeInt = Field(default=0, description="0: only at the end")
    save_every: NonNegativeInt = Field(default=0, description="0: only where validation is due")
    keep: PositiveInt = Field(default=2, description="checkpoints kept, besides the best")
    patience: NonNegativeInt = Field(default=0, description="validations without improvement before stopping; 0: never")
    threads: NonNegativeInt = Field(default=0, description="CPU threads; 0: as torch is set. A resumed run uses its first start's")
    parallel: ParallelSpec = later(ParallelSpec())

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.batch_rows % self.accumulate:
            raise ValueError(f"accumulate must divide batch_rows ({self.batch_rows}), and it is {self.accumulate}")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr must be at most lr ({self.lr}), and it is {self.min_lr}")
        if self.patience and not self.validate_every:
            raise ValueError("patience needs validate_every: without validations there is nothing to be patient about")
        return self

    def lr_at(self, step: int) -> float:
        """The learning rate of ``step`` (from 0). Linear warm-up reaches ``lr`` at step ``warmup``; then a half cosine to
        ``min_lr`` at the end, or (wsd: warm-up, stable, decay; Hu et al. 2024) flat and a line down in the last steps."""
        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        if self.schedule == "cosine":
            done = (step - self.warmup) / max(1, self.steps - self.warmup)
            return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
        falling = max(1, round(self.decay * self.steps))
        done = (step - (self.steps - falling)) / falling
        return self.lr if done <= 0 else self.lr + (self.min_lr - self.lr) * min(1.0, done)
