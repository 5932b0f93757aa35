"""Low-rank adaptation (Hu et al. 2022): a frozen linear map W and a small trained addition to it.

    y = x Wᵀ + b + s (x Aᵀ) Bᵀ,     s = alpha / rank,  A [rank, in],  B [out, rank]

B begins at zero, so an adapted model first computes what it did. The map's ``weight`` is that of the whole map, W + s B A: whoever reads
weights, or computes with them, sees the model that runs. Sites, names and listeners are as before, and the state dict has two more
entries a map. ``merge`` makes a plain model of it; ``unmerge`` and ``detach`` give the frozen weights back to the byte.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from workbench.blocks.digest import model_digest
from workbench.blocks.init import generator_of
from workbench.core.errors import BadValue
from workbench.core.sites import selected
from workbench.core.spec import Spec

A, B = "lora_a", "lora_b"
"""What the additions are called in a state dict, below their map."""


class LoRASpec(Spec):
    """Which linear maps are adapted (names of weights, or globs, as sites are selected; the paper's choice by default) and how."""

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    select: tuple[str, ...] = Field(default=("*blocks.*.attn.W_Q", "*blocks.*.attn.W_V"), min_length=1)
    seed: NonNegativeInt = Field(default=0, description="of the first values of A")


class Adapted(nn.Linear):
    """A linear map with its addition; made in place of one that is there."""

    lora_a: nn.Parameter
    lora_b: nn.Parameter
    scale: float

    @property
    def frozen(self) -> Tensor:
        """The map's own weight ``[out, in]``."""
        weight = self._parameters["weight"]
        assert weight is not None, "a linear map has a weight"
        return weight

    # The whole map's, so that whoever reads it sees what runs. (Any: the base class says a plain attribute.)
    weight: Any = property(lambda self: self.frozen + self.scale * (self.lora_b @ self.lora_a))

    def forward(self, input: Tensor) -> Tensor:
        """The whole map, its addition through ``rank`` numbers."""
        low = functional.linear(functional.linear(input, self.lora_a), self.lora_b)
        return functional.linear(input, self.frozen, self.bias) + self.scale * low


class Sharded(Adapted):
    """An adapted map whose tensors are divided among processes and gathered while it runs (FSDP). In between its weight is this process's
    part of the frozen one, which is what FSDP looks for by that name."""

    weight: Any = property(lambda self: self.frozen if hasattr(self.frozen, "to_local") else Adapted.weight.fget(self))


@dataclass(frozen=True)
class Attached:
    """What ``attach`` did: the adapted maps by module path with their public names, and which parameters trained before."""

    spec: LoRASpec
    maps: Mapping[str, tuple[str, ...]]
    trained: tuple[str, ...]


@dataclass(frozen=True)
class Merged:
    """What ``unmerge`` needs: the frozen weights, the merged ones, the additions, and how they were attached."""

    attached: Attached
    frozen: Mapping[str, Tensor]
    merged: Mapping[str, Tensor]
    additions: Mapping[str, Tensor]


@dataclass(frozen=True)
class Savings:
    """Parameters of the model and those that train; bytes of AdamW's two moments for all of them and for those that train."""

    parameters: int
    trained: int
    optimizer_bytes_whole: int
    optimizer_bytes: int

    def __str__(self) -> str:
        share = self.trained / self.parameters
        whole, now = (f"{count / 2**20:.2f} MiB" for count in (self.optimizer_bytes_whole, self.optimizer_bytes))
        return f"{self.trained:,} of {self.parameters:,} parameters train ({share:.2%}); optimizer state {now} in place of {whole}"


def linear_maps(model: Any) -> dict[str, str]:
    """The module path of every linear map by the public names of its weight (several, where one map is shared or fused)."""
    paths = {m.weight.untyped_storage().data_ptr(): path for path, m in model.named_modules() if isinstance(m, nn.Linear)}
    named = {name: weight.untyped_storage().data_ptr() for name, weight in model.named_weights().items()}
    return {name: paths[place] for name, place in named.items() if place in paths}


def attach(model: Any, spec: LoRASpec) -> Attached:
    """Adapt ``model`` in place; from now on its additions alone train.

    Raises EmptySelection, and BadValue for a model that is adapted already, a rank above a map's sizes, or a selection of some but not all
    names of one map.
    """
    if attached(model) is not None:
        raise BadValue("the model", "adapted already", "a plain one", do="Merge or detach its adapters first.")
    names = linear_maps(model)
    chosen = selected(spec.select, names, kind="linear map", where=f"this {model.family} model")
    maps = {path: tuple(name for name in names if names[name] == path) for path in dict.fromkeys(names[name] for name in chosen)}
    for path, all_names in maps.items():
        if left := [name for name in all_names if name not in chosen]:
            raise BadValue("the selection of linear maps", sorted(set(all_names) - set(left)), f"with '{left[0]}', which is the same map")
        layer = model.get_submodule(path)
        if spec.rank > min(layer.weight.shape):
            raise BadValue("the rank", spec.rank, f"at most {min(layer.weight.shape)}, the smaller side of '{all_names[0]}'")
    made = Attached(spec, maps, tuple(name for name, p in model.named_parameters() if p.requires_grad))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for path in maps:
        layer = model.get_submodule(path)
        n_out, n_in = layer.weight.shape
        draw = torch.randn(spec.rank, n_in, generator=generator_of("lora", spec.seed, path)) / math.sqrt(n_in)
        _adapt(layer, spec, draw.to(layer.weight), layer.weight.new_zeros(n_out, spec.rank))
    model._lora = made
    return made


def attached(model: Any) -> Attached | None:
    """How ``model`` is adapted; None where it is not."""
    return getattr(model, "_lora", None)


def detach(model: Any) -> None:
    """Take the additions off: the model is what it was before, to the byte. Raises BadValue where there are none."""
    made = _known(model)
    for path in made.maps:
        layer = model.get_submodule(path)
        layer.__class__ = nn.Linear
        del layer.lora_a, layer.lora_b, layer.scale
    own = dict(model.named_parameters())
    for name in made.trained:
        own[name].requires_grad_(True)
    del model._lora


def merge(model: Any) -> Merged:
    """Make ``model`` a plain one with the additions within its weights; gives back what ``unmerge`` needs. Raises BadValue."""
    made, additions, frozen, merged = _known(model), addition(model), {}, {}
    with torch.no_grad():
        for path in made.maps:
            layer = model.get_submodule(path)
            frozen[path], merged[path] = layer.frozen.detach().clone(), layer.weight.detach().clone()
        detach(model)
        for path, weight in merged.items():
            model.get_submodule(path).weight.copy_(weight)
    return Merged(made, frozen, merged, additions)


def unmerge(model: Any, merged: Merged) -> None:
    """Undo ``merge``: the frozen weights come back to the byte, with their additions. Raises BadValue where the weights are no longer what
    was merged."""
    for path, weight in merged.merged.items():
        if not torch.equal(model.get_submodule(path).weight, weight):
            raise BadValue("the weights of the model", f"changed since they were merged ('{merged.attached.maps[path][0]}')", "as merged")
    with torch.no_grad():
        for path, weight in merged.frozen.items():
            model.get_submodule(path).weight.copy_(weight)
    attach(model, merged.attached.spec)
    fill(model, merged.additions)


def addition(model: Any) -> dict[str, Tensor]:
    """The additions alone, by their names in the state dict (copies). Raises BadValue where there are none."""
    _known(model)
    return {name: value.detach().clone() for name, value in model.state_dict().items() if name.endswith((f".{A}", f".{B}"))}


def fill(model: Any, additions: Mapping[str, Tensor]) -> None:
    """Copy ``additions`` into an adapted model. Raises BadValue for missing, unexpected or misshapen ones."""
    own = addition(model)
    if odd := sorted(set(own) ^ set(additions)) or sorted(name for name in own if own[name].shape != additions[name].shape):
        raise BadValue("the additions", f"without, or with another, '{odd[0]}'", "those of this model and its spec")
    model.load_state_dict(dict(additions), strict=False)


def base_digest(model: Any) -> str:
    """The digest of the model without its additions: the one it has before ``attach`` and after ``detach``."""
    extra = addition(model) if attached(model) is not None else {}
    weights = {name: value for name, value in model.state_dict().items() if name not in extra}
    return model_digest(model.family, model.config, weights, model.tokenizer)


def savings(model: Any) -> Savings:
    """What training the parameters that now train takes, beside training those that ``attach`` froze too."""
    sizes = [(p.numel(), 2 * p.numel() * p.element_size(), p.requires_grad) for p in model.parameters()]
    extra = sum(value.numel() for value in addition(model).values()) if attached(model) is not None else 0
    whole = sum(size[1] for size in sizes) - sum(2 * v.numel() * v.element_size() for v in addition(model).values()) if extra else 0
    return Savings(
        parameters=sum(size[0] for size in sizes) - extra,
        trained=sum(size[0] for size in sizes if size[2]),
        optimizer_bytes_whole=whole or sum(size[1] for size in sizes),
        optimizer_bytes=sum(size[1] for size in sizes if size[2]),
    )


def _known(model: Any) -> Attached:
    made = attached(model)
    if made is None:
        raise BadValue("the model", "plain", "an adapted one", do="Call attach first.")
    return made


def _adapt(layer: nn.Linear, spec: LoRASpec, a: Tensor, b: Tensor) -> None:
    layer.register_parameter(A, nn.Parameter(a))
    layer.register_parameter(B, nn.Parameter(b))
    layer.__dict__["scale"] = spec.alpha / spec.rank
    layer.__class__ = Adapted
