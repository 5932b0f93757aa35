"""Trainings by several processes: ``torchrun --nproc-per-node N -m tests.training.parallel.driver JOBS.json ANSWERS.json``.

One start for many trainings, since a start costs seconds. What each gives is written by rank 0; ``alone`` does the same in one process.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workbench.blocks.init import generator_of
from workbench.core.batch import IGNORE
from workbench.core.errors import AssayError, BadValue
from workbench.families import FAMILIES
from workbench.training.adapter_files import save_adapter
from workbench.training.loop import train
from workbench.training.lora import Adapted, LoRASpec, Sharded, attach, base_digest, merge
from workbench.training.parallel import team
from workbench.training.parallel.team import Team
from workbench.training.parallel.world import joined
from workbench.training.spec import TrainSpec

FAMILY = ("gpt", "bert", "seq2seq", "vit", "clip")
ROWS = 40
TRAIN: dict[str, Any] = {
    "steps": 50, "batch_rows": 6, "accumulate": 2, "lr": 1e-2, "min_lr": 1e-3, "warmup": 5, "threads": 1, "clip": 0.5, "validate_every": 20,
}  # fmt: skip


class Many:
    """``ROWS`` rows made of a family's tiny batch: pixels with noise, other tokens, and more or fewer targets in each."""

    def __init__(self, batch: Any, seed: int, rows: int = ROWS) -> None:
        self.base, self.seed, self.rows = batch, seed, rows
        self.spoilt = False
        self.wide = len(next(iter(vars(batch).values())))

    def __len__(self) -> int:
        return self.rows

    def batch(self, indices: Sequence[int]) -> Any:
        if self.spoilt:
            raise BadValue("a row", list(indices), "whole")
        rows = [self._row(index) for index in indices]
        fields = {name: [row[name] for row in rows] for name in rows[0]}
        return type(self.base)(**{name: None if values[0] is None else torch.stack(values) for name, values in fields.items()})

    def _row(self, index: int) -> dict[str, Any]:
        draw, row = generator_of("many", self.seed, index), {}
        for name, value in vars(self.base).items():
            own = None if value is None else value[index % self.wide].clone()
            if own is not None and own.is_floating_point():
                own = own + 0.3 * torch.randn(own.shape, generator=draw).to(own.dtype)
            elif name in ("tokens", "source") and own is not None:
                other = torch.randint(0, 20, own.shape, generator=draw)
                own = torch.where((torch.rand(own.shape, generator=draw) < 0.3) & (own < 20), other, own)
            elif name == "targets" and own is not None and own.ndim:
                own[torch.rand(own.shape, generator=draw) < 0.1 * (index % 8)] = IGNORE
            row[name] = own
        return row

    def digest(self) -> str:
        return f"many {self.seed} {self.rows} {type(self.base).__name__}"


def answer(job: Mapping[str, Any]) -> dict[str, Any]:
    """Train as ``job`` says: ``family``, ``dtype``, ``train`` (fields of TrainSpec), and optionally ``config`` (fields of the family's
    config), ``lora`` (fields of LoRASpec), ``stir`` (additions begin with values), ``adapter`` (where rank 0 saves them), ``out``, ``stop``
    (steps to end after, as if cut off), ``copy`` (where ``out`` is copied to then), ``broken``, ``fails``, ``fault`` (of rank 1 alone:
    other ``data``, or ``rows`` that cannot be read)."""
    family = FAMILIES.load(job["family"])
    tiny, batch = family.tiny(seed=0)
    model = family(tiny.config.override(job.get("config", {})), seed=0).to(getattr(torch, job["dtype"]))
    if "lora" in job:
        attach(model, LoRASpec.parse(job["lora"]))
    for name, parameter in model.named_parameters() if job.get("stir") else ():
        if name.endswith("lora_b"):
            nn.init.normal_(parameter, std=0.1, generator=generator_of("stir", name))
    base = base_digest(model)
    seen: list[float] = []
    learning: set[str] = set()
    amid: dict[str, float] = {}
    spec = TrainSpec.parse(TRAIN | job["train"])
    rows, held = Many(batch, 1), Many(batch, 2, rows=7)

    def note(event: str, state: Any) -> None:
        if event == "step":
            seen.append(state["loss"])
            learning.update(name for name, parameter in state["model"].named_parameters() if parameter.grad is not None)
        if event == "step" and state["step"] == 15 and spec.parallel.kind in ("none", "ddp"):
            amid.update(heard(state["model"], held))

    if "fault" in job and os.environ.get("RANK") == "1":
        if job["fault"] == "data":
            rows = Many(batch, 3)
        if job["fault"] == "rows":
            rows.spoilt = True
    given = _Ending(rows, job["stop"] * spec.accumulate) if "stop" in job else rows
    try:
        with broken(job.get("broken", "")):
            history = train(model, given, spec, out=job.get("out"), validation=held, callbacks=[note])
    except _Enough:
        if "copy" in job and os.environ.get("RANK", "0") == "0":
            shutil.copytree(job["out"], job["copy"])
        return {"losses": seen, "stopped": "enough"}
    except AssayError as error:
        if not job.get("fails"):
            raise
        return {"losses": seen, "error": f"{type(error).__name__}: {error}"}
    keep = ("record", "validation", "weights", "tokens", "resumed_from")
    found = {"losses": seen, "heard": heard(model, held), "amid": amid} | {name: history[name] for name in keep}
    return found | (adapted(model, base, learning, job.get("adapter", "")) if "lora" in job else {})


