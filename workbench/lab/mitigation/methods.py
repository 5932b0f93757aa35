"""Ways to mend a failure that a plan may name, each a changed copy of the audited model; the model itself is left as it is.

    erasure                       a linear concept is taken out of the residual stream at every token (LEACE)
    steering                      a direction is added to the residual stream at every token
    counterfactual-augmentation   the model is trained on for a few steps on texts with both pronouns in every place that has one

What is fitted or trained on comes from the town's training and validation splits; what the mended model is asked comes from its test split.
Belrose et al. 2023 (LEACE); Rimsky et al., *Steering Llama 2 via Contrastive Activation Addition* (2024); Lu et al., *Gender Bias in Neural
Natural Language Processing* (2018).
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from probes.concept_erasers import leace
from probes.erasure_runs import erasing
from probes.ridge import Moments
from workbench.core.errors import BadValue, Incompatible
from workbench.core.finding import Mitigation
from workbench.core.protocol import Add, HookedModel, Progress, silent
from workbench.core.spec import Spec
from workbench.data.text import PackedRows
from workbench.data.worlds.town import Town
from workbench.lab.inputs import LEAST_LEAN, town_pronouns
from workbench.lab.mitigation.edited import Edited
from workbench.training.loop import train
from workbench.training.spec import TrainSpec

OTHER = {"she": "he", "he": "she", "her": "his", "his": "her"}
_PRONOUN = re.compile(r"\b(she|he|her|his)\b")


class EditSpec(Spec):
    """Of erasure and steering. ``layer``: after which one (-1: the last); ``contexts`` of each occupation it is fitted to; ``strength``:
    how many times the difference of the means is added (steering alone)."""

    layer: int = -1
    contexts: int = Field(default=24, ge=2)
    strength: float = Field(default=1.0, gt=0)


class AugmentationSpec(Spec):
    """``documents`` of the training split, those with a pronoun in both forms, for ``steps`` of ``batch_rows`` rows at rate ``lr``."""

    documents: int = Field(default=4000, ge=50)
    steps: int = Field(default=300, ge=1)
    batch_rows: int = Field(default=8, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    seed: int = Field(default=0, ge=0)


SPECS: Mapping[str, type[Spec]] = {"erasure": EditSpec, "steering": EditSpec, "counterfactual-augmentation": AugmentationSpec}
MENDABLE = ("occupation-pronoun",)
"""Suites whose failure these methods know how to take for a concept."""


def mitigated(model: HookedModel, town: Town | None, asked: Mitigation, progress: Progress = silent) -> Any:
    """The model with the mitigation made. Raises BadValue for settings that do not fit, Incompatible for a model that cannot be changed."""
    if town is None:
        raise BadValue("the model's training text", "not a generated world", "a town, in which it is known how each occupation leans")
    spec: Any = SPECS[asked.method].parse(asked.settings, what=f"settings of mitigation '{asked.method}'")
    return _METHODS[asked.method](model, town, spec, progress)


# --- edits of every run ---------------------------------------------------------------------------------------


def _erased(model: HookedModel, town: Town, spec: EditSpec, progress: Progress) -> Edited:
    site, x, leans = _fitted_to(model, town, spec)
    sums = Moments()
    sums.add(x, torch.stack([leans, ~leans], 1).double())
    eraser = leace(sums)
    if not eraser.rank:
        raise BadValue(f"the concept at '{site}'", "told by nothing linear", "one that can be erased", do="Choose another layer.")
    said = _said("erasure", spec, eraser.mean, eraser.left, eraser.right)
    return Edited(model, [erasing(site, eraser)], said, name=_named(model, "erasure"))


def _steered(model: HookedModel, town: Town, spec: EditSpec, progress: Progress) -> Edited:
    site, x, leans = _fitted_to(model, town, spec)
    way = (x[~leans].mean(0) - x[leans].mean(0)) * spec.strength
    return Edited(model, [Add(site, value=way.float())], _said("steering", spec, way), name=_named(model, "steering"))


def _fitted_to(model: HookedModel, town: Town, spec: EditSpec) -> tuple[str, Float[Tensor, "item d_model"], Bool[Tensor, " item"]]:
    """The site, the stream at the last token of validation sentences in float64, and whether each sentence's occupation leans to *she*."""
    if missing := sorted({"edit", "logits"} - model.abilities):
        raise Incompatible("mitigation", f"this {model.family} model", [f"the model does not offer {', '.join(missing)}"])
    layers = sorted({found.layer for found in model.sites().values() if found.layer is not None})
    if not -len(layers) <= spec.layer < len(layers):
        raise BadValue("layer", spec.layer, f"from {-len(layers)} to {len(layers) - 1}")
    site = f"blocks.{layers[spec.layer]}.hook_resid_post"
    if site not in model.sites():
        raise Incompatible("mitigation", f"this {model.family} model", [f"it has no '{site}'"])
    items = [item for item in town.pronoun_items("validation", per_occupation=spec.contexts) if abs(item.lean) >= LEAST_LEAN]
    asked = town_pronouns(model, items)
    assert asked.lengths is not None, "sentences have lengths"
    with torch.no_grad():
        stream = model.run(asked.batch, capture=site, logits=None)[site]
    last = stream[torch.arange(len(items)), asked.lengths - 1].double()
    return site, last, torch.tensor([item.lean > 0 for item in items])


# --- training on ----------------------------------------------------------------------------------------------


def swapped(text: str) -> str:
    """The text with each pronoun of the town in its other form: *she* and *he*, *her* and *his*."""
    return _PRONOUN.sub(lambda match: OTHER[match[0]], text)


def _augmented(model: Any, town: Town, spec: AugmentationSpec, progress: Progress) -> Any:
    if missing := sorted({"weights", "grad"} - model.abilities):
        raise Incompatible("mitigation", f"this {model.family} model", [f"the model does not offer {', '.join(missing)}"])
    texts: list[str] = []
    for document in town.documents(0, min(spec.documents, town.size())):
        texts += [document.text, swapped(document.text)] if document.kind == "pronoun" else [document.text]
    made = copy.deepcopy(model).train()
    rows = PackedRows(texts, made.tokenizer, int(made.config.n_ctx))
    how = {"steps": spec.steps, "batch_rows": spec.batch_rows, "lr": spec.lr, "min_lr": spec.lr / 20, "warmup": min(20, spec.steps - 1),
           "weight_decay": 0.0, "seed": spec.seed, "threads": 1}  # fmt: skip
    train(made, rows, TrainSpec.parse(how), progress=progress)
    made.name = _named(model, "counterfactual-augmentation")
    return made.eval()


def _named(model: Any, method: str) -> str:
    return f"{getattr(model, 'name', model.family)} after {method}"


def _said(method: str, spec: Spec, *parts: Tensor) -> dict[str, Any]:
    """What an edit is, as JSON values: its settings and the digest of what was fitted."""
    whole = hashlib.sha256(b"".join(part.double().contiguous().numpy().tobytes() for part in parts)).hexdigest()
    return {"method": method, "settings": spec.model_dump(mode="json"), "fitted": whole}


_METHODS: Mapping[str, Callable[[Any, Town, Any, Progress], Any]] = {
    "erasure": _erased, "steering": _steered, "counterfactual-augmentation": _augmented,
}  # fmt: skip
