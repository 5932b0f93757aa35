"""One vector a text: the mean of a model's last stream over the text's tokens.

Source: Reimers and Gurevych, Sentence-BERT, EMNLP 2019 (arXiv:1908.10084), section 3: the mean of all output vectors was best of three.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import HookedModel

BATCH = 32


def mean_pooled(stream: Float[Tensor, "batch pos d_model"], real: Bool[Tensor, "batch pos"]) -> Float[Tensor, "batch d_model"]:
    """The mean over real positions; what stands at the others is not read, whatever it is. Raises BadValue for a row without any."""
    counts = real.sum(1, keepdim=True)
    if not bool((counts > 0).all()):
        raise BadValue("the real positions of a row", 0, "at least 1")
    return stream.masked_fill(~real.unsqueeze(2), 0.0).sum(1) / counts


def embedded(
    model: HookedModel, texts: Sequence[str], *, unit: bool = True, framed: bool = True, batch: int = BATCH
) -> Float[Tensor, "text d_model"]:
    """The vector of each text, of length one where ``unit``. ``framed``: with the control tokens that the tokenizer's template puts around
    a text, which then count as tokens. Raises BadValue for no texts or an empty one, Incompatible for a model that does not read text."""
    last = [site.name for site in model.sites().values() if site.tensor == "hook_resid_post" and not site.stack][-1:]
    out = pooled(model, texts, last, framed=framed, batch=batch)[:, 0]
    return functional.normalize(out, dim=1) if unit else out


def pooled(
    model: HookedModel, texts: Sequence[str], sites: Sequence[str], *, framed: bool = True, batch: int = BATCH
) -> Float[Tensor, "text site d_model"]:
    """The mean over each text's tokens at each of ``sites``, texts of like length together. Raises as ``embedded``."""
    tokenizer = model.tokenizer
    if tokenizer is None or not sites:
        raise Incompatible("a text's vector", f"this {model.family} model", ["it needs a tokenizer and one stack of layers"])
    framing = getattr(tokenizer, "framed", None) if framed else None
    rows = [list(tokenizer.encode(text)) for text in texts]
    rows = [framing(row)[0] for row in rows] if framing is not None else rows
    if not rows or not all(rows):
        raise BadValue(
            "the texts", f"{len(rows)}, {sum(not row for row in rows)} of them empty", "at least one, each of at least one token"
        )
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    parts = [_pooled(model, [rows[n] for n in order[start : start + batch]], sites) for start in range(0, len(rows), batch)]
    out = torch.cat(parts)
    return out[torch.tensor(order).argsort()]


def _pooled(model: HookedModel, rows: Sequence[Sequence[int]], sites: Sequence[str]) -> Float[Tensor, "batch site d_model"]:
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
    weights = getattr(model, "parameters", tuple)
    device = next((weight.device for weight in weights()), ids.device)
    real = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).to(device)
    padded = getattr(model, "padded", None)
    given = padded(ids.to(device), real) if padded is not None else ids.to(device)
    trace = model.run(given, capture=list(sites), logits=None)
    return torch.stack([mean_pooled(trace[site], real) for site in sites], dim=1)
