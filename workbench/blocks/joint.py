"""Text ids and image codes as one row over a joint vocabulary, and codes drawn one after another behind a text.

    text ids | begin | code ids          text ids come first in the vocabulary, then codes, then the begin token

Image positions come after ``n_text`` text positions however long a text is, so a code has one position for each patch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.blocks.init import generator_of
from workbench.blocks.inputs import check_tokens
from workbench.core.batch import IGNORE, TokenBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import Resume, Trace


@dataclass(frozen=True)
class Joint:
    """``d_text`` text ids and at most ``n_text`` of them in a row; ``n_codes`` codes and ``n_image`` of them an image."""

    d_text: int
    n_text: int
    n_codes: int
    n_image: int

    @property
    def begin(self) -> int:
        """The id that stands before an image."""
        return self.d_text + self.n_codes

    def rows(self, tokens: Tensor, mask: Tensor | None, codes: Int[Tensor, "batch code"]) -> TokenBatch:
        """Text ``[batch, pos]`` (``mask`` true at real tokens; None: all are), begin and the codes there are so far, each with what
        follows it. Padding is seen by nothing and predicts nothing. Raises BadValue."""
        tokens = tokens.to(codes.device)
        check_tokens(tokens, self.d_text)
        (rows, length), written = tokens.shape, codes.shape[1]
        if length > self.n_text or rows != len(codes):
            raise BadValue("the shape of the text", (rows, length), f"[{len(codes)}, at most {self.n_text}], a text an image")
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.to(codes.device)
        if real.dtype != torch.bool or real.shape != tokens.shape:
            raise BadValue("the mask", f"{tuple(real.shape)} {real.dtype}", f"bool {(rows, length)}")
        ids = torch.cat([tokens, torch.full_like(tokens[:, :1], self.begin), codes + self.d_text], 1)
        no, yes = real.new_zeros(rows, 1), real.new_ones(rows, written)
        known = torch.cat([real[:, :-1] & real[:, 1:], no, yes, no], 1)
        image = torch.arange(self.n_text, self.n_text + 1 + written, device=codes.device)
        positions = torch.cat([torch.arange(length, device=codes.device), image]).expand(rows, -1)
        # Padding is a segment of its own, which real text and the image do not see.
        segments = None if bool(real.all()) else torch.cat([~real, no, ~yes], 1).long()
        return TokenBatch(ids, torch.where(known, ids.roll(-1, 1), IGNORE), segments, positions)

    def whole(self, tokens: Tensor, mask: Tensor | None, codes: Int[Tensor, "batch code"]) -> TokenBatch:
        """As ``rows``, for all codes of an image; the last one is predicted and not read."""
        out = self.rows(tokens, mask, codes)
        assert out.positions is not None, "rows have positions"
        segments = out.segments[:, :-1] if out.segments is not None else None
        return TokenBatch(out.tokens[:, :-1], out.targets[:, :-1], segments, out.positions[:, :-1])


def drawn(
    run: Callable[..., Trace], joint: Joint, text: tuple[Tensor, Tensor | None], *, seed: int, temperature: float, cache: bool
) -> Int[Tensor, "batch code"]:
    """The codes of an image for each ``text`` (ids and mask), one by one from softmax(logits of the codes / temperature), or (0) the
    likeliest of them. ``run`` is the model's. A row's codes depend on (seed, number of the row) and its text, not on its neighbours."""
    if temperature < 0:
        raise BadValue("temperature", temperature, "0 (the likeliest) or more")
    tokens, mask = text
    luck = [torch.rand(joint.n_image, 1, generator=generator_of("draw", seed, row), dtype=torch.float64) for row in range(len(tokens))]
    codes, past, by_step = tokens.new_zeros(len(tokens), 0), None, torch.stack(luck, 1).to(tokens.device)
    for step in range(joint.n_image):
        given = joint.rows(tokens, mask, codes)
        if past is None:
            trace = run(given, logits="last", cache=cache)
        else:
            assert given.positions is not None, "rows have positions"
            seen = None if given.segments is None else (given.segments == 0).unsqueeze(1)
            resume = Resume(past=past, positions=given.positions[:, -1:], mask=seen)
            trace = run(given.tokens[:, -1:], logits="last", resume=resume, cache=True)
        past = trace.past
        assert trace.logits is not None, "logits were asked for"
        codes = torch.cat([codes, _picked(trace.logits[:, -1, joint.d_text : joint.begin].double(), temperature, by_step[step])], 1)
    return codes


def _picked(logits: Float[Tensor, "batch code"], temperature: float, luck: Float[Tensor, "batch 1"]) -> Int[Tensor, "batch 1"]:
    """A code a row: where ``luck`` (uniform in [0, 1)) falls among the cumulative shares."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    shares = (logits / temperature).softmax(-1).cumsum(-1)
    # The last cumulative share can fall a rounding short of 1.
    return torch.searchsorted(shares, luck * shares[:, -1:], right=True).clamp(max=logits.shape[1] - 1)
