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
from workbench.blocks.economy import PLAIN, Economy
from workbench.blocks.embed import RESIDUAL, Axes, Embed, Unembed
from workbench.blocks.heads import ENDS, NAMED, POOLED, Classes, Pooler, Transform, answer_loss, checked_targets
from workbench.blocks.init import STD, generator_of, table
from workbench.blocks.inputs import Chosen, chosen
from workbench.blocks.listen import Listener, hear, under
from workbench.blocks.mlp import MLP
from workbench.blocks.model import Ask, Model, prefixed
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm
from workbench.blocks.reading import Reading, reading
from workbench.blocks.stack import Block, Setting
from workbench.core.batch import IGNORE, EncoderBatch
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import Resume, Tokenizer
from workbench.core.spec import Spec, later


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
    head: Literal["masked", "sequence", "token", "span", "regression", "pooler", "none"] = "masked"
    classes: tuple[str, ...] = Field(default=(), description="names, for the heads sequence and token; of the numbers, for regression")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="of embeddings, sublayer outputs and classified vectors, in training")
    norm_eps: PositiveFloat = 1e-12
    init_std: PositiveFloat = STD
    economy: Economy = later(PLAIN, description="attention to a part of the row, shared layers, a factorised embedding")

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
        if (self.head in NAMED) != bool(self.classes):
            raise ValueError(f"classes are named exactly for the heads {', '.join(NAMED)}, and the head is {self.head}")
        self.economy.check(self.n_layers)
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
        self.embed = Embed(c.d_vocab, c.d_model, n_positions=c.n_ctx, d_embed=c.economy.d_embed)
        self.types = table(c.n_types, c.d_model)
        self.ln_embed = self._norm()
        self.stack = c.economy.stack(self._block, c.n_layers)
        self.head = Transform(c.d_model, act=c.act, norm=self._norm()) if c.head == "masked" else None
        self.pooler = Pooler(c.d_model) if c.head in POOLED else None
        self.unembed: Unembed | Classes | None = None
        if c.head == "masked":
            self.unembed = Unembed(c.d_model, c.d_vocab, tied=True, bias=True)
        elif c.head in (*NAMED, "span"):
            self.unembed = Classes(c.d_model, len(c.classes) or ENDS, by_pos=c.head not in POOLED)
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
        """Logits are ``[batch, pos or chosen, d_vocab or class]``, for the heads sequence and regression ``[batch, class]``; without a map
        to logits, None."""
        given = self._given(batch, ask.resume, self.tokenizer)
        if (self.unembed is None or self.pooler is not None) and not (ask.logits is None or isinstance(ask.logits, str)):
            raise BadValue("logits", "positions", f"'all' or None: the head {self.config.head} has no logits of positions")
        asked = chosen(ask.logits, given) if ask.stops is None else None
        x = given.residual if given.residual is not None else self._embedded(given, ask.listener)
        x, _ = self.stack(x, Setting(given.mask), listener=ask.listener, start=ask.start(self.stack), stop=ask.stop(self.stack))
        return (self._read_out(x, asked, ask.listener) if ask.stops is None else None), None

    def _given(self, batch: Any, resume: Resume, tokenizer: Tokenizer | None) -> Reading:
        c, like = self.config, self.embed.token.weight
        given = reading(batch, resume, c, n_types=c.n_types, tokenizer=tokenizer, like=like, pattern=c.economy.pattern)
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
        """The summed loss of the batch's targets (``heads.checked_targets`` says of which shape) and their number: negative
        log-likelihoods in nats, of numbers squared errors; with dropout in training mode. Raises BadValue, Incompatible without a head."""
        if self.unembed is None or (len(self.config.classes) == 1 and self.config.head != "regression"):
            why = f"its head is {self.config.head}, with {len(self.config.classes)} classes: cross-entropy needs logits of two or more"
            raise Incompatible("loss", f"this {self.family} model", [why])
        given = self._given(batch, Resume(), None)
        targets = checked_targets(self.config.head, batch.targets, given.shape, len(self.config.classes))
        dropout = self.config.dropout if self.training else 0.0
        x, _ = self.stack(functional.dropout(self._embedded(given, None), dropout, bool(dropout)), Setting(given.mask, None, dropout))
        targets = targets.to(x.device)
        if self.config.head in ("masked", "token"):  # the head is applied where something is predicted alone
            x, targets = x[targets != IGNORE].unsqueeze(0), targets[targets != IGNORE]
        x = self._last(x, [None, None])
        x = functional.dropout(x, dropout, bool(dropout and self.config.head != "masked"))
        weights = self.unembed.weights(self.embed)
        return answer_loss(self.config.head, x, weights["W_U"].T, weights["b_U"], targets, given.valid)

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