def adapted(model: Any, base: str, learning: set[str], folder: str) -> dict[str, Any]:
    """What became of a model with adapters: whether its base is as it was, which parameters had gradients, and, as numbers, its weights
    as they are shown and after merging. ``folder``: where the adapters are saved by rank 0."""
    if folder and os.environ.get("RANK", "0") == "0":
        save_adapter(model, folder)
    found = {"base": base_digest(model) == base, "learning": sorted(learning)}
    found |= {"shown": {name: _number(value) for name, value in model.named_weights().items()}}
    merge(model)
    return found | {"merged": {name: _number(value) for name, value in model.named_weights().items()}}


def heard(model: Any, rows: Many) -> dict[str, float]:
    """What is heard at every site, and the logits, as one number each that every element moves."""
    trace = model.run(rows.batch(range(3)), capture="*")
    found = {"logits": trace.logits} | {name: trace[name] for name in trace.sites}
    return {name: _number(value) for name, value in found.items()}


def _number(value: torch.Tensor) -> float:
    flat = value.detach().double().flatten()
    flat = flat[flat.isfinite()]
    return float(flat @ torch.cos(torch.arange(len(flat), dtype=torch.float64)))


@contextmanager
def broken(how: str) -> Iterator[None]:
    """A fault planted in the sharing of work: ``mean``, each process divides by its own number of targets; ``apart``, each compares its
    own pairs alone; ``order``, a share has the other's rows twice; ``summands``, of an adapter that all hold each learns from its own part;
    ``veiled``, FSDP is shown an adapted map's whole weight where it looks for the frozen one."""
    kept = Team.summed, team.contrastive, Team.share, team.whole_gradients, Sharded.weight
    if how == "mean":
        Team.summed = lambda self, total, count: (total, count)
    if how == "apart":
        team.contrastive = lambda model: False
    if how == "order":
        Team.share = lambda self, rows: kept[2](self, [rows[0]] * len(rows))
    if how == "summands":
        team.whole_gradients = lambda parameters: None
    if how == "veiled":
        Sharded.weight = Adapted.weight
    try:
        yield
    finally:
        Team.summed, team.contrastive, Team.share, team.whole_gradients, Sharded.weight = kept


class _Enough(Exception):
    """Ends a training in every process at the same step."""


class _Ending:
    """Rows that end after so many micro-batches."""

    def __init__(self, rows: Many, left: int) -> None:
        self.rows, self.left = rows, left

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Sequence[int]) -> Any:
        if self.left == 0:
            raise _Enough
        self.left -= 1
        return self.rows.batch(indices)

    def digest(self) -> str:
        return self.rows.digest()


def main(jobs: str, answers: str) -> None:
    found: list[dict[str, Any]] = []
    with ExitStack() as stack:
        for job in json.loads(Path(jobs).read_text()):
            spec = TrainSpec.parse(TRAIN | job["train"]).parallel
            if not found:
                stack.enter_context(joined(spec))
            found.append(answer(job))
            if os.environ["RANK"] == "0":
                Path(answers).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
