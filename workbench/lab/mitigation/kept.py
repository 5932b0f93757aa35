"""The mended model as weights of its own, so that it can be loaded after the audit that made it.

A model that was trained on is its weights. An edit of every run is folded into them where that is exact: a direction that is added to the
stream after a layer is a bias of the map that writes there. Erasure is not: it is a projection of the sum of everything written so far, and
what reads that sum next divides by its size, so that no weight of the model holds it. What cannot be folded is not kept, and it is said
why.
"""

from __future__ import annotations

from typing import Any

import torch

from workbench.blocks.economy import PLAIN
from workbench.core.protocol import Add
from workbench.core.tolerance import tolerance
from workbench.families import FAMILIES
from workbench.lab.mitigation.edited import Edited
from workbench.training.lora import attached

ROWS = 8
"""Rows of the failure's batch on which the folded model is held against the edited one."""


def as_weights(made: Any, batch: torch.Tensor) -> tuple[Any, str]:
    """``made`` as a model of its own, with ``""``; or None with the reason. ``batch`` [row, pos]: what both must answer alike."""
    if not isinstance(made, Edited):
        return (made, "") if _ours(made) else (None, "it is no model of a family here, so there is no checkpoint to keep it in")
    if len(made.edits) != 1 or not isinstance(made.edits[0], Add):
        return None, (
            f"{made.said['method']} is a projection of the sum that all layers before have written, and what reads it next divides by its "
            "size, so that no weight of the model can hold it; the plan makes it again"
        )
    if why := _unfoldable(made.inner):
        return None, why
    folded = _folded(made.inner, made.edits[0])
    folded.name = made.name
    with torch.no_grad():
        a, b = (one.run(batch[:ROWS]).logits for one in (made, folded))
    assert a is not None, "logits are asked for"
    assert b is not None, "logits are asked for"
    allowed, apart = tolerance(a.dtype, "logits").bound * max(1.0, float(a.abs().max())), float((a - b).abs().max())
    if apart > allowed:
        return None, f"folded into its weights it answers otherwise, by {apart:.3g} in a logit (allowed {allowed:.3g})"
    return folded, ""


def _ours(model: Any) -> bool:
    return model.family in FAMILIES and type(model) is FAMILIES.load(model.family)


def _unfoldable(model: Any) -> str:
    """Why no bias of ``model`` is what writes into its stream after a layer; '' where one is."""
    if not _ours(model) or model.family != "gpt":
        return f"folding is known for decoders of the family 'gpt', and this is one of '{model.family}'"
    if model.config.act == "none" or model.config.norm_placement == "post" or model.config.economy != PLAIN:
        return "no map of this model writes into the stream after one layer alone (attention only, norms after the sum, or shared layers)"
    return "it carries an adapter, whose weights are kept apart" if attached(model) is not None else ""


def _folded(model: Any, edit: Add) -> Any:
    """``model`` with ``edit`` as a bias of the MLP of its layer. Without biases it gets them, of zeros: adding 0 changes no number."""
    made = type(model)(model.config.model_copy(update={"bias": True}), model.tokenizer)
    own, known = made.state_dict(), model.state_dict()
    own = {name: known.get(name, torch.zeros_like(value)) for name, value in own.items()}
    made.to(next(model.parameters()).dtype).load_state_dict(own)
    layer = int(str(edit.site).split(".")[1])
    with torch.no_grad():
        made.stack.blocks[layer].mlp.out.bias += edit.value.to(made.stack.blocks[layer].mlp.out.bias)
    return made.eval()
