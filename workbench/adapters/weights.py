"""Tables that say which weight of ours is which of a published layout, read in both directions.

A line's published tensor is our tensors joined along their first axis (and turned, where the layout keeps ``[in, out]``). One table
imports and exports, so the two cannot drift apart.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.core.errors import CorruptFile


@dataclass(frozen=True)
class Line:
    """One published tensor and the weights of ours it is made of. ``head`` stands outside the base model's prefix; ``shape`` is the
    published shape where it is another view of the same numbers (a convolution's kernel)."""

    theirs: str
    ours: tuple[str, ...]
    turned: bool = False
    head: bool = False
    shape: tuple[int, ...] = ()

    def taken(self, value: Tensor, own: Mapping[str, Tensor], path: object) -> dict[str, Tensor]:
        """Our tensors from theirs; CorruptFile where the sizes differ."""
        found = tuple(value.shape)
        if self.shape:
            value = value.reshape(own[self.ours[0]].shape) if found == self.shape else value
        value = value.T if self.turned else value
        if value.ndim == 0 and len(self.ours) == 1 and own[self.ours[0]].ndim == 0:
            return {self.ours[0]: value}
        sizes = [own[name].shape[0] for name in self.ours]
        tail = own[self.ours[0]].shape[1:]
        if value.shape != (sum(sizes), *tail):
            raise CorruptFile(path, "the weights of its config", f"'{self.theirs}' has shape {found}")
        return {name: part.contiguous() for name, part in zip(self.ours, value.split(sizes), strict=True)}

    def given(self, own: Mapping[str, Tensor]) -> Tensor:
        """Their tensor from ours."""
        parts = [own[name].detach().cpu() for name in self.ours]
        value = torch.cat(parts) if len(parts) > 1 else parts[0]
        value = value.T if self.turned else value
        return (value.reshape(self.shape) if self.shape else value).contiguous().clone()


def line(theirs: str, *ours: str, turned: bool = False, head: bool = False, shape: tuple[int, ...] = ()) -> Line:
    """A line of the table."""
    return Line(theirs, ours, turned, head, shape)


def both(theirs: str, *ours: str, bias: bool = True, turned: bool = False, head: bool = False) -> list[Line]:
    """The lines of a map's (or norm's) weight and, where it has one, its bias."""
    lines = [line(f"{theirs}.weight", *(f"{name}.weight" for name in ours), turned=turned, head=head)]
    return lines + ([line(f"{theirs}.bias", *(f"{name}.bias" for name in ours), head=head)] if bias else [])


def imported(
    lines: Sequence[Line],
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    *,
    prefix: str = "",
    ignored: Iterable[str] = (),
    same: Mapping[str, str] | None = None,
    path: object = "the weights",
) -> dict[str, Tensor]:
    """Our state dict from published ``tensors``.

    ``prefix`` is the base model's, which a checkpoint of the base model alone leaves out. ``ignored`` are globs of buffers that are no
    weights. ``same`` names tensors that repeat another (tied weights): they must be equal to it. Raises CorruptFile for a missing, an
    unexpected, a misshapen tensor, and for a tie that does not hold.
    """
    left = {name.removeprefix(prefix): value for name, value in tensors.items()}
    left = {name: value for name, value in left.items() if not any(fnmatch.fnmatchcase(name, glob) for glob in ignored)}
    for name, other in (same or {}).items():
        if name in left and other in left and not torch.equal(left[name], left[other]):
            raise CorruptFile(path, f"'{name}' equal to '{other}', since its config ties them", "they differ")
        if name in left and other in left:
            del left[name]
        elif name in left:
            left[other] = left.pop(name)
    wanted = {one.theirs: one for one in lines}
    if odd := sorted(set(wanted) ^ set(left)):
        words = f"'{odd[0]}' is {'missing' if odd[0] in wanted else 'unexpected'}" + (f" (and {len(odd) - 1} more)" if len(odd) > 1 else "")
        raise CorruptFile(path, "the weights of its config", words)
    out: dict[str, Tensor] = {}
    for name, value in left.items():
        out |= wanted[name].taken(value, own, path)
    return out


def exported(lines: Sequence[Line], own: Mapping[str, Tensor], *, prefix: str = "") -> dict[str, Tensor]:
    """Published tensors from our state dict. Every weight of ours must have a line."""
    named = [name for one in lines for name in one.ours]
    assert sorted(named) == sorted(own), f"every weight has one line: {sorted(set(named) ^ set(own))}"
    return {(one.theirs if one.head else prefix + one.theirs): one.given(own) for one in lines}
