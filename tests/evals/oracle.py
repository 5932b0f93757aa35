"""A model whose answers are written down: known contexts, and how likely each continuation of each is, character by character."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch

from workbench.core.protocol import Tokenizer, Trace
from workbench.data.text import CharTokenizer

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789 .,:'"
FLOOR = 1e-6


class Oracle:
    """After a known context the next character follows from the continuations still possible; elsewhere it is uniform."""

    family: str = "oracle"
    abilities: frozenset[str] = frozenset({"logits", "logprobs", "generate"})

    def __init__(self, known: Mapping[str, Mapping[str, float]], *, n_ctx: int = 512) -> None:
        self.known = known
        self.tokenizer: Tokenizer | None = CharTokenizer(ALPHABET)
        self.config: Any = SimpleNamespace(n_ctx=n_ctx, d_vocab=len(ALPHABET))

    def sites(self) -> Any:
        raise AssertionError("an oracle has no inside")

    def weight(self, name: str) -> Any:
        raise AssertionError("an oracle has no inside")

    def digest(self) -> str:
        return hashlib.sha256(repr(sorted((c, sorted(s.items())) for c, s in self.known.items())).encode()).hexdigest()

    def run(self, batch: Any, *, logits: Any = "all", resume: Any = None, cache: bool = False, **_: Any) -> Trace:
        assert resume is None
        assert not cache
        assert self.tokenizer is not None
        texts = [self.tokenizer.decode(row.tolist()) for row in batch]
        width = batch.shape[1]
        columns = list(range(width)) if logits == "all" else [width - 1] if logits == "last" else [int(c) for c in logits]
        return Trace(torch.tensor([[self.row(text[: c + 1]) for c in columns] for text in texts]), {})

    def row(self, text: str) -> list[float]:
        for cut in range(len(text), 0, -1):
            if text[:cut] in self.known:
                shares = self._next(self.known[text[:cut]], text[cut:])
                if shares is not None:
                    return [math.log(shares.get(c, 0.0) * (1 - FLOOR) + FLOOR / len(ALPHABET)) for c in ALPHABET]
        return [0.0] * len(ALPHABET)

    @staticmethod
    def _next(options: Mapping[str, float], rest: str) -> dict[str, float] | None:
        left = {s: p for s, p in options.items() if s.startswith(rest) and len(s) > len(rest)}
        total = sum(left.values())
        if not total:
            return None
        out: dict[str, float] = {}
        for s, p in left.items():
            out[s[len(rest)]] = out.get(s[len(rest)], 0.0) + p / total
        return out
