"""The encoder-decoder (Vaswani et al. 2017; with norms after the sums and learned positions, Lewis et al. 2019)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from workbench.blocks.attention import Attention
from workbench.blocks.cache import KVCache
from workbench.blocks.decoder import Decoder, Memory
from workbench.blocks.embed import Embed, Unembed
from workbench.blocks.encoder import SILENT, Encoder
from workbench.blocks.init import STD, generator_of
from workbench.blocks.mlp import MLP
from workbench.blocks.model import Ask, Model
from workbench.blocks.norm import Norm
from workbench.blocks.reading import Reading, reading
from workbench.blocks.stack import Block
from workbench.core.batch import IGNORE, EncoderBatch, SequenceBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import Resume, Tokenizer
from workbench.core.spec import Spec


class Seq2SeqConfig(Spec):
    """The shape of a model; both stacks are alike but for their depth. ``d_mlp`` left out (or 0) is ``4 d_model``."""

    n_layers_encoder: PositiveInt = 2
    n_layers_decoder: PositiveInt = 2
    d_model: PositiveInt = 128
    n_heads: PositiveInt = 4
    d_mlp: PositiveInt = 0
    d_vocab: PositiveInt
    n_ctx: PositiveInt = Field(default=256, description="of the source, and of the tokens")
    norm_placement: Literal["pre", "post"] = Field(default="pre", description="pre: with a final norm of each stack")
    embed_norm: bool = Field(default=False, description="a norm of the embeddings with their positions, in each stack")
    act: Literal["gelu", "gelu_tanh", "quick_gelu", "swiglu", "relu"] = "gelu"
    positions: Literal["rope", "learned"] = "rope"
    rope_base: PositiveFloat = 10_000.0
    reserved: NonNegativeInt = Field(default=0, description="rows before position 0 in the tables of learned positions; never read")
    scale_embed: bool = Field(default=False, description="token embeddings times sqrt(d_model)")
    logits_bias: bool = False
    tied: bool = Field(default=True, description="one embedding for source, tokens and logits; false: three")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="of embeddings and sublayer outputs, in training only")
    norm_eps: PositiveFloat = 1e-5
    init_std: PositiveFloat = Field(default=STD, description="of the matrices at first; narrow models learn sooner near d_model ** -0.5")

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("d_model", 128), int):
            return values
        return values | {"d_mlp": values.get("d_mlp") or 4 * values.get("d_model", 128)}

    @model_validator(mode="after")
    def _fits(self) -> Seq2SeqConfig:
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads must divide d_model ({self.d_model}), and it is {self.n_heads}")
        if self.positions == "rope" and self.d_model // self.n_heads % 2:
            raise ValueError(f"d_model / n_heads must be even for rotary positions, and it is {self.d_model // self.n_heads}")
        if self.positions == "rope" and self.reserved:
            raise ValueError(f"reserved must be 0 without a table of positions, and it is {self.reserved}")
        return self


class Seq2Seq(Model):
    """A model with its tokenizer. A batch is a SequenceBatch; where the run stops in the encoder, source ids ``[batch, pos]`` are enough.

    With a past the encoder is not run: the past holds what it said, and the batch's source is not read.
    """

    family = "seq2seq"
    config_type: ClassVar[type[Seq2SeqConfig]] = Seq2SeqConfig
    abilities: frozenset[str] = frozenset({"logits", "edit", "grad", "cache", "weights"})
    resumes: ClassVar[frozenset[str]] = frozenset({"start", "stop", "residual", "past", "only"})
    reads: ClassVar[str] = "sequences"

    def __init__(self, config: Seq2SeqConfig, tokenizer: Tokenizer | None = None, *, seed: int = 0) -> None:
        super().__init__(config, tokenizer)
        c = config
        rope_base = c.rope_base if c.positions == "rope" else None
        self.encoder = Encoder(
            self._embed(None if c.tied else c.d_vocab),
            [self._block() for _ in range(c.n_layers_encoder)],
            self._final(),
            d_vocab=c.d_vocab,
            n_ctx=c.n_ctx,
            rope_base=rope_base,
        )
        self.decoder = Decoder(
            self._embed(c.d_vocab),
            [self._block(crossed=True) for _ in range(c.n_layers_decoder)],
            self._final(),
            Unembed(c.d_model, c.d_vocab, tied=c.tied, bias=c.logits_bias),
            n_ctx=c.n_ctx,
            rope_base=rope_base,
        )
        writes = max(2 * c.n_layers_encoder, 3 * c.n_layers_decoder)
        sites = self.encoder.sites() | self.decoder.sites()
        self._finish(sites, additive=c.norm_placement != "post", seed=seed, writes=writes, std=c.init_std)

    def _norm(self) -> Norm:
        return Norm("layer", self.config.d_model, eps=self.config.norm_eps, bias=True)

    def _final(self) -> Norm | None:
        return self._norm() if self.config.norm_placement == "pre" else None

    def _embed(self, d_vocab: int | None) -> Embed:
        c = self.config
        return Embed(
            d_vocab,
            c.d_model,
            n_positions=c.n_ctx if c.positions == "learned" else None,
            scale=math.sqrt(c.d_model) if c.scale_embed else 1.0,
            norm=self._norm() if c.embed_norm else None,
            reserved=c.reserved,
        )

    def _block(self, *, crossed: bool = False) -> Block:
        c = self.config
        attn, cross = (Attention(c.d_model, c.n_heads, c.n_heads, c.d_model // c.n_heads, bias=True) for _ in range(2))
        mlp = MLP(c.d_model, c.d_mlp, act=c.act, bias=True)
        return Block(attn, mlp, self._norm, placement=c.norm_placement, cross_attn=cross if crossed else None)

    def _pass(self, batch: Any, ask: Ask) -> tuple[Tensor | None, KVCache | None]:
        """Logits are ``[batch, pos or chosen, d_vocab]``, of the tokens."""
        within = ask.stop(self.encoder.stack) is not None
        if not isinstance(batch, SequenceBatch) and not (within and (batch is None or isinstance(batch, Tensor))):
            allowed = "a SequenceBatch (or, where the run stops in the encoder, the source's ids [batch, pos])"
            raise BadValue("the batch", type(batch).__name__, allowed)
        source, mask, tokens = (batch.source, batch.mask, batch.tokens) if isinstance(batch, SequenceBatch) else (batch, None, None)
        given, memory, table = None, None, self.decoder.embed.token
        if not within or ask.resume.past is not None:
            given = self.decoder.passage(tokens.to(table.weight.device) if tokens is not None else None, ask, mask)
        if ask.resume.past is None:
            late = ask.start(self.decoder.stack) is not None  # the encoder's sites lie before the start: it runs unheard
            read = self._reading(source, mask, Resume() if late else ask.resume)
            memory = Memory(self.encoder(read, self._lent(), SILENT if late else ask), read.valid)
        return (None, None) if given is None else self.decoder(given, memory, ask)

    def _reading(self, source: Tensor | None, mask: Tensor | None, resume: Resume) -> Reading:
        batch = EncoderBatch(source, mask=mask) if source is not None else None
        return reading(batch, resume, self.encoder, n_types=1, tokenizer=None, like=self.decoder.embed.token.weight)

    def _lent(self) -> nn.Embedding:
        return self.decoder.embed.token if self.config.tied else self.encoder.embed.token

    def loss(self, batch: SequenceBatch) -> tuple[Float[Tensor, ""], int]:
        """The summed negative log-likelihood (nats) of the batch's targets and their number; with dropout in training mode."""
        dropout = self.config.dropout if self.training else 0.0
        read = self._reading(batch.source, batch.mask, Resume())
        return self.decoder.loss(batch, Memory(self.encoder(read, self._lent(), dropout=dropout), read.valid), dropout)

    def places(self, batch: SequenceBatch, stack: str = "") -> list[list[str]]:
        """The pieces (without a tokenizer, the numbers) of a stack's positions in each row, '' at padding."""
        ids, mask = (batch.tokens, None) if stack == "decoder" else (batch.source, batch.mask)
        real = (mask if mask is not None else torch.ones_like(ids)).tolist()
        words = [self.tokenizer.pieces(row) if self.tokenizer is not None else [str(i) for i in range(len(row))] for row in ids.tolist()]
        return [[word if kept else "" for word, kept in zip(*row, strict=True)] for row in zip(words, real, strict=True)]

    def named_weights(self) -> dict[str, Tensor]:
        """Every weight by its public name."""
        return self.encoder.weights(self._lent()) | self.decoder.weights()

    @classmethod
    def tiny(cls, seed: int = 0) -> tuple[Seq2Seq, SequenceBatch]:
        """The smallest model worth testing (two layers a stack) and a batch of two rows, the source of one of them padded."""
        config = Seq2SeqConfig(d_model=16, n_heads=4, d_vocab=23, n_ctx=16)
        ids = torch.randint(0, config.d_vocab, (2, 15), generator=generator_of("tiny", seed))
        mask = torch.tensor([[True] * 8, [True] * 5 + [False] * 3])
        targets = torch.where(torch.arange(6) < 5, ids[:, 9:], IGNORE)
        return cls(config, seed=seed), SequenceBatch(ids[:, :8], ids[:, 8:14], targets, mask)
