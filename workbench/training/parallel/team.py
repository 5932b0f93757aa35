"""One training step by several processes: each takes its share of the rows, and sums of losses and gradients over all are one device's.

A loss is a sum and a count, so shares may be uneven: what is divided is the sum over all processes by the count over all processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from workbench.blocks.quantize import Coder
from workbench.core.batch import RowData
from workbench.core.errors import BadValue, CorruptFile, Incompatible
from workbench.training import checkpoint
from workbench.training.optimizer import MOMENTS, state_of
from workbench.training.parallel.pairs import contrastive, gathered
from workbench.training.parallel.plan import arranged, loose
from workbench.training.parallel.shards import holders, local, part_of, read_shards, whole, whole_gradients, write_shards
from workbench.training.parallel.world import World
from workbench.training.precision import computing
from workbench.training.spec import TrainSpec


class Team:
    """A model arranged over a world. ``model`` is what this process trains: the ``given`` one (ddp), or its own parts of a copy."""

    def __init__(self, given: Any, spec: TrainSpec, world: World, changes: ExitStack) -> None:
        if spec.batch_rows // spec.accumulate < world.dp:
            found = f"{world.dp} processes to share {spec.batch_rows // spec.accumulate} rows of a micro-batch"
            raise BadValue("the world", found, "at most one process a row", do="Raise batch_rows, or lower accumulate.")
        if any(isinstance(m, Coder) and any(p.requires_grad for p in m.parameters()) for m in given.modules()):
            why = "its codebook is renewed by what the whole of a batch chose, so one process learns it"
            raise Incompatible("parallel training", f"this {given.family} model", [why])
        self.given, self.spec, self.world = given, spec, world
        self.model, self.called = arranged(given, world, changes)
        self.cut, self.averaged = self.model is not given, world.spec.kind == "ddp"  # DDP takes the mean over processes
        self.contrastive = contrastive(self.model)
        self.group = world.mesh.get_group(0)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        if self.cut:  # the copy has the values now; the given model gets them back at the end
            for parameter in given.parameters():
                parameter.data = parameter.data.new_empty(0)

    # --- rows and losses

    @property
    def drawn(self) -> tuple[int, ...]:
        """What this process's dropout is drawn from, besides seed, step and micro-batch: those who share rows draw apart."""
        return (self.world.dp_rank,) if self.world.dp > 1 else ()

    def share(self, rows: Sequence[int]) -> Sequence[int]:
        """This process's share of ``rows``."""
        bounds = self.world.bounds(len(rows))
        return rows[bounds[self.world.dp_rank] : bounds[self.world.dp_rank + 1]]

    def loss(self, batch: Any, rows: int, *, last: bool) -> tuple[Tensor, int]:
        """What this process's share of ``rows`` adds to the summed loss and the count. ``last``: gradients are exchanged after it."""
        with self._comparing(rows):
            if self.averaged:
                self.called.require_backward_grad_sync = last
            part, n = self.called(batch)
        return self._own(part, n, rows)

    def _comparing(self, rows: int) -> AbstractContextManager[None]:
        bounds, i = self.world.bounds(rows), self.world.dp_rank
        return gathered(self.model, bounds, bounds[i + 1] - bounds[i], self.group) if self.contrastive else nullcontext()

    def _own(self, part: Tensor, n: int, rows: int) -> tuple[Tensor, int]:
        """A contrastive loss is over all rows in every process: one share of it."""
        return (part / self.world.dp, len(self.share(range(rows)))) if self.contrastive else (part, n)

    def summed(self, total: Tensor, count: int) -> tuple[Tensor, int]:
        """Loss and count over all processes."""
        both = self.world.total(torch.stack((total.detach().double(), torch.tensor(float(count), device=total.device).double())))
        return both[0], round(both[1].item())

    def settle(self, divisor: float) -> None:
        """Turn this step's gradients, summed over all processes, into those over ``divisor``."""
        kind = self.world.spec.kind
        whole_gradients(self.parameters)
        missing = self.parameters if kind == "tp" else loose(self.model) if kind == "fsdp" else []
        if self.world.dp > 1:
            for parameter in missing:  # whose gradients nobody has summed yet
                if parameter.grad is not None:
                    dist.all_reduce(local(parameter.grad), group=self.group)
        scale = (self.world.dp if self.averaged else 1) / divisor
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(scale)

    def clip(self, most: float, *, asked: bool = False) -> tuple[Tensor, Tensor]:
        """The norm of the whole model's gradient, which is shortened to ``most`` (0: not), and how many processes were ``asked`` to stop:
        the one sum of a step over all of them tells it on the way."""
        squares = torch.zeros((), dtype=torch.float64, device=self.parameters[0].device)
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                squares += local(parameter.grad).double().square().sum() / self.holders(name, parameter.grad)
        squares, asking = self.world.total(torch.stack((squares, torch.full_like(squares, asked))), rows=False)
        norm = squares.sqrt()
        if most:
            factor = (most / (norm + 1e-6)).clamp(max=1.0)
            for parameter in self.parameters:
                if parameter.grad is not None:
                    own = local(parameter.grad)
                    own.mul_(factor.to(own.dtype))
        return norm, asking

    def holders(self, name: str, parameter: Tensor) -> float:
        """How many processes hold this part of the parameter ``name``."""
        return holders(parameter, self.world.size)

    def evaluate(self, data: RowData, rows: int) -> tuple[float, int]:
        """``loop.evaluate`` by all processes: the mean loss over all rows of ``data``, and the number of targets."""
        device, was_training = self.parameters[0].device, self.model.training
        self.model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        try:
            with torch.no_grad():
                for first in range(0, len(data), rows):
                    chosen = range(first, min(first + rows, len(data)))
                    mine = self.share(chosen)
                    # A process without a share computes a row for nothing: a sharded model runs in all processes or in none.
                    batch = data.batch(mine or chosen[:1]).to(device)
                    with computing(self.spec.precision, device), self._comparing(len(chosen)):
                        part, n = self.model.loss(batch)
                        part, n = self._own(part, n, len(chosen))
                    if mine:
                        sums += torch.tensor([part.item(), n], dtype=torch.float64, device=device)
                    elif self.contrastive:
                        sums[0] += part.item()
        finally:
            self.model.train(was_training)
        return self._mean(sums)

    def _mean(self, sums: Tensor) -> tuple[float, int]:
        total, count = self.world.total(sums).tolist()
        if count == 0:
            raise BadValue("the validation data", "no targets", "at least one token to predict")
        return total / count, round(count)

    # --- weights and checkpoints

    def give_back(self) -> None:
        """Put the trained weights, whole, into the given model; all processes call it."""
        if not self.cut:
            return
        trained = self.weights()
        for name, parameter in self.given.named_parameters():
            parameter.data = trained[name]

    def weights(self) -> dict[str, Tensor]:
        """Every weight, whole; all processes call it."""
        return {name: whole(value.detach()).clone() for name, value in self.model.named_parameters()}

    def own_state(self) -> dict[str, Tensor]:
        """The weights, of which this process has its parts."""
        return self.model.state_dict()

    def choose(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of ``weights``, or of moments by name, of which this process has a part."""
        return dict(weights)

    def fill(self, weights: Mapping[str, Tensor], path: object) -> None:
        """Copy whole ``weights`` into the model, each process its parts. Raises CorruptFile."""
        own, weights = self.own_state(), self.choose(weights)
        if odd := sorted(set(own) ^ set(weights)):
            raise CorruptFile(path, "the weights of its config", f"'{odd[0]}' is {'missing' if odd[0] in own else 'unexpected'}")
        with torch.no_grad():
            for name, value in own.items():
                if tuple(weights[name].shape) != tuple(value.shape):
                    raise CorruptFile(path, "the weights of its config", f"'{name}' has shape {tuple(weights[name].shape)}")
                local(value).copy_(part_of(weights[name], value))

    def save(self, root: Path, optimizer: torch.optim.Optimizer, state: Mapping[str, Any], keep: int) -> Path:
        """``checkpoint.save`` by all processes: rank 0 writes what is whole, each its own parts of what is not."""
        folder = checkpoint.step_folder(root, state["step"])
        if not self.cut:
            if self.world.first:
                checkpoint.save(root, self.model, state_of(optimizer, self.model), state, keep)
            return folder
        temporary = Path(self.world.told(str(checkpoint.begun(folder)) if self.world.first else ""))
        write_shards(temporary, self._parts(state_of(optimizer, self.model)))
        self.world.wait()
        if self.world.first:
            checkpoint.sealed(temporary, folder, self.given, state, {})
            checkpoint.settle(folder, keep)
        self.world.wait()
        return folder

    def load(self, found: checkpoint.Checkpoint, optimizer: torch.optim.Optimizer | None, step: int) -> None:
        """Weights and, with ``optimizer``, its state after ``step`` steps, from a checkpoint of this or another number of processes."""
        moments = self._moments() if optimizer is not None and step else {}
        if found.cut and self.cut:
            checkpoint.check_shards(found.folder, share=slice(self.world.rank, None, self.world.size))
            self.world.wait()
            read_shards(found.folder, self._parts(moments))
        else:
            whole_one = checkpoint.read(found.folder) if found.cut else found
            self.fill(whole_one.weights, found.folder / "model.safetensors")
            stored = self.choose(whole_one.optimizer or {})
            if optimizer is not None and step and (odd := sorted(set(stored) ^ set(moments))):
                raise CorruptFile(found.folder, "the optimizer state of this model", f"{len(odd)} do not match, such as '{odd[0]}'")
            for name, value in moments.items():
                local(value).copy_(part_of(stored[name], value))
        if optimizer is not None and step:
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    own = {moment: moments[f"{name}.{moment}"] for moment in MOMENTS}
                    optimizer.state[parameter] = {"step": torch.tensor(float(step), device=parameter.device), **own}

    def _moments(self) -> dict[str, Tensor]:
        with torch.no_grad():
            trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
            return {f"{name}.{moment}": torch.zeros_like(p) for name, p in trained.items() for moment in MOMENTS}

    def _parts(self, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = {f"{checkpoint.MODEL}{name}": value for name, value in self.own_state().items()}
        return weights | {f"{checkpoint.OPTIMIZER}{name}": value for name, value in moments.items()}
