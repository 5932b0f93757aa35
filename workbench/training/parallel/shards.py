"""Tensors that no process holds whole: their parts in files (torch's distributed checkpoints, as safetensors), and what a part is.

Each process writes its own parts with where they belong, so another number of processes, or one, can read them again. What is needed
of torch.distributed is imported where it is used: it takes a second that a training in one process need not wait for.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.core.errors import CorruptFile

PATTERN = "shard-*.safetensors"


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write every process's parts of ``tensors`` into ``folder``, which is there; all processes call it."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    parts = {name: value.detach() for name, value in tensors.items()}
    save(parts, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


def read_shards(folder: Path, into: Mapping[str, Tensor], *, alone: bool = False) -> None:
    """Fill ``into`` from the files in ``folder``, whatever number of processes wrote them; all processes call it, unless ``alone``.

    Raises CorruptFile for tensors that are missing or have another shape.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = HuggingFaceStorageReader(str(folder))
    there = reader.read_metadata().state_dict_metadata
    for name, value in into.items():
        found = tuple(getattr(there.get(name), "size", ()))
        if name not in there or found != tuple(value.shape):
            words = f"'{name}' has shape {found}, not {tuple(value.shape)}" if name in there else f"'{name}' is missing"
            raise CorruptFile(folder, "the parts of this model's tensors", words)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)  # ``alone`` means just that
        load({name: value.detach() for name, value in into.items()}, storage_reader=reader, no_dist=alone)


def assembled(folder: Path) -> dict[str, Tensor]:
    """Every tensor in ``folder``, whole, in this process alone."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    there = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    out = {name: torch.empty(facts.size, dtype=facts.properties.dtype) for name, facts in there.items()}  # type: ignore[union-attr]  # only tensors are written
    read_shards(folder, out, alone=True)
    return out


def is_cut(tensor: Any) -> bool:
    """Whether this process may hold a part of ``tensor`` alone (it is a DTensor)."""
    return hasattr(tensor, "to_local")


def local(tensor: Any) -> Tensor:
    """This process's part; the tensor itself where it is whole."""
    return tensor.to_local() if is_cut(tensor) else tensor


def whole(tensor: Any) -> Tensor:
    """The whole of ``tensor``; all processes that hold parts of it call it."""
    if not is_cut(tensor):
        return tensor
    speaking = logging.getLogger("torch.distributed.tensor._redistribute")
    level = speaking.level
    speaking.setLevel(logging.ERROR)  # parts cut twice are gathered twice, which it calls slow each time
    try:
        return tensor.full_tensor()
    finally:
        speaking.setLevel(level)


def whole_gradients(parameters: Iterable[Any]) -> None:
    """Sum the gradients of which each process has a summand, where those who share a layer all hold the parameter."""
    for parameter in parameters:
        if is_cut(parameter.grad) and parameter.grad.placements != parameter.placements:
            parameter.grad = parameter.grad.redistribute(placements=parameter.placements)


def part_of(full: Tensor, like: Any) -> Tensor:
    """The part of ``full`` that this process holds of ``like``."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    if not is_cut(like):
        return full
    shape, offset = compute_local_shape_and_global_offset(full.shape, like.device_mesh, like.placements)
    return full[tuple(slice(begin, begin + length) for begin, length in zip(offset, shape))].reshape(tuple(shape))


def holders(tensor: Any, world: int) -> float:
    """How many of ``world`` processes hold the same part of ``tensor``."""
    if not is_cut(tensor):
        return float(world)
    sizes = [tensor.device_mesh.size(i) for i, placement in enumerate(tensor.placements) if not placement.is_replicate()]
    return world / math.prod(sizes)
