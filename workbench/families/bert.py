"""The bidirectional encoder (Devlin et al. 2019) with one of its heads."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional

from workbench.blocks.attention import Attention
from workbench.blocks.cache import KVCache
from workbench.blocks.embed import RESIDUAL, Axes, Embed, Unembed
from workbench.blocks.heads import Classes, Pooler, Transform
from workbench.blocks.init import STD, generator_of, table
from workbench.blocks.inputs import Chosen, chosen
from workbench.blocks.listen import Listener, hear, under
from workbench.blocks.losses import next_token_nll
from workbench.blocks.mlp import MLP
from workbench.blocks.model import Ask, Model, prefixed
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm
from workbench.blocks.reading import Reading, reading
from workbench.blocks.stack import Block, Setting, Stack
from workbench.core.batch import IGNORE, EncoderBatch
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import Resume, Tokenizer
from workbench.core.spec import Spec

CLASSIFYING = ("sequence", "token")


class BERTConfig(Spec):
    """The shape of a model; ``d_mlp`` left out (or 0) is ``4 d_model``."""

    n_layers: PositiveInt = 4
    d_model: PositiveInt = 128
    n_heads: PositiveInt = 4
    d_mlp: PositiveInt = 0
    d_vocab: PositiveInt
    n_ctx: PositiveInt = 256
    n_types: PositiveInt = Field(default=2, description="sentence types: which of two texts a token belongs to")
    act: Literal["gelu", "gelu_tanh", "quick_gelu", "relu"] = "gelu"
    head: Literal["masked", "sequence", "token", "pooler", "none"] = "masked"
    classes: tuple[str, ...] = Field(default=(), description="their names, for the heads sequence and token")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="of embeddings, sublayer outputs and classified vectors, in training")
    norm_eps: PositiveFloat = 1e-12
    init_std: PositiveFloat = STD

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("d_model", 128), int):
            return values  # the fields' own checks say what is wrong
        return values | {"d_mlp": values.get("d_mlp") or 4 * values.get("d_model", 128)}

    @model_validator(mode="after")
    def _fits(self) -> BERTConfig:
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads must divide d_model ({self.d_model}), and it is {self.n_heads}")
        if (self.head in CLASSIFYING) != bool(self.classes):
            raise ValueError(f"classes are named exactly for the heads {' and '.join(CLASSIFYING)}, and the head is {self.head}")
        return self


class BERT(Model):
    """A model with its tokenizer. A batch is ids ``[batch, pos]``, an EncoderBatch, or text (``blocks.reading`` says how it is read).

    ``unembed.hook_in`` is what the last map reads: the transformed stream (masked), the pooled vector (sequence), else the last stream.
    """

    family = "bert"
    both_ways = True
    config_type: ClassVar[type[BERTConfig]] = BERTConfig
    abilities: frozenset[str] = frozenset({"logits", "edit", "grad", "mask", "weights"})
    resumes: ClassVar[frozenset[str]] = frozenset({"start", "stop", "residual", "positions", "mask"})

    def __init__(self, config: BERTConfig, tokenizer: Tokenizer | None = None, *, seed: int = 0) -> None:
        super().__init__(config, tokenizer)
        c = config
        self.embed = Embed(c.d_vocab, c.d_model, n_positions=c.n_ctx)
        self.types = table(c.n_types, c.d_model)
        self.ln_embed = self._norm()
        self.stack = Stack([self._block() for _ in range(c.n_layers)])
        self.head = Transform(c.d_model, act=c.act, norm=self._norm()) if c.head == "masked" else None
        self.pooler = Pooler(c.d_model) if c.head in ("sequence", "pooler") else None
        self.unembed: Unembed | Classes | None = None
        if c.head == "masked":
            self.unembed = Unembed(c.d_model, c.d_vocab, tied=True, bias=True)
        elif c.head in CLASSIFYING:
            self.unembed = Classes(c.d_model, len(c.classes), by_pos=c.head == "token")
        else:
            self.abilities = self.abilities - {"logits"}
        self._finish(self._sites(), additive=False, seed=seed, writes=1, std=c.init_std)

    def _norm(self) -> Norm:
        return Norm("layer", self.config.d_model, eps=self.config.norm_eps, bias=True)

    def _block(self) -> Block:
        c = self.config
        attn = Attention(c.d_model, c.n_heads, c.n_heads, c.d_model // c.n_heads, bias=True)
        return Block(attn, MLP(c.d_model, c.d_mlp, act=c.act, bias=True), self._norm, placement="post")

    def _sites(self) -> dict[str, Axes]:
        out = self.embed.sites() | {"hook_token_type_embed": RESIDUAL} | prefixed("ln_embed.", NORM_SITES) | self.stack.sites()
        head = prefixed("head.", self.head.sites()) if self.head is not None else {}
        pooler = prefixed("pooler.", self.pooler.sites()) if self.pooler is not None else {}
        if self.unembed is None:
            return out | {"unembed.hook_in": RESIDUAL} | pooler
        return out | head | pooler | prefixed("unembed.", self.unembed.sites())

    def _pass(self, batch: Any, ask: Ask) -> tuple[Tensor | None, KVCache | None]:
        """Logits are ``[batch, pos or chosen, d_vocab or class]``, for the head sequence ``[batch, class]``; without a map to logits,
        None."""
        given = self._given(batch, ask.resume, self.tokenizer)
        if (self.unembed is None or self.config.head == "sequence") and not (ask.logits is None or isinstance(ask.logits, str)):
            raise BadValue("logits", "positions", f"'all' or None: the head {self.config.head} has no logits of positions")
        asked = chosen(ask.logits, given) if ask.stops is None else None
        x = given.residual if given.residual is not None else self._embedded(given, ask.listener)
        start, stop = ask.start(self.stack), ask.stop(self.stack)
        x, _ = self.stack(x, Setting(given.mask), listener=ask.listener, start=start, stop=stop)
        return (self._read_out(x, asked, ask.listener) if ask.stops is None else None), None

    def _given(self, batch: Any, resume: Resume, tokenizer: Tokenizer | None) -> Reading:
        given = reading(batch, resume, self.config, n_types=self.config.n_types, tokenizer=tokenizer, like=self.embed.token.weight)
        if self.pooler is not None and given.valid is not None and not bool(given.valid[:, 0].all()):
            raise BadValue("the batch's mask", "padding at a row's first token", "true there, since the pooler reads that token")
        return given

    def _embedded(self, given: Reading, listener: Listener | None) -> Tensor:
        x = self.embed(given.tokens, given.positions, listener)
        x = x + hear(listener, "hook_token_type_embed", self.types(given.types))
        return self.ln_embed(x, under(listener, "ln_embed."))

    def _read_out(self, x: Tensor, asked: Chosen | None, listener: Listener | None) -> Tensor | None:
        heard = [under(listener, prefix) for prefix in ("head.", "pooler.", "unembed.")]
        whole = any(one is not None for one in heard)  # someone listens: the sites are heard at every position
        if not whole and (asked is None or self.unembed is None):
            return None
        if self.unembed is None:
            x = hear(heard[2], "hook_in", x)
            if self.pooler is not None and heard[1] is not None:
                self.pooler(x, heard[1])
            return None
        if asked is not None and not whole and self.pooler is None:
            x = asked.take(x)
        out = self.unembed(self._last(x, heard), self.embed, heard[2])
        return None if asked is None else asked.take(out) if whole and self.pooler is None else out

    def _last(self, x: Tensor, heard: list[Listener | None]) -> Tensor:
        """What the map to logits reads."""
        if self.head is not None:
            return self.head(x, heard[0])
        return self.pooler(x, heard[1]) if self.pooler is not None else x

    def loss(self, batch: EncoderBatch) -> tuple[Float[Tensor, ""], int]:
        """The summed negative log-likelihood (nats) of the batch's targets and their number; with dropout in training mode.

        Targets are ``[batch, pos]`` (masked, token) or ``[batch]`` (sequence). Raises BadValue, and Incompatible without a head.
        """
        if self.unembed is None or len(self.config.classes) == 1:
            why = f"its head is {self.config.head}, with {len(self.config.classes)} classes: cross-entropy needs logits of two or more"
            raise Incompatible("loss", f"this {self.family} model", [why])
        given = self._given(batch, Resume(), None)
        targets = batch.targets
        shape = given.shape[:1] if self.pooler is not None else given.shape
        if targets is None or tuple(targets.shape) != shape or targets.is_floating_point() or targets.dtype == torch.bool:
            found = None if targets is None else f"{tuple(targets.shape)} {targets.dtype}"
            raise BadValue("the batch's targets", found, f"integers {shape} for the head {self.config.head}")
        dropout = self.config.dropout if self.training else 0.0
        x = functional.dropout(self._embedded(given, None), dropout, bool(dropout))
        x, _ = self.stack(x, Setting(given.mask, None, dropout))
        targets = targets.to(x.device)
        if self.pooler is None:  # the head is applied where something is predicted alone
            x, targets = x[targets != IGNORE].unsqueeze(0), targets[targets != IGNORE]
        x = self._last(x, [None, None])
        if self.config.classes:
            x = functional.dropout(x, dropout, bool(dropout))
        weights = self.unembed.weights(self.embed)
        return next_token_nll(x.reshape(1, -1, x.shape[-1]), weights["W_U"].T, targets.reshape(1, -1), bias=weights["b_U"])

    def named_weights(self) -> dict[str, Tensor]:
        """Every weight by its public name; ``W_token_type`` [n_types, d_model] besides those of the parts."""
        out = self.stack.weights() | self.embed.weights() | {"W_token_type": self.types.weight}
        for prefix, part in (("ln_embed.", self.ln_embed), ("head.", self.head), ("pooler.", self.pooler)):
            out |= prefixed(prefix, part.weights()) if part is not None else {}
        return out | (self.unembed.weights(self.embed) if self.unembed is not None else {})

    @classmethod
    def tiny(cls, seed: int = 0) -> tuple[BERT, EncoderBatch]:
        """The smallest model worth testing (masked head, two layers) and a batch of two rows, one of them padded, of two sentences."""
        config = BERTConfig(n_layers=2, d_model=16, n_heads=4, d_vocab=23, n_ctx=16)
        tokens = torch.randint(0, config.d_vocab, (2, 8), generator=generator_of("tiny", seed))
        mask = torch.tensor([[True] * 8, [True] * 5 + [False] * 3])
        types = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1], [0] * 8])
        targets = torch.where(torch.arange(8) % 3 == 1, tokens, IGNORE)
        return cls(config, seed=seed), EncoderBatch(tokens, torch.where(mask, targets, IGNORE), mask, types)
