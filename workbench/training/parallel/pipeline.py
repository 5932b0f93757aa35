"""Pipeline parallelism: each process has some neighbouring layers, and micro-batches pass through the processes one after another, one
forward and one backward in turn (1F1B; Narayanan et al. 2019, as ``torch.distributed.pipelining`` has it).

A stage runs the model's own loss, in which the stack runs this stage's layers alone: what it is given is replaced by what the stage
before sent, and what it gives ends the pass unless the stage is the last. So what lies before the stack (embeddings) learns in the first
stage and what lies after it (final norm, head) in the last. A weight that learns in several stages, as a tied embedding does, is kept in
each of them: its gradients are summed, and the copies stay equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from workbench.blocks.stack import POST, PRE, Point, Stack
from workbench.core.batch import RowData
from workbench.core.errors import Incompatible
from workbench.training.drawing import drawing
from workbench.training.parallel.team import Team
from workbench.training.parallel.world import World
from workbench.training.precision import Precision, computing
from workbench.training.spec import TrainSpec


class Pipeline(Team):
    """A model cut into as many stages as there are processes, rank 0 the first. ``sample`` is a batch that shows what learns where."""

    def __init__(self, given: Any, spec: TrainSpec, world: World, changes: ExitStack, sample: Any) -> None:
        if reasons := objections(given, spec, world.size):
            raise Incompatible("pipeline parallel", f"this {given.family} model", reasons)
        self.shapes = {name: value.shape for name, value in given.named_parameters()}
        super().__init__(given, spec, world, changes)
        (stack,) = self.model.stacks()
        size, i = world.size, world.rank
        self.stage = _Stage(self.model, stack, stack.depth * i // size, stack.depth * (i + 1) // size)
        self.schedules: dict[torch.Size, Any] = {}
        self._settle_owners(sample)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]

    def _settle_owners(self, sample: Any) -> None:
        """Find which parameters learn in this stage, and tell the others; the layers of other stages are dropped."""
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.stage.take(sample, torch.zeros(self.stage.width(sample)).to(next(self.model.parameters())).requires_grad_()).sum().backward()
        learning = [name for name, parameter in named.items() if parameter.grad is not None]
        self.model.zero_grad(set_to_none=True)
        away = {id(p) for block in self.stage.others() for p in block.parameters()}
        here = [name for name, p in self.model.named_parameters() if id(p) not in away]
        everyone: list[tuple[list[str], list[str]]] = [([], [])] * self.world.size
        dist.all_gather_object(everyone, (learning, here))
        self.owners: dict[str, list[int]] = {}
        for name in self.shapes:
            learners = [i for i, (names, _) in enumerate(everyone) if name in names]
            # What learns nowhere (frozen, or unused) is as it was; the first process that has it stands for it.
            self.owners[name] = learners or [i for i, (_, names) in enumerate(everyone) if name in names][:1]
        groups = {tuple(i): dist.new_group(list(i)) for i in sorted({tuple(i) for i in self.owners.values() if len(i) > 1})}
        self.groups = {name: groups[tuple(i)] for name, i in self.owners.items() if len(i) > 1}
        for name, parameter in self.model.named_parameters():
            if self.world.rank not in self.owners[name]:
                parameter.requires_grad_(False)
            if id(parameter) in away:
                parameter.data = parameter.data.new_empty(0)

    # --- a step

    def flow(self, data: RowData, rows: Sequence[int], step: int, scale: float) -> tuple[Tensor, int]:
        """The gradients of a step's rows, all micro-batches through all stages; the summed loss and the number of targets."""
        spec, size = self.spec, len(rows) // self.spec.accumulate
        device = self.parameters[0].device
        self.stage.batches = [data.batch(rows[i * size : (i + 1) * size]).to(device) for i in range(spec.accumulate)]
        self.stage.drawn, self.stage.scale, self.stage.precision = (spec.seed, step), scale, spec.precision
        self.stage.sums, self.stage.count = torch.zeros((), dtype=torch.float64, device=device), 0
        numbers = torch.arange(spec.accumulate, device=device, dtype=torch.float32)
        schedule = self._schedule(self.stage.width(self.stage.batches[0]))
        if self.world.rank == 0:
            schedule.step(numbers, at=numbers, return_outputs=False)
        else:
            schedule.step(at=numbers, return_outputs=False, **({"target": numbers, "losses": []} if self._last else {}))
        return self.stage.sums, self.stage.count

    @property
    def _last(self) -> bool:
        return self.world.rank == self.world.size - 1

    def _schedule(self, shape: torch.Size) -> Any:
        """The schedule for a stream of ``shape``: stages agree beforehand on what they send."""
        from torch.distributed.pipelining import PipelineStage, Schedule1F1B

        if shape not in self.schedules:
            like = next(self.model.parameters())
            stream = torch.empty(shape, dtype=like.dtype, device=like.device, requires_grad=True)
            loss = torch.empty((), dtype=torch.promote_types(like.dtype, torch.float32), device=like.device, requires_grad=True)
            taken = torch.empty(1, device=like.device) if self.world.rank == 0 else stream
            given = loss if self._last else stream
            stage = PipelineStage(self.stage, self.world.rank, self.world.size, like.device, input_args=taken, output_args=given)
            # A schedule without a loss makes no backward pass, so every stage is given one; the last alone asks it.
            self.schedules[shape] = Schedule1F1B(stage, self.spec.accumulate, loss_fn=lambda found, target: found, scale_grads=False)
        return self.schedules[shape]

    def settle(self, divisor: float) -> None:
        """Sum the gradients of what learns in several stages, and divide all."""
        named = dict(self.model.named_parameters())
        for name, group in self.groups.items():
            if self.world.rank in self.owners[name]:
                parameter = named[name]
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad, group=group)
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.div_(divisor)

    def holders(self, name: str, parameter: Tensor) -> float:
        """How many processes hold this part of the parameter ``name``."""
        return len(self.owners[name])

    def evaluate(self, data: RowData, rows: int) -> tuple[float, int]:
        """As ``loop.evaluate``: batches pass through the stages one after the other."""
        device, was_training = self.parameters[0].device, self.model.training
        self.model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        with torch.no_grad():
            for first in range(0, len(data), rows):
                batch = data.batch(range(first, min(first + rows, len(data)))).to(device)
                received = torch.empty(self.stage.width(batch)).to(next(self.model.parameters()))
                if self.world.rank:
                    dist.recv(received, src=self.world.rank - 1)
                with computing(self.spec.precision, device):
                    out = self.stage.take(batch, received)
                if self._last:
                    sums += torch.tensor([out.item(), self.stage.found], dtype=torch.float64, device=device)
                else:
                    dist.send(out.to(received.dtype).contiguous(), dst=self.world.rank + 1)
        self.model.train(was_training)
        return self._mean(sums)

    # --- weights

    def weights(self) -> dict[str, Tensor]:
        """Every weight, whole, from the first process that has it; all processes call it."""
        out: dict[str, Tensor] = {}
        for name, value in self.model.named_parameters():
            owner = self.owners[name][0]
            out[name] = value.detach().clone() if self.world.rank == owner else value.new_empty(self.shapes[name])
            dist.broadcast(out[name], src=owner)
        return out

    def own_state(self) -> dict[str, Tensor]:
        """The weights this process trains."""
        return {name: value.detach() for name, value in self.model.named_parameters() if self.world.rank in self.owners[name]}

    def choose(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of ``weights``, or of moments by name, that belong to this process."""
        return {name: value for name, value in weights.items() if self.world.rank in self.owners[_parameter_of(name, self.owners)]}


def objections(model: Any, spec: TrainSpec, stages: int) -> list[str]:
    """Why ``model`` cannot be cut into ``stages``; empty where it can."""
    out: list[str] = []
    stacks = model.stacks()
    if len(stacks) != 1:
        named = ", ".join(f"'{stack.prefix}'" for stack in stacks)
        out.append(f"it has {len(stacks)} stacks ({named}), and stages are cut from one")
    elif stacks[0].depth < stages:
        out.append(f"it has {stacks[0].depth} layers, too few for {stages} stages")
    if next(model.buffers(), None) is not None:
        out.append("it has buffers, which no stage owns")
    if spec.accumulate < stages:
        out.append(f"{stages} stages need as many micro-batches at least, and accumulate is {spec.accumulate}")
    return out


def _parameter_of(name: str, known: Mapping[str, Any]) -> str:
    return name if name in known else name.rpartition(".")[0]


class _Reached(Exception):
    """The stream after a stage's last layer: there the pass of a stage ends that is not the last."""

    def __init__(self, stream: Tensor) -> None:
        self.stream = stream


class _Stage(nn.Module):
    """Layers ``low`` to ``high`` of a model's stack, in the model's own loss."""

    def __init__(self, model: Any, stack: Stack, low: int, high: int) -> None:
        super().__init__()
        self.model, self.stack, self.low, self.high = model, stack, low, high
        self.received: Tensor | None = None
        self.batches: list[Any] = []
        self.drawn: tuple[int, ...] = ()
        self.precision: Precision = "float32"
        self.scale, self.count, self.found, self.dtype = 1.0, 0, 0, next(model.parameters()).dtype
        self.sums = torch.zeros(())
        self._whole = stack.forward
        stack.forward = self._layers  # type: ignore[method-assign]  # of a copy

    def _layers(self, x: Tensor, setting: Any, **named: Any) -> tuple[Tensor, Any]:
        x = x if self.received is None else self.received
        x, left = self._whole(x, setting, start=Point(self.low, PRE), stop=Point(self.high - 1, POST))
        if self.high < self.stack.depth:
            raise _Reached(x)
        return x, left

    def others(self) -> list[nn.Module]:
        """The blocks that no layer of this stage uses."""
        n = len(self.stack.blocks)
        used = {i * n // self.stack.depth for i in range(self.low, self.high)}
        return [block for i, block in enumerate(self.stack.blocks) if i not in used]

    def take(self, batch: Any, received: Tensor) -> Tensor:
        """What this stage makes of what it received: the stream, or of the last stage the summed loss (``found`` targets)."""
        self.received = received if self.low else None
        try:
            total, self.found = self.model.loss(batch)
        except _Reached as reached:
            return reached.stream
        finally:
            self.received = None
        return total

    def forward(self, received: Tensor, at: Tensor) -> Tensor:
        """``take`` for micro-batch number ``at``."""
        micro, device = int(at.item()), at.device
        with drawing(device, *self.drawn, micro, self.low), computing(self.precision, device):
            out = self.take(self.batches[micro], received)
        if self.high < self.stack.depth:
            return out.to(self.dtype)
        self.sums, self.count = self.sums + out.detach().double(), self.count + self.found
        return out * self.scale

    def width(self, batch: Any) -> torch.Size:
        """The shape of the stream for ``batch``, found by a pass that ends before the first layer."""

        def stop(x: Tensor, setting: Any, **named: Any) -> Any:
            raise _Reached(x)

        kept, self.stack.forward = self.stack.forward, stop
        try:
            with torch.no_grad():
                self.model.loss(batch)
        except _Reached as reached:
            return reached.stream.shape
        finally:
            self.stack.forward = kept  # type: ignore[method-assign]  # of a copy
        raise Incompatible("pipeline parallel", "this model", ["its loss does not pass through its stack"])
