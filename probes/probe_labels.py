"""Labels for probes, the tasks made from them, and splits through which nothing leaks.

``labels``           what is asked.
``control``          one random label for every word *type*, drawn from the labels' own distribution and the same wherever the
                     type occurs: a probe that solves it has memorised words (Hewitt and Liang, Designing and Interpreting Probes
                     with Control Tasks, EMNLP 2019, arXiv:1909.03368).
``shuffled-labels``  the labels permuted over tokens: nothing to learn but the label distribution. A different null.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.token_items import TokenItems
from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue

TASKS = ("labels", "control", "shuffled-labels")


@dataclass(frozen=True)
class LabelSet:
    """One thing to ask of every token, or of every item.

    ``values`` ``[batch, pos]`` or ``[batch]``: integers (``IGNORE`` = unlabelled) or strings ('' = unlabelled); one an item is
    read at the spec's position. ``types`` of the same shape name the word each label belongs to; without them it is the token id.
    """

    values: Any
    types: Any = None


@dataclass(frozen=True)
class Task:
    """A label set on the tokens that carry it: flat positions in the batch, class codes, class names and word types.

    ``whole``: labels of items, each read at one position. ``rare`` names the classes that were left out, with their tokens.
    """

    name: str
    where: np.ndarray
    codes: np.ndarray
    classes: tuple[str, ...]
    types: np.ndarray
    whole: bool = False
    rare: tuple[tuple[str, int], ...] = ()


def read_labels(items: TokenItems, labels: Any, position: int | None, least: int = 1) -> list[Task]:
    """``inputs.labels`` (an array, a LabelSet, or a mapping of names to either) as tasks; classes of fewer than ``least`` tokens are left
    out, and named in the task.

    Raises BadValue for shapes that do not fit, labels on padding, floats, a position an item lacks, and fewer than two classes.
    """
    given = labels if isinstance(labels, Mapping) else {"labels": labels}
    if not given:
        raise BadValue("inputs.labels", "an empty mapping", "at least one label set")
    return [
        _task(str(name), value if isinstance(value, LabelSet) else LabelSet(value), items, position, least) for name, value in given.items()
    ]


def control_codes(task: Task, draws: int, seed: int) -> np.ndarray:
    """``[token, draw]``: for every word type one label, drawn from the labels of all tokens."""
    rng = np.random.default_rng([seed, 1])
    _, type_of = np.unique(task.types, return_inverse=True)
    by_type = task.codes[rng.integers(len(task.codes), size=(type_of.max() + 1, draws))]
    return by_type[type_of]


def shuffled_codes(task: Task, draws: int, seed: int) -> np.ndarray:
    """``[token, draw]``: the labels permuted over all tokens."""
    rng = np.random.default_rng([seed, 2])
    return np.stack([rng.permutation(task.codes) for _ in range(draws)], axis=1)


# --- splits -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Which tokens of a task train the probe and which test it; the rest is left out (see ``excluded``)."""

    name: str
    train: np.ndarray
    test: np.ndarray

    @property
    def excluded(self) -> int:
        return int((~self.train & ~self.test).sum())


def sentence_groups(items: TokenItems, groups: Sequence[Hashable] | None) -> np.ndarray:
    """A group number for every item: from ``groups``, and equal sentences always share one.

    So a sentence that occurs twice cannot stand on both sides of a split, whatever the groups say.
    """
    if groups is not None and len(groups) != len(items):
        raise BadValue("the length of inputs.groups", len(groups), f"{len(items)}, one an item")
    parent = list(range(len(items)))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    first: dict[Hashable, int] = {}
    for item in range(len(items)):
        sentence = ("sentence", tuple(items.ids[item, : int(items.lengths[item])].tolist()))
        for name in [sentence] if groups is None else [sentence, ("group", groups[item])]:
            parent[root(item)] = root(first.setdefault(name, item))
    return np.unique([root(item) for item in range(len(items))], return_inverse=True)[1]


def held_out(names: np.ndarray, fraction: float, seed: int, what: str) -> set[int]:
    """A random ``fraction`` of the distinct names, at least one and never all. Raises BadValue where there are fewer than two."""
    distinct = np.unique(names)
    if len(distinct) < 2:
        raise BadValue(f"the number of {what}", len(distinct), "at least 2, so that some can be held out")
    count = min(len(distinct) - 1, max(1, round(fraction * len(distinct))))
    return set(np.random.default_rng([seed, 3]).permutation(distinct)[:count].tolist())


