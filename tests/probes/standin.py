"""A model small enough to solve by hand: its logits are linear in the embeddings, or a known function of a linear map.

    state[p] = squash(sum over j <= p of weight[j] * embedding[j])        logits = state @ unembed

It has an attention pattern site that holds whatever the test plants there, and touches nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from workbench.core.protocol import Edit, Resume, Tokenizer, Trace
from workbench.core.sites import Selection, Site, SiteTable

RESID = ("batch", "pos", "d_model")
Planted = Callable[[Tensor], Tensor]
"""Token ids [batch, pos] -> patterns [layer, batch, head, query, key]."""


class StandIn:
    """``squash`` makes it non-linear; ``planted`` gives its attention patterns. float64, no parameters to leave anything on."""

    family = "standin"

    def __init__(
        self, *, squash: Callable[[Tensor], Tensor] | None = None, planted: Planted | None = None, seed: int = 0, layers: int = 2,
        d_vocab: int = 11, d_model: int = 6, n_ctx: int = 24, tokenizer: Tokenizer | None = None,
        abilities: Sequence[str] = ("logits", "edit", "grad"),
    ) -> None:  # fmt: skip
        rng = torch.Generator().manual_seed(seed)
        self.config: Any = SimpleNamespace(d_vocab=d_vocab, n_ctx=n_ctx)
        self.tokenizer = tokenizer
        self.abilities = frozenset(abilities)
        self.squash = squash or (lambda state: state)
        self.planted = planted or even_pattern(layers)
        self.layers = layers
        self.embed = torch.randn(d_vocab, d_model, generator=rng, dtype=torch.float64)
        self.weight_at = torch.randn(n_ctx, generator=rng, dtype=torch.float64)
        self.unembed = torch.randn(d_model, d_vocab, generator=rng, dtype=torch.float64)

    def sites(self) -> SiteTable:
        sites = [Site("hook_embed", RESID)]
        for layer in range(self.layers):
            sites += [
                Site(f"blocks.{layer}.attn.hook_pattern", ("batch", "head", "query", "key")),
                Site(f"blocks.{layer}.hook_resid_post", RESID),
            ]
        return SiteTable(sites, where="the stand-in")

    def weight(self, name: str) -> Tensor:
        return {"W_E": self.embed, "W_U": self.unembed}[name]

    def digest(self) -> str:
        return hashlib.sha256(self.embed.numpy().tobytes() + self.unembed.numpy().tobytes()).hexdigest()

    def run(
        self, batch: Any, *, capture: Selection = (), edit: Sequence[Edit] = (), logits: Any = "all", grad: bool = False,
        resume: Resume | None = None, cache: bool = False,
    ) -> Trace:  # fmt: skip
        table, heard = self.sites(), {}
        edits = [(e, table.select(e.site)) for e in edit]

        def hear(name: str, tensor: Tensor) -> Tensor:
            site = table[name]
            for e, where in edits:
                if site in where:
                    tensor = e.apply(tensor, site)
            heard[name] = tensor
            return tensor

        with torch.set_grad_enabled(grad):
            x = hear("hook_embed", self.embed[batch])
            patterns = self.planted(batch)
            state = x
            for layer in range(self.layers):
                hear(f"blocks.{layer}.attn.hook_pattern", patterns[layer])
                if layer == self.layers - 1:
                    state = self.squash((x * self.weight_at[: x.shape[1], None]).cumsum(1))
                state = hear(f"blocks.{layer}.hook_resid_post", state)
            out = None if logits is None else state @ self.unembed
        if out is not None and logits is not None and logits != "all":
            out = out[:, -1:] if logits == "last" else out[:, list(logits)]
        chosen = table.select(capture)
        return Trace(out, {s.name: heard[s.name] for s in chosen}, {s.name: s for s in chosen})


def even_pattern(layers: int, heads: int = 2) -> Planted:
    """Every query attends evenly to all it may see."""

    def make(ids: Tensor) -> Tensor:
        width = ids.shape[1]
        rows = torch.ones(width, width, dtype=torch.float64).tril()
        return (rows / rows.sum(-1, keepdim=True)).expand(layers, len(ids), heads, width, width)

    return make


class Letters:
    """A tokenizer of single characters; its control tokens come after them and no text makes one."""

    alphabet = "abcdefghijklmnops<|> "

    def __init__(self) -> None:
        n = len(self.alphabet)
        self.vocab_size, self.bos_id, self.eos_id, self.pad_id = n + 3, n, n + 1, n + 2

    def encode(self, text: str, *, bos: bool = False) -> list[int]:
        return ([self.bos_id] if bos else []) + [self.alphabet.index(c) for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.alphabet[i] for i in ids if i < len(self.alphabet))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [(*self.alphabet, "<|bos|>", "<|eos|>", "<|pad|>")[i] for i in ids]

    def digest(self) -> str:
        return hashlib.sha256(self.alphabet.encode()).hexdigest()
