"""What a dictionary is and how it is trained, as values."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from workbench.core.spec import Spec

Kind = Literal["topk", "batch-topk", "jumprelu", "gated"]
KINDS: tuple[Kind, ...] = ("topk", "batch-topk", "jumprelu", "gated")


class DictionarySpec(Spec):
    """The shape of a dictionary. ``d_out`` makes it a transcoder: what it gives is of another site (and may have another width)."""

    kind: Kind = Field(default="topk", description="how features are made sparse: topk, batch-topk, jumprelu or gated")
    d_in: PositiveInt = Field(description="width of what is read")
    d_sae: PositiveInt = Field(description="number of features")
    k: PositiveInt = Field(description="features active in a row: exactly (topk) or on average (the aim of the others)")
    d_out: PositiveInt | None = Field(default=None, description="width of what is given, for a transcoder; None is an autoencoder")

    @model_validator(mode="after")
    def _fits(self) -> DictionarySpec:
        if self.k > self.d_sae:
            raise ValueError(f"k is {self.k}, and it must be at most d_sae = {self.d_sae}: no more features can be active than there are")
        return self

    @property
    def transcoder(self) -> bool:
        """Whether input and output are of different sites."""
        return self.d_out is not None

    @property
    def width_out(self) -> int:
        """Width of what is given."""
        return self.d_in if self.d_out is None else self.d_out


class TrainingSpec(Spec):
    """How a dictionary is trained. Loss and penalties are counted on normalised rows, whose mean square is 1 a coordinate."""

    steps: PositiveInt = Field(default=2000, description="optimizer steps")
    rows: PositiveInt = Field(default=2048, description="rows in a step")
    lr: float | None = Field(default=None, gt=0, le=1, description="rate of Adam; None is 2e-4 / sqrt(d_sae / 2**14) (Gao et al. 2024)")
    warmup: float = Field(default=0.02, ge=0, le=0.5, description="share of steps over which the rate rises in a line")
    decay: float = Field(default=0.2, ge=0, le=1, description="share of steps, the last ones, over which it falls to nothing in a line")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    normalise: Literal["none", "scale", "centre-scale"] = Field(default="centre-scale", description="what is done to rows before reading")
    frozen: bool = Field(default=False, description="leave the decoder's directions as they were drawn: a baseline")
    revive: Literal["auto", "auxiliary", "resample", "none"] = Field(
        default="auto",
        description="what is done for dead features: a loss on the residual (topk, batch-topk), drawing them anew (the others)",
    )
    dead_after: PositiveInt = Field(default=40_000, description="rows without firing after which a feature counts as dead")
    check_every: PositiveInt = Field(default=20, description="steps between looks at the loss and at which features are dead")
    resample_every: PositiveInt = Field(default=500, description="steps between draws of dead features, where they are drawn anew")
    auxiliary: float = Field(default=1 / 32, gt=0, description="weight of the auxiliary loss")
    penalty: float = Field(default=2e-3, gt=0, description="price of a feature (jumprelu) or of its gate (gated), at first")
    steer: float = Field(default=0.01, ge=0, le=0.5, description="how fast the price follows the number of active features; 0: it is fixed")
    threshold: float = Field(default=1.0, gt=0, description="first threshold (jumprelu), in units of the normalised rows")
    bandwidth: float = Field(default=1.0, gt=0, description="width of the estimator of the threshold's gradient (jumprelu)")
    seed: int = Field(default=0, ge=0, description="seed of the first weights and of what is drawn anew")

    def rate(self, d_sae: int) -> float:
        """The rate of the steps between rise and fall."""
        return self.lr if self.lr is not None else 2e-4 / (d_sae / 2**14) ** 0.5

    def rate_at(self, step: int, d_sae: int) -> float:
        """The rate of step ``step`` (from 0)."""
        rise = self.warmup * self.steps
        fall = self.decay * self.steps
        share = min(1.0, (step + 1) / rise if rise else 1.0, (self.steps - step) / fall if fall else 1.0)
        return self.rate(d_sae) * share

    def revives(self, kind: Kind) -> str:
        """What is done for dead features of ``kind``."""
        if self.revive != "auto":
            return self.revive
        return "auxiliary" if kind in ("topk", "batch-topk") else "resample"


class Origin(Spec):
    """What a dictionary was trained on: a dictionary says nothing about another model or site."""

    model: str = ""
    model_digest: str = ""
    site: str = ""
    site_out: str = ""
    data_digest: str = ""
    bos: bool = True
