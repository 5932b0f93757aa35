"""What instruments that put one activation in place of another are asked: which, from where, and what is read."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from probes.patch_given import Replacement
from probes.patch_metric import PatchQuantity
from workbench.core.spec import Spec


class PatchSpec(Spec):
    """What is patched, with what, and how the answer is read."""

    components: tuple[str, ...] = Field(default=("resid_pre",), description="streams, heads' parts, readers' inputs or neurons")
    per: tuple[Literal["pos", "head", "key", "neuron"], ...] | None = Field(
        default=None, description="one cell each: None is pos for streams, head for heads, neuron for neurons; () is a whole layer"
    )
    layers: tuple[int, ...] | None = Field(default=None, description="layers, counted from 0; None is all")
    heads: tuple[int, ...] | None = Field(default=None, description="heads in each layer (of keys and values, their groups); None is all")
    positions: tuple[int, ...] | None = Field(default=None, description="positions, counted from 0; None is all")
    neurons: tuple[int, ...] | None = Field(default=None, description="neurons in each layer; None is all")
    replacement: Replacement = Field(default="counterfactual", description="what is put there: the other run's activation, or less")
    direction: Literal["denoising", "noising"] = Field(default="denoising", description="clean into corrupt, or corrupt into clean")
    quantity: PatchQuantity = Field(default="logit", description="the number read; 'logit-difference' is target minus foil")
    position: int | None = Field(default=None, description="whose logits are read: None is the last real one, negative counts from it")
    stack: str = Field(default="", description="whose layers, in a family of several stacks; '' is the first")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    seed: int = Field(default=0, ge=0, description="draws the rows of 'resample'")
    max_cells: int = Field(default=200_000, ge=1, description="edited runs at most, items counted")
    memory_mib: int = Field(default=1024, ge=1, description="memory of the edited runs at most, by estimate")
