"""What the positions of a stack are called, and which pixels they show."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workbench.blocks.frontends import Grid
from workbench.core.picture import Picture
from workbench.core.protocol import Tokenizer

BEGIN, NULL = "begin", "null text"


def token_names(tokens: Tensor, mask: Tensor | None, tokenizer: Tokenizer | None) -> list[list[str]]:
    """The pieces (without a tokenizer, the ids) of tokens ``[batch, pos]``, '' where ``mask`` is false (None: nowhere). A row without any
    is the null text, which stands at its first position."""
    rows = [tokenizer.pieces(row) if tokenizer is not None else [str(i) for i in row] for row in tokens.tolist()]
    real = mask.tolist() if mask is not None else [[True] * tokens.shape[1]] * len(tokens)
    named = [[name if kept else "" for name, kept in zip(*row, strict=True)] for row in zip(rows, real, strict=True)]
    return [row if any(row) else [NULL, *row[1:]] for row in named]


def row_names(words: list[list[str]], grid: Grid) -> list[list[str]]:
    """Of rows of text, a begin token and the codes of an image but the last, which nothing follows: a code is called by its patch."""
    return [[*row, BEGIN, *grid.names()[:-1]] for row in words]


def row_picture(batch: Any, grid: Grid) -> Picture:
    """The images of such rows; text and begin show none of them."""
    boxes = grid.boxes()[:-1]
    return Picture(batch.pixels, torch.cat([boxes.new_zeros(batch.tokens.shape[1] + 1, 4), boxes]))
