"""What a report knows of its models and of what was asked of them: identity with lineage and training data, and every denominator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from workbench.core.spec import Spec


class TrainingData(Spec):
    """One line of a training data manifest. Empty texts and None are facts that nobody stated."""

    name: str = Field(min_length=1)
    items: int | None = Field(default=None, ge=0)
    licence: str = ""
    source: str = ""
    sha256: str = ""


class Identity(Spec):
    """One model of the report. ``part`` is its place in the audit (``audited``, ``reference``), ``sha256`` the digest of weights and
    config, ``lineage`` what it was made from, oldest first. Empty texts and None are facts that nobody stated.
    """

    part: str = Field(min_length=1)
    name: str = Field(min_length=1)
    family: str = ""
    architecture: str = ""
    parameters: int | None = Field(default=None, ge=0)
    sha256: str = ""
    tokenizer: str = ""
    lineage: tuple[str, ...] = ()
    training_data: tuple[TrainingData, ...] = ()
    licence: str = ""
    intended_use: str = ""
    out_of_scope: str = ""


class Coverage(Spec):
    """How many items one suite or instrument had, and what became of each.

    drawn = excluded + run; run = scored + unscored + refused + not applicable. ``passed`` is None where the suite has no rule by which
    one item passes; ``run`` and ``scored`` are None where nobody counted. ``unscored`` counts by reason.
    """

    kind: Literal["suite", "instrument"]
    asked: str = Field(min_length=1)
    model: str = Field(min_length=1)
    run: int | None = Field(default=None, ge=0)
    scored: int | None = Field(default=None, ge=0)
    passed: int | None = Field(default=None, ge=0)
    unscored: Mapping[str, int] = Field(default_factory=dict)
    refused: int = Field(default=0, ge=0)
    not_applicable: int = Field(default=0, ge=0)
    excluded: int = Field(default=0, ge=0)

    @property
    def drawn(self) -> int | None:
        return None if self.run is None else self.excluded + self.run

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        rest = sum(self.unscored.values()) + self.refused + self.not_applicable
        if self.run is None or self.scored is None:
            if self.run is not None or self.scored is not None or self.passed is not None or rest or self.excluded:
                raise ValueError("run and scored where anything was counted, or no count at all")
            return self
        if self.run != self.scored + rest:
            raise ValueError(f"run = scored + unscored + refused + not applicable, not {self.run} = {self.scored + rest}")
        if self.passed is not None and self.passed > self.scored:
            raise ValueError(f"no more passed than scored items, not {self.passed} of {self.scored}")
        return self