def make_splits(task: Task, token_groups: np.ndarray, test_groups: set[int], *, new_types: bool, fraction: float, seed: int) -> list[Split]:
    """The split by sentence and, if ``new_types``, one by sentence and word type. Both are checked before they are used."""
    in_test = np.isin(token_groups, list(test_groups))
    splits = [Split("sentence", ~in_test, in_test)]
    if new_types:
        _, type_of = np.unique(task.types, return_inverse=True)
        new = np.isin(type_of, list(held_out(type_of, fraction, seed + 1, f"word types of '{task.name}'")))
        splits.append(Split("sentence+type", ~in_test & ~new, in_test & new))
    for split in splits:
        check_split(split, token_groups, task.types if split.name == "sentence+type" else None, task.name)
    return splits


def check_split(split: Split, token_groups: np.ndarray, types: np.ndarray | None, name: str = "labels") -> None:
    """Raise BadValue if a token, a sentence group or (with ``types``) a word type is on both sides, or a side is empty."""
    if not split.train.any() or not split.test.any():
        raise BadValue(f"the split '{split.name}' of '{name}'", f"{int(split.train.sum())} train and {int(split.test.sum())} test tokens",
                       "at least one on each side", do="Give more sentences.")  # fmt: skip
    if (split.train & split.test).any():
        raise BadValue(f"the split '{split.name}' of '{name}'", f"{int((split.train & split.test).sum())} tokens on both sides", "disjoint")
    for what, names in (("sentence groups", token_groups), ("word types", types)):
        shared = [] if names is None else np.intersect1d(names[split.train], names[split.test]).tolist()
        if shared:
            raise BadValue(f"the split '{split.name}' of '{name}'", f"{len(shared)} {what} on both sides", "disjoint: this split leaks")


# --- reading ------------------------------------------------------------------------------------------------


def _task(name: str, labels: LabelSet, items: TokenItems, position: int | None, least: int) -> Task:
    values = _array(f"inputs.labels of '{name}'", labels.values)
    shape = tuple(items.ids.shape)
    if values.shape not in (shape, shape[:1]):
        raise BadValue(
            f"the shape of inputs.labels of '{name}'", values.shape, f"{shape} (one a token) or {shape[:1]} (one an item)",
            do="A word that was cut into several tokens is labelled at its last, the others are unlabelled.",
        )  # fmt: skip
    types = None if labels.types is None else _array(f"the types of '{name}'", labels.types)
    if types is not None and types.shape != values.shape:
        raise BadValue(f"the shape of the types of '{name}'", types.shape, f"{values.shape}, as the labels")
    if values.ndim == 1:
        rows, at = np.arange(shape[0]), _read_at(items, position)
        labelled = _labelled(values)
        where = rows * shape[1] + at
    else:
        where = np.arange(values.size)
        labelled = _labelled(values).ravel()
        if (labelled & ~items.real.numpy().ravel()).any():
            raise BadValue(f"inputs.labels of '{name}'", "labels on padding", f"unlabelled there ({IGNORE} or '')")
    where, kept = where[labelled], values.ravel()[labelled]
    words = items.ids.numpy().ravel()[where] if types is None else types.ravel()[labelled]
    names, counts = np.unique(kept, return_counts=True)
    rare = tuple((str(n), int(c)) for n, c in zip(names, counts, strict=True) if c < least)
    if len(names) - len(rare) < 2:
        left = f" with at least {least} tokens each" if rare else ""
        raise BadValue(f"the classes of '{name}'", [str(n) for n in names], f"at least two that occur{left}")
    common = np.isin(kept, names[counts >= least])
    names, codes = np.unique(kept[common], return_inverse=True)
    return Task(name, where[common], codes, tuple(str(n) for n in names), words[common], values.ndim == 1, rare)


def _read_at(items: TokenItems, position: int | None) -> np.ndarray:
    lengths = items.lengths.numpy()
    at = lengths - 1 if position is None else lengths + position if position < 0 else np.full_like(lengths, position)
    if ((at < 0) | (at >= lengths)).any():
        raise BadValue("position", position, f"within every item; the shortest has {int(lengths.min())} tokens")
    return at


def _array(field: str, given: Any) -> np.ndarray:
    array = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    if array.dtype.kind == "O":
        array = np.array([["" if v is None else str(v) for v in row] if isinstance(row, list | tuple | np.ndarray) else
                          ("" if row is None else str(row)) for row in array.tolist()])  # fmt: skip
    if array.dtype.kind not in "biuU":
        raise BadValue(f"the dtype of {field}", str(array.dtype), "integers, booleans or strings")
    return array.astype(np.int64) if array.dtype.kind in "biu" else array


def _labelled(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "U":
        return values != ""
    if ((values < 0) & (values != IGNORE)).any():
        raise BadValue("a label", int(values[(values < 0) & (values != IGNORE)][0]), f"0 or more, or {IGNORE} for unlabelled")
    return values != IGNORE


def codes_tensor(codes: np.ndarray) -> Tensor:
    """Class codes as an int64 tensor ``[token, set]``."""
    return torch.from_numpy(np.ascontiguousarray(codes)).long()
