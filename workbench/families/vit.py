"""The vision transformer (Dosovitskiy et al. 2021): a bidirectional pre-norm encoder over patches, and a class for each image."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional

from workbench.blocks.attention import Attention
from workbench.blocks.cache import KVCache
from workbench.blocks.embed import RESIDUAL, Axes
from workbench.blocks.frontends import Grid, Patches, check_pixels
from workbench.blocks.heads import Classes, Pooler
from workbench.blocks.init import STD, generator_of
from workbench.blocks.inputs import given_residual
from workbench.blocks.listen import Listener, hear, under
from workbench.blocks.losses import next_token_nll
from workbench.blocks.mask import AttentionMask
from workbench.blocks.mlp import MLP
from workbench.blocks.model import Ask, Model, prefixed
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm
from workbench.blocks.stack import Block, Setting, Stack
from workbench.core.batch import ImageBatch
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import Tokenizer
from workbench.core.spec import Spec


class ViTConfig(Spec):
    """The shape of a model; ``d_mlp`` left out (or 0) is ``4 d_model``. Sizes are in pixels."""

    height: PositiveInt = 32
    width: PositiveInt = 32
    channels: PositiveInt = 3
    patch: PositiveInt = Field(default=4, description="the side of a patch; divides height and width")
    n_layers: PositiveInt = 4
    d_model: PositiveInt = 128
    n_heads: PositiveInt = 4
    d_mlp: PositiveInt = 0
    n_classes: NonNegativeInt = Field(default=10, description="0: no classes, the last stream is all there is")
    class_names: tuple[str, ...] = Field(default=(), description="one a class, or none at all")
    pool: Literal["class", "mean"] = Field(default="class", description="what is classified: the class token, or the mean of the patches")
    pooler: bool = Field(default=False, description="a dense layer and a tanh over the class token, as pre-trained models have")
    act: Literal["gelu", "gelu_tanh", "quick_gelu", "relu"] = "gelu"
    qkv_bias: bool = True
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="of embeddings and sublayer outputs, in training only")
    norm_eps: PositiveFloat = 1e-6
    init_std: PositiveFloat = Field(default=STD, description="of the matrices at first; narrow models learn sooner near d_model ** -0.5")

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("d_model", 128), int):
            return values  # the fields' own checks say what is wrong
        return values | {"d_mlp": values.get("d_mlp") or 4 * values.get("d_model", 128)}

    @model_validator(mode="after")
    def _fits(self) -> ViTConfig:
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads must divide d_model ({self.d_model}), and it is {self.n_heads}")
        if self.height % self.patch or self.width % self.patch:
            raise ValueError(f"patch must divide height and width ({self.height} x {self.width}), and it is {self.patch}")
        if self.class_names and len(self.class_names) != self.n_classes:
            raise ValueError(f"class_names must be one a class ({self.n_classes}) or none, and there are {len(self.class_names)}")
        if self.pooler and self.pool != "class":
            raise ValueError("a pooler reads the class token, so pool must be class")
        return self


class ViT(Model):
    """An image classifier. A batch is pixels ``[batch, channel, height, width]`` (finite floats, scaled as in training) or an ImageBatch.

    Position 0 is the class token, then come the patches row by row; ``grid`` says which pixels a position is. ``unembed.hook_in`` is
    the pooled vector ``[batch, d_model]``; without classes it is the normalised stream, and there are no logits.
    """

    family = "vit"
    reads: ClassVar[str] = "pixels"
    config_type: ClassVar[type[ViTConfig]] = ViTConfig
    abilities: frozenset[str] = frozenset({"logits", "edit", "grad", "weights"})
    resumes: ClassVar[frozenset[str]] = frozenset({"start", "stop", "residual"})

    def __init__(self, config: ViTConfig, tokenizer: Tokenizer | None = None, *, seed: int = 0) -> None:
        if tokenizer is not None:
            raise BadValue("the tokenizer", type(tokenizer).__name__, f"None: a {self.family} model reads no text")
        super().__init__(config)
        c = config
        self.grid = Grid(c.height, c.width, c.patch)
        self.grids = {"": self.grid}
        self.embed = Patches(self.grid, c.channels, c.d_model, bias=True)
        self.stack = Stack([self._block() for _ in range(c.n_layers)])
        self.ln_final = self._norm()
        self.pooler = Pooler(c.d_model) if c.pooler else None
        self.unembed = Classes(c.d_model, c.n_classes, by_pos=False) if c.n_classes else None
        if self.unembed is None:
            self.abilities = self.abilities - {"logits"}
        self._finish(self._sites(), additive=True, seed=seed, writes=2 * c.n_layers, std=c.init_std)

    def _norm(self) -> Norm:
        return Norm("layer", self.config.d_model, eps=self.config.norm_eps, bias=True)

    def _block(self) -> Block:
        c = self.config
        attn = Attention(c.d_model, c.n_heads, c.n_heads, c.d_model // c.n_heads, bias=c.qkv_bias, out_bias=True)
        return Block(attn, MLP(c.d_model, c.d_mlp, act=c.act, bias=True), self._norm, placement="pre")

    def _sites(self) -> dict[str, Axes]:
        out = self.embed.sites() | self.stack.sites() | prefixed("ln_final.", NORM_SITES)
        pooler = prefixed("pooler.", self.pooler.sites()) if self.pooler is not None else {}
        if self.unembed is None:
            return out | {"unembed.hook_in": RESIDUAL} | pooler
        return out | pooler | prefixed("unembed.", self.unembed.sites())

    def _pass(self, batch: Any, ask: Ask) -> tuple[Tensor | None, KVCache | None]:
        """Logits are ``[batch, class]``; None without classes."""
        if not (ask.logits is None or (isinstance(ask.logits, str) and ask.logits == "all")):
            found = ask.logits if isinstance(ask.logits, str) else "positions"
            raise BadValue("logits", found, f"'all' or None for a {self.family} model, which has one set of logits an image")
        x = self._stream(batch, ask)
        x, _ = self.stack(
            x, Setting(AttentionMask()), listener=ask.listener, start=ask.start(self.stack), stop=ask.stop(self.stack)
        )  # fmt: skip
        if ask.stops is not None:
            return None, None
        out = self._read_out(x, ask.listener)
        return (None if ask.logits is None else out), None

    def _stream(self, batch: Any, ask: Ask) -> Tensor:
        like = self.embed.map.weight
        residual = given_residual(ask.resume, None, self.config, like)
        if residual is None:
            return self.embed(self._pixels(batch), ask.listener)
        if residual.shape[1] != self.grid.positions:
            raise BadValue("the positions of resume.residual", residual.shape[1], f"{self.grid.positions}: the class token and the patches")
        return residual

    def _pixels(self, batch: Any) -> Tensor:
        pixels = batch.pixels if isinstance(batch, ImageBatch) else batch
        if not isinstance(pixels, Tensor):
            raise BadValue("the batch", type(batch).__name__, "pixels [batch, channel, height, width] or an ImageBatch")
        return check_pixels(pixels, self.config.channels, self.grid, self.embed.map.weight)

    def _read_out(self, x: Tensor, listener: Listener | None) -> Tensor | None:
        x = self.ln_final(x, under(listener, "ln_final."))
        head, pooler = under(listener, "unembed."), under(listener, "pooler.")
        if self.unembed is None:
            x = hear(head, "hook_in", x)
            if self.pooler is not None and pooler is not None:
                self.pooler(x, pooler)
            return None
        return self.unembed(self._pooled(x, pooler), None, head)

    def _pooled(self, x: Float[Tensor, "batch pos d_model"], listener: Listener | None = None) -> Float[Tensor, "batch d_model"]:
        if self.pooler is not None:
            return self.pooler(x, listener)
        return x[:, 0] if self.config.pool == "class" else x[:, 1:].mean(1)

    def loss(self, batch: ImageBatch) -> tuple[Float[Tensor, ""], int]:
        """The summed negative log-likelihood (nats) of the images' classes and their number; with dropout in training mode.

        Raises BadValue, and Incompatible without at least two classes.
        """
        if self.unembed is None or self.config.n_classes < 2:
            raise Incompatible("loss", f"this {self.family} model", [f"it has {self.config.n_classes} classes: cross-entropy needs two"])
        pixels, targets = self._pixels(batch), batch.targets
        if targets is None or targets.shape != pixels.shape[:1] or targets.is_floating_point() or targets.dtype == torch.bool:
            found = None if targets is None else f"{tuple(targets.shape)} {targets.dtype}"
            raise BadValue("the batch's targets", found, f"integers [{len(pixels)}], a class an image")
        dropout = self.config.dropout if self.training else 0.0
        x = functional.dropout(self.embed(pixels), dropout, bool(dropout))
        x, _ = self.stack(x, Setting(AttentionMask(), None, dropout))
        x = self._pooled(self.ln_final(x))
        head = self.unembed.linear
        return next_token_nll(x.unsqueeze(0), head.weight, targets.to(x.device).unsqueeze(0), bias=head.bias)

    def named_weights(self) -> dict[str, Tensor]:
        """Every weight by its public name."""
        out = self.stack.weights() | self.embed.weights() | prefixed("ln_final.", self.ln_final.weights())
        out |= prefixed("pooler.", self.pooler.weights()) if self.pooler is not None else {}
        return out | (self.unembed.weights(None) if self.unembed is not None else {})

    @classmethod
    def tiny(cls, seed: int = 0) -> tuple[ViT, ImageBatch]:
        """The smallest model worth testing (six patches of an image that is no square, two layers) and a batch of three images."""
        config = ViTConfig(height=4, width=6, channels=2, patch=2, n_layers=2, d_model=16, n_heads=4, n_classes=5)
        draw = generator_of("tiny", seed)
        pixels = torch.rand(3, 2, 4, 6, generator=draw)
        return cls(config, seed=seed), ImageBatch(pixels, torch.randint(0, config.n_classes, (3,), generator=draw))
