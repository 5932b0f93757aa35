"""Fitting: which tokens train and test which columns, and what each probe got right.

Label sets on the same tokens with the same split share one Gram matrix a site, whatever they ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

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
    moments: dict[tuple[str, str], Moments] = field(default_factory=dict)
    held_out: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)

    def take(self, network: str, site: str, features: Float[Tensor, "token feature"], *, first: int) -> None:
        """Take in the features of the tokens with flat positions ``first`` to ``first + len(features) - 1``."""
        low, high = np.searchsorted(self.where, [first, first + len(features)])
        rows = torch.from_numpy(self.where[low:high] - first)
        train, test = torch.from_numpy(self.train[low:high]), torch.from_numpy(self.test[low:high])
        y = torch.cat([one_hot(block.codes[low:high][train], block.classes) for block in self.blocks], dim=1)
        sums = self.moments.setdefault((network, site), Moments())
        sums.add(features[rows[train].to(features.device)], y.to(features.device))
        self.held_out.setdefault((network, site), []).append(features[rows[test].to(features.device)].cpu())

    def score(self, network: str, site: str, strength: float) -> Iterator[Cell]:
        """Fit the site's probe and score it on the held-out tokens, task by task."""
        probe = self.moments[network, site].solve(strength)
        scores = probe.scores(torch.cat(self.held_out[network, site]).to(probe.weight.device)).cpu()
        start = 0
        for block in self.blocks:
            sets = block.codes.shape[1]
            columns = scores[:, start : start + sets * block.classes]
            start += sets * block.classes
            right = (predicted(columns, sets) == block.codes[torch.from_numpy(self.test)]).double().numpy()
            draws = (sets - 1) // 2
            yield Cell(block.task, right[:, 0], right[:, 1 : 1 + draws].mean(1), right[:, 1 + draws :].mean(1))


def make_jobs(tasks: Sequence[Task], plans: Sequence[Sequence[Split]], *, draws: int, seed: int) -> list[Job]:
    """Jobs for all tasks and their splits; tasks with the same tokens and split share one."""
    jobs: dict[tuple[str, bytes, bytes, bytes], Job] = {}
    for task, splits in zip(tasks, plans, strict=True):
        codes = np.concatenate([task.codes[:, None], control_codes(task, draws, seed), shuffled_codes(task, draws, seed)], axis=1)
        block = Block(task.name, codes_tensor(codes), len(task.classes))
        for split in splits:
            place = (split.name, task.where.tobytes(), split.train.tobytes(), split.test.tobytes())
            job = jobs.setdefault(place, Job(split.name, task.where, split.train, split.test, []))
            job.blocks.append(block)
    return list(jobs.values())
