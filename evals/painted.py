"""Pictures that a model paints to order, each a matter of its caption, the seed and its place in the list; painted together, and kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel
from workbench.data.worlds.gallery import WORDS, ids_of

FAMILIES = ("imagen", "dalle")
Pictures = Float[Tensor, "batch channel height width"]
_KEPT: WeakKeyDictionary[Any, dict[tuple[Any, ...], Pictures]] = WeakKeyDictionary()


def painted(model: HookedModel, captions: Sequence[str], *, seed: int, guidance: float) -> Pictures:
    """One picture a caption of the gallery, pixels about 0 to 1, from (seed, place in the list). ``guidance`` is a denoiser's; a painter in
    codes draws as its probabilities say. Raises BadValue for a model of other captions, and for one that needs a picture to begin with."""
    kept, key = _KEPT.setdefault(model, {}), (tuple(captions), seed, guidance)
    if key not in kept:
        kept[key] = _paint(model, captions, seed, guidance)
    return kept[key]


def _paint(model: Any, captions: Sequence[str], seed: int, guidance: float) -> Pictures:
    config = model.config
    known = config.d_vocab_text if model.family == "dalle" else config.d_vocab
    if known != WORDS.size:
        raise BadValue("the model's vocabulary", known, f"the {WORDS.size} words of the gallery's captions")
    if getattr(config, "upsamples", 1) > 1:
        raise BadValue("the model", "an upsampling stage", "one that paints from a text alone")
    how = {"guidance": guidance} if model.family == "imagen" else {}
    with torch.no_grad():
        return model.paint(ids_of(captions), seed=seed, **how).float()
