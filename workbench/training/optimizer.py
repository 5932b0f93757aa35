"""AdamW with weight decay on the matrices of linear maps and convolutions only: not on embeddings, norms or biases.

An untied unembedding is a linear map and decays; a tied one is the embedding and does not.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from workbench.core.errors import CorruptFile
from workbench.training.spec import TrainSpec

DECAYING = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
MOMENTS = ("exp_avg", "exp_avg_sq")


def decaying(model: nn.Module) -> list[str]:
    """The names of the parameters that decay."""
    names = {id(p): name for name, p in model.named_parameters()}
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    weights = [module.weight for module in model.modules() if isinstance(module, DECAYING)]
    return sorted({names[id(w)] for w in weights if id(w) in names and id(w) not in tables})


def adamw(model: nn.Module, spec: TrainSpec) -> torch.optim.AdamW:
    """The optimizer, fused: one kernel over all parameters."""
    names = set(decaying(model))
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    # One kernel takes tensors of one kind: whole ones, or parts over one set of processes (DTensors of one mesh).
    meshes = dict.fromkeys(getattr(p, "device_mesh", None) for p in parameters.values())
    groups = [
        {"params": [p for n, p in parameters.items() if (n in names) == bool(rate) and getattr(p, "device_mesh", None) == mesh]}
        | {"weight_decay": rate * spec.weight_decay}
        for rate in (1.0, 0.0)
        for mesh in meshes
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=spec.lr, betas=(spec.beta1, spec.beta2), eps=1e-8, fused=True)


def state_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The moments by parameter name: ``blocks.0….weight.exp_avg``."""
    out: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter)
        if state:
            out |= {f"{name}.{moment}": state[moment] for moment in MOMENTS}
    return out


def restore(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor], steps: int, path: object) -> None:
    """Put back what ``state_of`` took, after ``steps`` steps that were taken. Raises CorruptFile for missing or unexpected entries."""
    learning = [name for name, p in model.named_parameters() if p.requires_grad and steps]  # before the first step there are no moments
    wanted = {f"{name}.{moment}" for name in learning for moment in MOMENTS}
    if wanted != set(tensors):
        odd = sorted(wanted ^ set(tensors))
        raise CorruptFile(path, "the optimizer state of this model", f"{len(odd)} entries do not match, such as '{odd[0]}'")
    for name, parameter in model.named_parameters():
        if name in learning:
            moments = {moment: tensors[f"{name}.{moment}"].to(parameter.device, parameter.dtype).clone() for moment in MOMENTS}
            optimizer.state[parameter] = {"step": torch.tensor(float(steps), device=parameter.device), **moments}
