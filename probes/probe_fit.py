"""Fitting: which tokens train and test which columns, and what each probe got right.

Label sets on the same tokens with the same split share one Gram matrix a site, whatever they ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes import logistic, mlp_probe
from probes.probe_labels import Split, Task, codes_tensor, control_codes, shuffled_codes
from probes.ridge import Moments, one_hot, predicted


@dataclass(frozen=True)
class Cell:
    """What one probe got right on the held-out tokens of one task, in order: 0 or 1 on the labels, means over the draws of
    control tasks and shuffles."""

    task: str
    labels: np.ndarray
    control: np.ndarray
    shuffled: np.ndarray


@dataclass(frozen=True)
class How:
    """Which kind of probe is fitted: ``strength`` is the penalty of ridge and logistic ones, the rest an MLP's."""

    probe: Literal["ridge", "logistic", "mlp"] = "ridge"
    strength: float = 1e-3
    hidden: int = 64
    epochs: int = 20
    seed: int = 0


@dataclass(frozen=True)
class Block:
    """A task's code columns ``[token, 1 + 2 draws]``: the labels, then control tasks, then shuffles."""

    task: str
    codes: Tensor
    classes: int


@dataclass
class Job:
    """One Gram matrix a site: tokens ``where`` (sorted flat positions), which of them train and test, and all columns asked of them."""

    split: str
    where: np.ndarray
    train: np.ndarray
    test: np.ndarray
    blocks: list[Block]
    how: How = field(default_factory=lambda: How())
    moments: dict[tuple[str, str], Moments] = field(default_factory=dict)
    trained_on: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)
    held_out: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)

    def take(self, network: str, site: str, features: Float[Tensor, "token feature"], *, first: int) -> None:
        """Take in the features of the tokens with flat positions ``first`` to ``first + len(features) - 1``."""
        low, high = np.searchsorted(self.where, [first, first + len(features)])
        rows = torch.from_numpy(self.where[low:high] - first)
        train, test = torch.from_numpy(self.train[low:high]), torch.from_numpy(self.test[low:high])
        if self.how.probe == "ridge":
            y = torch.cat([one_hot(block.codes[low:high][train], block.classes) for block in self.blocks], dim=1)
            sums = self.moments.setdefault((network, site), Moments())
            sums.add(features[rows[train].to(features.device)], y.to(features.device))
        else:
            self.trained_on.setdefault((network, site), []).append(features[rows[train].to(features.device)].cpu())
        self.held_out.setdefault((network, site), []).append(features[rows[test].to(features.device)].cpu())

    def score(self, network: str, site: str) -> Iterator[Cell]:
        """Fit the site's probes and score them on the held-out tokens, task by task."""
        test = torch.from_numpy(self.test)
        for block, said in zip(self.blocks, self._answers((network, site)), strict=True):
            right = (said == block.codes[test]).double().numpy()
            draws = (block.codes.shape[1] - 1) // 2
            yield Cell(block.task, right[:, 0], right[:, 1 : 1 + draws].mean(1), right[:, 1 + draws :].mean(1))

    def _answers(self, place: tuple[str, str]) -> Iterator[Tensor]:
        """For each block the class that each of its probes gives each held-out token ``[token, set]``."""
        x = torch.cat(self.held_out.pop(place))
        if self.how.probe == "ridge":
            probe, start = self.moments.pop(place).solve(self.how.strength), 0
            scores = probe.scores(x.to(probe.weight.device)).cpu()
            for block in self.blocks:
                sets = block.codes.shape[1]
                yield predicted(scores[:, start : start + sets * block.classes], sets)
                start += sets * block.classes
            return
        given, train = torch.cat(self.trained_on.pop(place)), torch.from_numpy(self.train)
        for block in self.blocks:
            y = block.codes[train]
            if self.how.probe == "logistic":
                found = logistic.fit(given[None], y, block.classes, strength=self.how.strength)
                yield found.scores(x[None])[0].argmax(-1)
            else:
                bent = mlp_probe.fit(given, y, block.classes, hidden=self.how.hidden, epochs=self.how.epochs, seed=self.how.seed)
                yield bent.scores(x).argmax(-1)


def make_jobs(tasks: Sequence[Task], plans: Sequence[Sequence[Split]], *, draws: int, how: How) -> list[Job]:
    """Jobs for all tasks and their splits; tasks with the same tokens and split share one."""
    jobs: dict[tuple[str, bytes, bytes, bytes], Job] = {}
    for task, splits in zip(tasks, plans, strict=True):
        codes = np.concatenate([task.codes[:, None], control_codes(task, draws, how.seed), shuffled_codes(task, draws, how.seed)], axis=1)
        block = Block(task.name, codes_tensor(codes), len(task.classes))
        for split in splits:
            place = (split.name, task.where.tobytes(), split.train.tobytes(), split.test.tobytes())
            job = jobs.setdefault(place, Job(split.name, task.where, split.train, split.test, [], how))
            job.blocks.append(block)
    return list(jobs.values())
