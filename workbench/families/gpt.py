"""The decoder-only language model (Radford et al. 2019, and its descendants by option)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional

from workbench.blocks.attention import Attention
from workbench.blocks.cache import KVCache
from workbench.blocks.economy import PLAIN as WHOLE
from workbench.blocks.economy import Economy
from workbench.blocks.embed import Axes, Embed, Unembed
from workbench.blocks.ending import ending
from workbench.blocks.init import STD, generator_of
from workbench.blocks.inputs import Chosen, Passage, chosen, passage
from workbench.blocks.listen import Listener, under
from workbench.blocks.losses import next_token_nll
from workbench.blocks.mlp import MLP
from workbench.blocks.model import Ask, Model, prefixed
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm
from workbench.blocks.rotary import PLAIN, Rotary, Scaling
from workbench.blocks.stack import Block, Setting
from workbench.blocks.stepping import Stepper, steppable
from workbench.core.batch import TokenBatch
from workbench.core.protocol import Resume, Tokenizer
from workbench.core.spec import Spec, later


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
    act: Literal["gelu", "gelu_tanh", "quick_gelu", "swiglu", "relu", "none"] = Field(default="gelu", description="none: attention only")
    positions: Literal["rope", "learned"] = "rope"
    rope_base: PositiveFloat = 10_000.0
    rope_scaling: Scaling = PLAIN
    tied: bool = True
    bias: bool = Field(default=True, description="of all linear maps and layer norms; the unembedding never has one")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="of embeddings and sublayer outputs, in training only")
    norm_eps: PositiveFloat = 1e-5
    init_std: PositiveFloat = Field(default=STD, description="of the matrices at first; narrow models learn sooner near d_model ** -0.5")
    economy: Economy = later(WHOLE, description="attention to a part of the row, shared layers, a factorised embedding")

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
        self.economy.check(self.n_layers)
        return self


class GPT(Model):
    """A model with its tokenizer. A batch is ids ``[batch, pos]``, a TokenBatch, or text (``blocks.inputs`` says how each is read)."""

    family = "gpt"
    config_type: ClassVar[type[GPTConfig]] = GPTConfig
    abilities: frozenset[str] = frozenset({"logits", "logprobs", "generate", "edit", "grad", "cache", "mask", "weights"})
    resumes: ClassVar[frozenset[str]] = frozenset({"start", "stop", "residual", "past", "positions", "mask", "only", "parents"})
    moves: ClassVar[bool] = True

    def __init__(self, config: GPTConfig, tokenizer: Tokenizer | None = None, *, seed: int = 0) -> None:
        super().__init__(config, tokenizer)
        learned, saved = config.n_ctx if config.positions == "learned" else None, config.economy
        self.embed = Embed(config.d_vocab, config.d_model, n_positions=learned, d_embed=saved.d_embed)
        self.stack = saved.stack(self._block, config.n_layers)
        self.ln_final = self._norm() if config.norm_placement == "pre" else None
        self.unembed = Unembed(config.d_model, config.d_vocab, tied=config.tied)
        writes = config.n_layers * (1 if config.act == "none" else 2)
        self._finish(self._sites(), additive=config.norm_placement != "post", seed=seed, writes=writes, std=config.init_std)

    def _norm(self) -> Norm:
        return Norm(self.config.norm, self.config.d_model, eps=self.config.norm_eps, bias=self.config.bias)

    def _block(self) -> Block:
        c = self.config
        attn = Attention(c.d_model, c.n_heads, c.n_kv_heads, c.d_head, bias=c.bias)
        mlp = MLP(c.d_model, c.d_mlp, act=c.act, bias=c.bias) if c.act != "none" else None
        return Block(attn, mlp, self._norm if c.norm_placement != "none" else None, placement=c.norm_placement)

    def _sites(self) -> dict[str, Axes]:
        final = prefixed("ln_final.", NORM_SITES) if self.ln_final is not None else {}
        stack = self.stack.sites(rotary=self.config.positions == "rope")
        return self.embed.sites() | stack | final | prefixed("unembed.", self.unembed.sites())

    def _pass(self, batch: Any, ask: Ask) -> tuple[Tensor | None, KVCache | None]:
        """Logits are ``[batch, pos or chosen, d_vocab]``."""
        given = self._given(batch, ask.resume, self.tokenizer)
        asked = chosen(ask.logits, given) if ask.stops is None else None
        only = ending(self.stack, ask, given, asked, ask.listener)
        asked = asked if only is None or asked is None else Chosen()
        x = given.residual if given.residual is not None else self._embedded(given, ask.listener)
        setting = replace(self._setting(given), only=only)
        x, past = self.stack(x, setting, past=given.past, listener=ask.listener, start=ask.start(self.stack), stop=ask.stop(self.stack))
        return (self._read_out(x, asked, ask.listener) if ask.stops is None else None), past

    def loss(self, batch: TokenBatch) -> tuple[Float[Tensor, ""], int]:
        """The summed negative log-likelihood (nats) of the batch's targets and their number; with dropout in training mode."""
        given = self._given(batch, Resume(), None)
        dropout = self.config.dropout if self.training else 0.0
        x = functional.dropout(self._embedded(given, None), dropout, training=True) if dropout else self._embedded(given, None)
        x, _ = self.stack(x, self._setting(given, dropout))
        x = self.ln_final(x) if self.ln_final is not None else x
        return next_token_nll(*self.unembed.read(x, self.embed), batch.targets)

    def _given(self, batch: Any, resume: Resume, tokenizer: Tokenizer | None) -> Passage:
        like, pattern = self.embed.token.weight, self.config.economy.pattern
        return passage(batch, resume, self.config, tokenizer=tokenizer, like=like, pattern=pattern)

    def _embedded(self, given: Passage, listener: Listener | None) -> Tensor:
        return self.embed(given.tokens, given.positions, listener)

    def _setting(self, given: Passage, dropout: float = 0.0) -> Setting:
        return Setting(given.mask, self._turns(given.positions), dropout)

    def _turns(self, positions: Int[Tensor, "rows pos"]) -> Rotary | None:
        c, like = self.config, self.embed.token.weight
        if c.positions != "rope":
            return None
        return Rotary.at(positions, c.d_head, n_ctx=c.n_ctx, base=c.rope_base, dtype=like.dtype, scaling=c.rope_scaling)

    def steps(self) -> Stepper | None:
        """What decoding goes by in place of ``run``, one token a row; None where a run is more than this class says (a subclass with a part
        of the pass of its own, wrapped layers, adapted maps, hooks)."""
        passed = ("run", "_pass", "_given", "_embedded", "_setting", "_turns", "_read_out")
        if any(getattr(type(self), name) is not getattr(GPT, name) for name in passed) or not steppable(self):
            return None
        return Stepper(self.embed, self.stack, self.ln_final, self.unembed, turns=self._turns, pattern=self.config.economy.pattern)

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

    def named_weights(self) -> dict[str, Tensor]:
        """Every weight by its public name."""
        final = prefixed("ln_final.", self.ln_final.weights()) if self.ln_final is not None else {}
        return self.stack.weights() | self.embed.weights() | self.unembed.weights(self.embed) | final

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
