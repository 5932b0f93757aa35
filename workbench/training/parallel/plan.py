"""A model arranged over a world, from outside and in this order, each step finding what the one before left:

    1. tensor parallel   linear maps of layers become shares (``tensor``)
    2. compile           layers go through torch.compile
    3. recompute         layers, compiled ones too, forget their activations and compute them again in the backward pass
    4. FSDP or DDP       layers, then the rest, are sharded; or gradients are summed as they come

Another order is another result: sharding first would hide the linear maps that tensor parallelism cuts, and a layer that recomputes
is not compiled at all by torch.compile around it. The model's own code knows of none of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from workbench.blocks.stack import Block, Left
from workbench.core.errors import Incompatible
from workbench.training.lora import Adapted, Sharded
from workbench.training.parallel.spec import ParallelSpec
from workbench.training.parallel.tensor import share_layers
from workbench.training.parallel.world import World


def arranged(model: Any, world: World, changes: ExitStack) -> tuple[Any, Any]:
    """What is trained, and what is called for its loss in training: ``model`` itself where every process holds it whole (DDP), else a
    copy of it cut by the plan. What is done to layers that are not copied is undone when ``changes`` closes."""
    spec = world.spec
    out = model if spec.kind == "ddp" else copy.deepcopy(model, {id(model.tokenizer): model.tokenizer})
    if world.tp > 1:
        share_layers(out, world.mesh["tp"])
    changes.enter_context(layers_changed(out, spec))
    if spec.kind == "fsdp":
        _shard(out, world)
    if spec.kind == "ddp":
        return out, nn.parallel.DistributedDataParallel(_Loss(out), process_group=world.mesh.get_group("dp"))
    return out, out.loss


@contextmanager
def layers_changed(model: nn.Module, spec: ParallelSpec) -> Iterator[None]:
    """Inside the block layers recompute, are compiled, or both; afterwards they are as they were."""
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    try:
        for block in blocks:
            changed = plain = block.forward
            if spec.compile:  # random numbers are torch's own, so dropout is that of the plain layer
                changed = torch.compile(plain, options={"fallback_random": True})
            if spec.recompute:
                changed = partial(_recomputed, changed)
            if changed is not plain:
                vars(block)["forward"] = partial(_in_training, plain, changed)
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)


def _in_training(plain: Callable[..., Any], changed: Callable[..., Any], *arguments: Any, listener: Any = None, **named: Any) -> Any:
    """A layer as the plan changed it, for passes with gradients that nobody listens to: a listener would hear a site again in the backward
    pass, and what is compiled for training serves nothing else."""
    if listener is not None or not torch.is_grad_enabled():
        return plain(*arguments, listener=listener, **named)
    return changed(*arguments, **named)


def _recomputed(forward: Callable[..., tuple[Tensor, Left]], x: Tensor, *arguments: Any, **named: Any) -> tuple[Tensor, Left]:
    """Keys and values for later tokens are not kept: training reads none, and they are twice what is saved."""
    # The stream is an argument of its own: by its device torch knows whose random state to keep.
    out = checkpoint(lambda x: forward(x, *arguments, **named)[0], x, use_reentrant=False)
    assert isinstance(out, Tensor)
    return out, Left()


def _shard(model: nn.Module, world: World) -> None:
    """FSDP2: each layer is gathered just before it runs; the rest of the model is one more group. Gradients are sums, not means."""
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    if veiled := [name for name, module in model.named_modules() if _veils(module)]:
        why = f"'{veiled[0]}' computes its weight from others, and FSDP would shard the wrong one"
        raise Incompatible("fsdp", f"this {model.family} model", [why], do="Take parallel.kind=ddp.")
    mesh = world.mesh["dp"]
    for module in list(model.modules()):
        if type(module) is Adapted:
            module.__class__ = Sharded
        if isinstance(module, Block):
            module.forward = partial(_stream, module.forward)  # type: ignore[method-assign]  # of a copy
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params=set(loose(model)))
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    register_fsdp_forward_method(model, "loss")


def _veils(module: nn.Module) -> bool:
    """Whether a parameter of ``module`` is another tensor than what is read by its name (an adapted map knows what FSDP asks it)."""
    return not isinstance(module, Adapted) and any(
        own is not None and getattr(module, name) is not own for name, own in module._parameters.items()
    )


def _stream(forward: Callable[..., tuple[Tensor, Left]], *arguments: Any, **named: Any) -> tuple[Tensor, Left]:
    """A layer without the keys and values it leaves for later tokens: training reads none, and FSDP would watch them."""
    return forward(*arguments, **named)[0], Left()


def loose(model: nn.Module) -> list[nn.Parameter]:
    """The parameters FSDP cannot shard: single numbers."""
    return [parameter for parameter in model.parameters() if parameter.ndim == 0]


class _Loss(nn.Module):
    """A model whose forward pass is its loss, for DDP, which watches forward passes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> tuple[Tensor, int]:
        """The model's summed loss and count."""
        loss = self.model.loss
        assert callable(loss)
        return loss(batch)
