"""Labelled items in three parts by sentence groups: what erasers are fitted to, what probes are fitted to, and what is tested."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from probes.erasure_runs import Part
from probes.probe_labels import Split, Task, check_split, held_out, read_labels, sentence_groups
from probes.token_items import TokenItems
from workbench.core.errors import BadValue, UnknownName
from workbench.core.protocol import Inputs

LEAST = 5
"""Classes of fewer labelled tokens are left out."""
CHECKED = 0.25
"""The share of the fitting groups on which null-space projection decides when it is done."""


SPREAD = ("spread", "each")
"""Where an item's class is that of all its tokens."""


@runtime_checkable
class Asking(Protocol):
    """The fields of a spec that say what is labelled and how it is divided."""

    @property
    def labels(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def position(self) -> int | None: ...
    @property
    def test_share(self) -> float: ...
    @property
    def probe_share(self) -> float: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class Parts:
    """The label set's ``task``; the fitting items and the ``held`` ones, their rows in the batch, the group of each held item, which of
    them are tested, the ``split`` of the held tokens, which fitting tokens check, and of how many groups they are (``fitted``)."""

    task: Task
    fit: Part
    held: Part
    held_task: Task
    rows: np.ndarray
    groups: np.ndarray
    test: np.ndarray
    split: Split
    check: np.ndarray
    fitted: int
    notes: tuple[str, ...]

    @property
    def token_groups(self) -> np.ndarray:
        """The group of each tested token."""
        return self.groups[self.held_task.where[self.split.test] // self.held.items.width]


def read_parts(items: TokenItems, inputs: Inputs, spec: Asking) -> Parts:
    """Divide the labelled items. Raises BadValue for labels that do not fit, and for too few groups or one class alone in a part."""
    tasks = {task.name: task for task in read_labels(items, inputs.labels, spec.position, LEAST)}
    name = spec.labels or next(iter(tasks))
    if name not in tasks:
        raise UnknownName("label set", name, list(tasks), where="of inputs.labels")
    task, groups = tasks[name], sentence_groups(items, inputs.groups)
    carrying = np.unique(task.where // items.width)
    _check_places(items, task, carrying, inputs, spec)
    what = f"different sentences or groups with labels of '{name}'"
    if (count := len(np.unique(groups[carrying]))) < 4:
        raise BadValue(f"the number of {what}", count, "at least 4: some to fit erasers to, some to fit probes to, some to test")
    tested = held_out(groups[carrying], spec.test_share, spec.seed, what)
    left = carrying[~np.isin(groups[carrying], list(tested))]
    probed = held_out(groups[left], spec.probe_share / (1 - spec.test_share), spec.seed + 1, what)
    fitting = left[~np.isin(groups[left], list(probed))]
    held = np.setdiff1d(carrying, fitting)
    fit, _ = _part(items, task, fitting, spec.where, spread=spec.where in SPREAD)
    rest, rest_task = _part(items, task, held, spec.where, spread=False)
    of_token = groups[held[rest_task.where // items.width]]
    split = Split("sentence", np.isin(of_token, list(probed)), np.isin(of_token, list(tested)))
    check_split(split, of_token, None, name)
    sides = ((fit.codes, "fits the erasers"), (rest_task.codes[split.train], "fits the probes"), (rest_task.codes[split.test], "tests"))
    for codes, side in sides:
        if len(found := np.unique(codes)) < 2:
            raise BadValue(f"the classes of '{name}' in the part that {side}", [task.classes[c] for c in found], "at least two",
                           do="Give more sentences.")  # fmt: skip
    check = _check(groups[fitting][fit.where // items.width], spec.seed)
    notes = _notes(task, list(tasks), fit, len(items) - len(carrying))
    in_test = np.isin(groups[held], list(tested))
    return Parts(task, fit, rest, rest_task, held, groups[held], in_test, split, check, len(np.unique(groups[fitting])), notes)


def _check_places(items: TokenItems, task: Task, carrying: np.ndarray, inputs: Inputs, spec: Asking) -> None:
    if spec.where in SPREAD and not task.whole:
        raise BadValue("where", spec.where, f"'all' or 'labelled' for '{task.name}', which labels tokens: the others have no class")
    lengths = np.unique(items.lengths.numpy()[carrying])
    if spec.where == "each" and len(lengths) > 1:
        raise BadValue("where", spec.where, "'all', 'spread' or 'labelled' for items of different lengths, whose positions do not match",
                       do=f"The items have {lengths[0]} to {lengths[-1]} tokens.")  # fmt: skip
    if spec.where == "each" and inputs.texts is not None:
        raise BadValue("inputs.texts", "given", "left out where each position has its own eraser: texts are not of the items' length")


def _part(items: TokenItems, task: Task, rows: np.ndarray, where: str, *, spread: bool) -> tuple[Part, Task]:
    """The items ``rows``, and the task on them; ``spread``: an item's class is that of all its real tokens."""
    new = np.full(len(items), -1)
    new[rows] = np.arange(len(rows))
    item, at = task.where // items.width, task.where % items.width
    mine = new[item] >= 0
    flat, codes = new[item[mine]] * items.width + at[mine], task.codes[mine]
    chosen = torch.from_numpy(rows)
    some = TokenItems(items.ids[chosen], items.lengths[chosen], items.control[chosen], items.pieces[rows], items.bos_added, items.framed)
    own = replace(task, where=flat, codes=codes, types=task.types[mine])
    erased = None
    if where == "labelled":
        erased = torch.zeros(some.ids.shape, dtype=torch.bool)
        erased.view(-1)[torch.from_numpy(flat)] = True
    if spread:
        codes, flat = np.repeat(codes, some.lengths.numpy()), np.flatnonzero(some.real.numpy().ravel())
    return Part(some, flat, codes, erased), own


def _check(groups: np.ndarray, seed: int) -> np.ndarray:
    """Which fitting tokens check; none where there is one group alone."""
    if len(np.unique(groups)) < 2:
        return np.zeros(len(groups), dtype=bool)
    return np.isin(groups, list(held_out(groups, CHECKED, seed + 2, "fitting groups")))


def _notes(task: Task, names: list[str], fit: Part, without: int) -> tuple[str, ...]:
    out = []
    if len(names) > 1:
        out.append(f"Of the label sets {', '.join(names)}, '{task.name}' was erased.")
    if missing := [name for code, name in enumerate(task.classes) if code not in fit.codes]:
        out.append(f"No fitting token has the class {', '.join(missing)}: it was not erased.")
    if task.rare:
        out.append(f"Left out, with fewer than {LEAST} tokens: {', '.join(f'{name} ({count})' for name, count in task.rare)}.")
    if without:
        out.append(f"{without} items have no label, and were left out.")
    return tuple(out)
