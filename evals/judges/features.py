"""What a judge reads of a text: a real encoder's streams, or nothing but the characters and words in it.

``encoder``: the mean over the text's tokens of the embeddings and of three depths of a frozen encoder, each brought to one length: what
words mean stands early, what the text says stands late. ``bag``: hashed counts of words, pairs of words and runs of characters, which
needs no encoder and no list of words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer
from torch.nn import functional

from evals.judges.encoders import encoder
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel
from workbench.engine.embed import pooled

Table = NDArray[np.float32] | sparse.csr_matrix
BAG = "bag"
HASHED = 1 << 15
"""Features of each of the two kinds of a bag."""


def read(name: str, texts: Sequence[str]) -> Table:
    """The features ``[text, feature]`` of texts, by the encoder of that name or as a ``bag``. Raises BadValue for a text without words."""
    if empty := sum(not text.strip() for text in texts):
        raise BadValue("the texts", f"{empty} of {len(texts)} blank", "texts with something in them")
    return bag(texts) if name == BAG else streams(encoder(name), texts)


@torch.no_grad()
def streams(model: HookedModel, texts: Sequence[str]) -> NDArray[np.float32]:
    """Embeddings and three depths of ``model``, ``[text, 4 d_model]``."""
    layers = [site.name for site in model.sites().values() if site.tensor == "hook_resid_post" and not site.stack]
    depths = [layers[(len(layers) * part + 2) // 3 - 1] for part in (1, 2, 3)]
    found = functional.normalize(pooled(model, texts, ["hook_embed", *depths], batch=64), dim=2)
    return (found * found.shape[2] ** 0.5).flatten(1).float().cpu().numpy()


def bag(texts: Sequence[str]) -> sparse.csr_matrix:
    """Hashed features ``[text, 2 HASHED]``: words and pairs of words, and runs of two to five characters within words; each kind has
    length one."""
    return sparse.csr_matrix(sparse.hstack([one.transform([text.casefold() for text in texts]) for one in _hashers()]))


@lru_cache(maxsize=1)
def _hashers() -> tuple[Any, Any]:
    both = {"n_features": HASHED, "alternate_sign": False, "lowercase": False, "dtype": np.float32}
    return HashingVectorizer(ngram_range=(1, 2), **both), HashingVectorizer(analyzer="char_wb", ngram_range=(2, 5), **both)
