"""The decoder-only language model (Radford et al. 2019, and its descendants by option)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from workbench.blocks.attention import Attention
from workbench.blocks.cache import KVCache
from workbench.blocks.digest import model_digest
from workbench.blocks.embed import Embed, Unembed
from workbench.blocks.init import STD, generator_of, initialise
from workbench.blocks.inputs import Chosen, Passage, chosen, passage
from workbench.blocks.listen import Listener, under
from workbench.blocks.losses import next_token_nll
from workbench.blocks.mlp import MLP
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm
from workbench.blocks.rotary import Rotary
from workbench.blocks.stack import Block, Point, Setting, Stack
from workbench.core.batch import TokenBatch
from workbench.core.errors import BadValue, UnknownName
from workbench.core.protocol import Edit, LogitsAt, Resume, Tokenizer, Trace
from workbench.core.sites import Selection, Site, SiteTable
from workbench.core.spec import Spec


class GPTConfig(Spec):
    """The shape of a model. Fields left out (or 0) follow: ``n_kv_heads = n_heads``, ``d_head = d_model / n_heads``,
    ``d_mlp = 4 d_model`` (gated: 8/3 d_model, rounded up to a multiple of 8)."""

    n_layers: PositiveInt = 4
    d_model: PositiveInt = 128
    n_heads: PositiveInt = 4
    n_kv_heads: PositiveInt = 0
    d_head: PositiveInt = 0
    d_mlp: PositiveInt = 0
    d_vocab: PositiveInt
    n_ctx: PositiveInt = 256
    norm: Literal["layer", "rms"] = "layer"
    norm_placement: Literal["pre", "post", "none"] = "pre"
    act: Literal["gelu", "gelu_tanh", "swiglu", "relu", "none"] = Field(default="gelu", description="none: attention only")
    positions: Literal["rope", "learned"] = "rope"
    rope_base: PositiveFloat = 10_000.0
    tied: bool = True
    bias: bool = Field(default=True, description="of all linear maps and layer norms; the unembedding never has one")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="of embeddings and sublayer outputs, in training only")
    norm_eps: PositiveFloat = 1e-5
    init_std: PositiveFloat = Field(default=STD, description="of the matrices at first; narrow models learn sooner near d_model ** -0.5")

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        d_model, n_heads = values.get("d_model", 128), values.get("n_heads", 4)
        if not (isinstance(d_model, int) and isinstance(n_heads, int) and n_heads > 0):
            return values  # the fields' own checks say what is wrong
        wide = -(-8 * d_model // 24) * 8 if values.get("act") == "swiglu" else 4 * d_model
        follow = {"n_kv_heads": n_heads, "d_head": d_model // n_heads, "d_mlp": wide}
        return values | {name: values.get(name) or value for name, value in follow.items()}

    @model_validator(mode="after")
    def _fits(self) -> GPTConfig:
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_kv_heads must divide n_heads ({self.n_heads}), and it is {self.n_kv_heads}")
        if self.positions == "rope" and self.d_head % 2:
            raise ValueError(f"d_head must be even for rotary positions, and it is {self.d_head}")
        return self


class GPT(nn.Module):
    """A model with its tokenizer. First values depend on ``seed`` and the shapes alone; the global random state is not touched."""

    family = "gpt"
    config_type: ClassVar[type[GPTConfig]] = GPTConfig
    abilities: frozenset[str] = frozenset({"logits", "logprobs", "generate", "edit", "grad", "cache", "mask", "weights"})

    def __init__(self, config: GPTConfig, tokenizer: Tokenizer | None = None, *, seed: int = 0) -> None:
        super().__init__()
        if tokenizer is not None and tokenizer.vocab_size != config.d_vocab:
            raise BadValue("d_vocab", config.d_vocab, f"the tokenizer's {tokenizer.vocab_size}")
        self.config, self.tokenizer = config, tokenizer
        self.embed = Embed(config.d_vocab, config.d_model, n_positions=config.n_ctx if config.positions == "learned" else None)
        self.stack = Stack([self._block() for _ in range(config.n_layers)])
        self.ln_final = self._norm() if config.norm_placement == "pre" else None
        self.unembed = Unembed(config.d_model, config.d_vocab, tied=config.tied)
        initialise(self, seed, writes=config.n_layers * (1 if config.act == "none" else 2), std=config.init_std)
        self._table = self._sites()

    def _norm(self) -> Norm:
        return Norm(self.config.norm, self.config.d_model, eps=self.config.norm_eps, bias=self.config.bias)

    def _block(self) -> Block:
        c = self.config
        attn = Attention(c.d_model, c.n_heads, c.n_kv_heads, c.d_head, bias=c.bias)
        mlp = MLP(c.d_model, c.d_mlp, act=c.act, bias=c.bias) if c.act != "none" else None
        normed = c.norm_placement != "none"
        return Block(attn, mlp, self._norm() if normed else None, self._norm() if normed and mlp else None, placement=c.norm_placement)

    def _sites(self) -> SiteTable:
        table = self.embed.sites() | self.stack.sites(rotary=self.config.positions == "rope")
        if self.ln_final is not None:
            table |= {f"ln_final.{name}": axes for name, axes in NORM_SITES.items()}
        table |= {f"unembed.{name}": axes for name, axes in self.unembed.sites().items()}
        return SiteTable([Site(*line) for line in table.items()], additive=self.config.norm_placement != "post", where="this gpt model")

    def sites(self) -> SiteTable:
        """Every place that can be read or edited, in the order a run passes them."""
        return self._table

    def run(
        self,
        batch: Any,
        *,
        capture: Selection = (),
        edit: Sequence[Edit] = (),
        logits: LogitsAt = "all",
        grad: bool = False,
        resume: Resume | None = None,
        cache: bool = False,
    ) -> Trace:
        """One forward pass without dropout (see ``HookedModel.run``; ``blocks.inputs`` says what is accepted and how it is read).

        ``Trace.logits`` is ``[batch, pos or chosen, d_vocab]``; sites are captured whole, whatever ``logits`` asks for.
        """
        sites, resume = self._table.select(capture), resume or Resume()
        listener = Listener(self._table, sites, edit, grad) if sites or edit else None
        start, stop = (Point.named(name, self.config.n_layers) if name else None for name in (resume.start, resume.stop))
        if start and stop and not start <= stop:
            raise BadValue("resume.stop", resume.stop, f"at or after resume.start, '{resume.start}'")
        if cache and (start or stop):
            raise BadValue("cache", True, "false for a part of a run: the past would lack layers")
        with torch.set_grad_enabled(grad):
            given = passage(batch, resume, self.config, tokenizer=self.tokenizer, like=self.embed.token.weight)
            asked = chosen(logits, given) if stop is None else None
            x = given.residual if given.residual is not None else self._embedded(given, listener)
            x, kept = self.stack(x, self._setting(given), past=given.past, listener=listener, start=start, stop=stop)
            out = self._read_out(x, asked, listener) if stop is None else None
        at, heard = listener.finish() if listener is not None else ({}, {})
        return Trace(out, at, heard, KVCache(kept) if cache else None)

    def loss(self, batch: TokenBatch) -> tuple[Float[Tensor, ""], int]:
        """The summed negative log-likelihood (nats) of the batch's targets and their number; with dropout in training mode."""
        given = passage(batch, Resume(), self.config, tokenizer=None, like=self.embed.token.weight)
        dropout = self.config.dropout if self.training else 0.0
        x = functional.dropout(self._embedded(given, None), dropout, training=True) if dropout else self._embedded(given, None)
        x, _ = self.stack(x, self._setting(given, dropout))
        x = self.ln_final(x) if self.ln_final is not None else x
        return next_token_nll(x, self.unembed.matrix(self.embed), batch.targets.to(x.device))

    def _embedded(self, given: Passage, listener: Listener | None) -> Tensor:
        return self.embed(given.tokens, given.positions, listener)

    def _setting(self, given: Passage, dropout: float = 0.0) -> Setting:
        c, like = self.config, self.embed.token.weight
        rotary = Rotary.at(given.positions, c.d_head, n_ctx=c.n_ctx, base=c.rope_base, dtype=like.dtype) if c.positions == "rope" else None
        return Setting(given.mask, rotary, dropout)

    def _read_out(self, x: Tensor, asked: Chosen | None, listener: Listener | None) -> Tensor | None:
        final, head = under(listener, "ln_final."), under(listener, "unembed.")
        whole = final is not None or head is not None  # someone listens: the sites are heard at every position
        if asked is None and not whole:
            return None
        if asked is not None and not whole:
            x = asked.take(x)
        x = self.ln_final(x, final) if self.ln_final is not None else x
        out = self.unembed(x, self.embed, head)
        return asked.take(out) if asked is not None and whole else out if asked is not None else None

    def weight(self, name: str) -> Tensor:
        """A weight by TransformerLens's name and shape (``blocks.0.attn.W_Q``, ``blocks.0.mlp.W_in``, ``W_E``, ``W_pos``, ``W_U``,
        ``ln_final.w`` …), detached; biases there are none of are zeros. A view where shapes allow: clone before writing."""
        named = self.stack.weights() | self.embed.weights() | self.unembed.weights(self.embed)
        if self.ln_final is not None:
            named |= {f"ln_final.{word}": w for word, w in self.ln_final.weights().items()}
        if name not in named:
            raise UnknownName("weight", name, named, where="in this gpt model")
        return named[name].detach()

    def digest(self) -> str:
        """sha256 (hex) over config, weights and tokenizer."""
        return model_digest(self.family, self.config, self.state_dict(), self.tokenizer)

    @classmethod
    def tiny(cls, seed: int = 0) -> tuple[GPT, TokenBatch]:
        """The smallest model worth testing (grouped keys, two layers) and a batch of two packed rows."""
        config = GPTConfig(n_layers=2, d_model=16, n_heads=4, n_kv_heads=2, d_vocab=23, n_ctx=16)
        tokens = torch.randint(0, config.d_vocab, (2, 9), generator=generator_of("tiny", seed))
        segments = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1, 1], [0] * 9])
        positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3], list(range(9))])
        targets = torch.where(segments == segments.roll(-1, 1), tokens.roll(-1, 1), -100)
        targets[:, -1] = -100
        return cls(config, seed=seed), TokenBatch(tokens[:, :8], targets[:, :8], segments[:, :8], positions[:, :8])
