"""Tensor parallelism (Shoeybi et al. 2019): the processes of a group share each layer's heads and hidden units.

    by columns (a share of the outputs)    attn.q  attn.k  attn.v  mlp.inner  mlp.gate
    by rows (a share of the inputs; sums)  attn.o  mlp.out

Everything else (embeddings, norms, heads) is whole in every process and computed alike there. Whole heads and whole key groups lie in
one process, so attention itself is unchanged; it is told how many heads it has left.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from workbench.blocks.attention import Attention
from workbench.blocks.mlp import MLP
from workbench.core.errors import Incompatible

COLUMNS: dict[type, tuple[str, ...]] = {Attention: ("q", "k", "v"), MLP: ("inner", "gate")}
ROWS: dict[type, str] = {Attention: "o", MLP: "out"}


def objections(model: nn.Module, parts: int) -> list[str]:
    """Why the layers of ``model`` cannot be shared by ``parts`` processes; empty where they can."""
    out: list[str] = []
    for name, module in model.named_modules():
        for word, number in _counts(module).items():
            if number % parts:
                out.append(f"'{name}' has {number} {word}, which {parts} processes cannot share evenly")
        odd = [f"'{name}.{part}'" for part in _linears(module) if type(getattr(module, part)) is not nn.Linear]
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
        parallelize_module(module, mesh, plan)
        if isinstance(module, Attention):
            module.n_heads, module.n_kv_heads = module.n_heads // parts, module.n_kv_heads // parts


def _counts(module: nn.Module) -> dict[str, int]:
    if isinstance(module, Attention):
        return {"heads": module.n_heads, "key heads": module.n_kv_heads}
    return {"hidden units": module.inner.out_features} if isinstance(module, MLP) else {}


def _linears(module: nn.Module) -> list[str]:
    kind = Attention if isinstance(module, Attention) else MLP if isinstance(module, MLP) else None
    return [] if kind is None else [name for name in (*COLUMNS[kind], ROWS[kind]) if getattr(module, name) is not None]
