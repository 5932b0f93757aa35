"""How likely whole texts are beside one another, from exact probabilities and without any suite's code or judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@torch.no_grad()
def chances(model: Any, texts: Sequence[str]) -> NDArray[np.float64]:
    """The share of each text, with its end, of the probability of all of them together."""
    words = model.tokenizer
    rows = [[words.bos_id, *words.encode(text), words.eos_id] for text in texts]
    most = max(map(len, rows)) - 1
    given = torch.tensor([[*row[:-1], *[words.pad_id] * (most + 1 - len(row))] for row in rows])  # read only to the left
    found = model.run(given).logits.double().log_softmax(-1)
    log = torch.stack([found[n, range(len(row) - 1), row[1:]].sum() for n, row in enumerate(rows)])
    return log.softmax(0).numpy()
