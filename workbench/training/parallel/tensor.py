"""Tensor parallelism (Shoeybi et al. 2019): the processes of a group share each layer's heads and hidden units.

    by columns (a share of the outputs)    attn.q  attn.k  attn.v  mlp.inner  mlp.gate
    by rows (a share of the inputs; sums)  attn.o  mlp.out

Of an adapted map (LoRA) the addition's outer side is cut as the map is, and its inner side, ``rank`` numbers wide, is whole.
Everything else (embeddings, norms, heads) is whole in every process and computed alike there. Whole heads and whole key groups lie in
one process, so attention itself is unchanged; it is told how many heads it has left.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from workbench.blocks.attention import Attention
from workbench.blocks.mlp import MLP
from workbench.core.errors import Incompatible
from workbench.training.lora import A, Adapted, B

COLUMNS: dict[type, tuple[str, ...]] = {Attention: ("q", "k", "v"), MLP: ("inner", "gate")}
ROWS: dict[type, str] = {Attention: "o", MLP: "out"}


def objections(model: nn.Module, parts: int) -> list[str]:
    """Why the layers of ``model`` cannot be shared by ``parts`` processes; empty where they can."""
    out: list[str] = []
    for name, module in model.named_modules():
        for word, number in _counts(module).items():
            if number % parts:
                out.append(f"'{name}' has {number} {word}, which {parts} processes cannot share evenly")
        odd = [f"'{name}.{part}'" for part in _linears(module) if type(getattr(module, part)) not in (nn.Linear, Adapted)]
        out += [f"{part} is no plain linear map" for part in odd]
    if not any(isinstance(module, Attention) for module in model.modules()):
        out.append("it has no attention")
    return out


def share_layers(model: nn.Module, mesh: Any) -> None:
    """Cut the layers of ``model`` in place, by the plan above, over the processes of ``mesh``. Raises Incompatible."""
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    parts = mesh.size()
    if reasons := objections(model, parts):
        raise Incompatible("tensor parallel", f"this {model.family} model", reasons[:3], do="Choose another parallel.tp.")
    for module in model.modules():
        if not isinstance(module, Attention | MLP):
            continue
        kind = Attention if isinstance(module, Attention) else MLP
        plan: dict[str, Any] = {name: ColwiseParallel() for name in COLUMNS[kind] if getattr(module, name) is not None}
        plan[ROWS[kind]] = RowwiseParallel()
        adapted = [name for name in plan if isinstance(getattr(module, name), Adapted)]  # in one order, as every process has to cut them
        parallelize_module(module, mesh, {name: style for name, style in plan.items() if name not in adapted})
        for name in adapted:
            _share_adapted(getattr(module, name), mesh, columns=name != ROWS[kind])
        if isinstance(module, Attention):
            module.n_heads, module.n_kv_heads = module.n_heads // parts, module.n_kv_heads // parts


def _share_adapted(layer: Adapted, mesh: Any, *, columns: bool) -> None:
    """Cut a map and its addition in place, as torch's plans cut a plain one."""
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module, distribute_tensor

    whole, outputs, inputs = [Replicate()], [Shard(0)], [Shard(1)]
    places = (
        {"weight": outputs, "bias": outputs, A: whole, B: outputs} if columns else {"weight": inputs, "bias": whole, A: inputs, B: whole}
    )
    taken, given = (whole, [Shard(-1)]) if columns else ([Shard(-1)], whole)

    def cut(_: str, module: nn.Module, mesh: Any) -> None:
        for name, own in list(module._parameters.items()):
            if own is not None:
                part = distribute_tensor(own.detach(), mesh, places[name])
                module.register_parameter(name, nn.Parameter(part, requires_grad=own.requires_grad))

    def take(_: nn.Module, inputs: Any, mesh: Any) -> Any:
        return DTensor.from_local(inputs[0], mesh, taken, run_check=False)

    def give(_: nn.Module, out: Any, mesh: Any) -> Any:
        return out.redistribute(placements=given).to_local()

    distribute_module(layer, mesh, cut, take, give)


def _counts(module: nn.Module) -> dict[str, int]:
    if isinstance(module, Attention):
        return {"heads": module.n_heads, "key heads": module.n_kv_heads}
    return {"hidden units": module.inner.out_features} if isinstance(module, MLP) else {}


def _linears(module: nn.Module) -> list[str]:
    kind = Attention if isinstance(module, Attention) else MLP if isinstance(module, MLP) else None
    return [] if kind is None else [name for name in (*COLUMNS[kind], ROWS[kind]) if getattr(module, name) is not None]
