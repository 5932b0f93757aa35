"""Pictures and texts in one space (Radford et al. 2021): two encoders trained so that an image lies nearest to its own text."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from workbench.blocks.attention import Attention
from workbench.blocks.cache import KVCache
from workbench.blocks.embed import Axes, Embed
from workbench.blocks.frontends import Grid, Patches, check_pixels
from workbench.blocks.init import STD, generator_of
from workbench.blocks.inputs import check_tokens
from workbench.blocks.listen import hear, under
from workbench.blocks.losses import contrastive_nll
from workbench.blocks.mask import AttentionMask, attention_mask
from workbench.blocks.mlp import MLP
from workbench.blocks.model import Ask, Model
from workbench.blocks.norm import Norm
from workbench.blocks.stack import Block
from workbench.blocks.tower import Tower
from workbench.core.batch import PairBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import Resume, Tokenizer
from workbench.core.spec import Spec

TEXT, IMAGE = "text.", "image."


class CLIPConfig(Spec):
    """The shape of a model: its two towers. A ``d_mlp`` left out (or 0) is ``4 d_model``. Sizes are in pixels."""

    d_vocab: PositiveInt
    n_ctx: PositiveInt = 77
    eos_id: NonNegativeInt | None = Field(
        default=None, description="a text is read at the first of these ids; none: at the first of its largest id, as the first models did"
    )
    n_layers_text: PositiveInt = 4
    d_model_text: PositiveInt = 128
    n_heads_text: PositiveInt = 4
    d_mlp_text: PositiveInt = 0
    height: PositiveInt = 32
    width: PositiveInt = 32
    channels: PositiveInt = 3
    patch: PositiveInt = Field(default=4, description="the side of a patch; divides height and width")
    n_layers_image: PositiveInt = 4
    d_model_image: PositiveInt = 128
    n_heads_image: PositiveInt = 4
    d_mlp_image: PositiveInt = 0
    d_joint: PositiveInt = 64
    logit_scale: float = Field(default=math.log(1 / 0.07), description="logarithm of what multiplies the cosines, at first")
    act: Literal["gelu", "gelu_tanh", "quick_gelu", "relu"] = "quick_gelu"
    norm_eps: PositiveFloat = 1e-5
    init_std: PositiveFloat = Field(default=STD, description="of the matrices at first; narrow models learn sooner near d_model ** -0.5")

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for tower in ("text", "image"):
            width = values.get(f"d_model_{tower}", 128)
            if isinstance(width, int) and not values.get(f"d_mlp_{tower}"):
                values = values | {f"d_mlp_{tower}": 4 * width}
        return values

    @model_validator(mode="after")
    def _fits(self) -> CLIPConfig:
        for tower in ("text", "image"):
            width, heads = getattr(self, f"d_model_{tower}"), getattr(self, f"n_heads_{tower}")
            if width % heads:
                raise ValueError(f"n_heads_{tower} must divide d_model_{tower} ({width}), and it is {heads}")
        if self.height % self.patch or self.width % self.patch:
            raise ValueError(f"patch must divide height and width ({self.height} x {self.width}), and it is {self.patch}")
        if self.eos_id is not None and self.eos_id >= self.d_vocab:
            raise ValueError(f"eos_id must be below d_vocab ({self.d_vocab}), and it is {self.eos_id}")
        return self


class CLIP(Model):
    """A model of images and texts. A batch is a PairBatch; its texts may be more or fewer than its images, except for the loss.

    Logits are ``[image, text]``: cosines times ``exp(logit_scale)``. Towers run apart, text first; a run that starts in one runs the
    other whole, from the batch, and one that stops in the text never comes to the images. A text is causal and read at its end token;
    an image is read at its class token, position 0 (``grid`` says which pixels the others are). No dropout, as in the paper.
    """

    family = "clip"
    reads: ClassVar[str] = "pairs"
    config_type: ClassVar[type[CLIPConfig]] = CLIPConfig
    abilities: frozenset[str] = frozenset({"logits", "edit", "grad", "weights"})
    resumes: ClassVar[frozenset[str]] = frozenset({"start", "stop", "residual"})

    def __init__(self, config: CLIPConfig, tokenizer: Tokenizer | None = None, *, seed: int = 0) -> None:
        super().__init__(config, tokenizer)
        c = config
        self.grid = Grid(c.height, c.width, c.patch)
        self.grids = {IMAGE.removesuffix("."): self.grid}
        words = Embed(c.d_vocab, c.d_model_text, n_positions=c.n_ctx)
        self.text = self._tower(TEXT, words, c.n_layers_text, c.d_model_text, c.n_heads_text, c.d_mlp_text)
        patches = Patches(self.grid, c.channels, c.d_model_image, bias=False)
        self.image = self._tower(IMAGE, patches, c.n_layers_image, c.d_model_image, c.n_heads_image, c.d_mlp_image)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        table: dict[str, Axes] = {**self.text.sites(), **self.image.sites(), "unembed.hook_logits": ("batch", "pair")}
        self._finish(table, additive=True, seed=seed, writes=2 * max(c.n_layers_text, c.n_layers_image), std=c.init_std)
        nn.init.constant_(self.logit_scale, c.logit_scale)

    def _tower(self, prefix: str, front: Embed | Patches, n_layers: int, d_model: int, n_heads: int, d_mlp: int) -> Tower:
        c = self.config

        def norm() -> Norm:
            return Norm("layer", d_model, eps=c.norm_eps, bias=True)

        def block() -> Block:
            attn = Attention(d_model, n_heads, n_heads, d_model // n_heads, bias=True)
            return Block(attn, MLP(d_model, d_mlp, act=c.act, bias=True), norm, placement="pre")

        return Tower(prefix, front, [block() for _ in range(n_layers)], norm, d_joint=c.d_joint, ln_pre=prefix == IMAGE)

    def _pass(self, batch: Any, ask: Ask) -> tuple[Tensor | None, KVCache | None]:
        """Logits are ``[image, text]``."""
        if not (ask.logits is None or (isinstance(ask.logits, str) and ask.logits == "all")):
            found = ask.logits if isinstance(ask.logits, str) else "positions"
            raise BadValue("logits", found, f"'all' or None for a {self.family} model, which has one logit an image and text")
        pixels, tokens, mask, at = self._read(batch)
        if (start := ask.starts) is not None and (residual := ask.resume.residual) is not None:
            wanted = tokens.shape[1] if start[0] is self.text.stack else self.grid.positions
            if residual.ndim == 3 and residual.shape[1] != wanted:
                raise BadValue("the positions of resume.residual", residual.shape[1], f"{wanted}, as the batch")
        texts = self.text((tokens, torch.arange(tokens.shape[1], device=tokens.device).unsqueeze(0)), at, mask, ask)
        if texts is None:
            return None, None
        images = self.image((pixels,), at.new_zeros(len(pixels)), AttentionMask(), ask)
        if images is None:
            return None, None
        out = hear(under(ask.listener, "unembed."), "hook_logits", self.logit_scale.exp() * images @ texts.T)
        return (None if ask.logits is None else out), None

    def _read(self, batch: Any) -> tuple[Tensor, Tensor, AttentionMask, Int[Tensor, " batch"]]:
        """The batch's pixels and tokens, checked, which token may see which, and where each text is read."""
        like = self.logit_scale
        if not isinstance(batch, PairBatch):
            raise BadValue("the batch", type(batch).__name__, "a PairBatch: pixels, tokens and, where texts are padded, a mask")
        pixels, tokens, valid = check_pixels(batch.pixels, self.config.channels, self.grid, like), batch.tokens.to(like.device), batch.mask
        check_tokens(tokens, self.config.d_vocab)
        if tokens.shape[1] > self.config.n_ctx:
            most = f"at most {self.config.n_ctx}, the model's context"
            raise BadValue("the number of tokens", tokens.shape[1], most, do="Nothing is cut short.")
        if valid is not None and (valid.dtype != torch.bool or valid.shape != tokens.shape):
            raise BadValue("the batch's mask", f"{tuple(valid.shape)} {valid.dtype}", f"bool {tuple(tokens.shape)}, as the tokens")
        valid = valid.to(like.device) if valid is not None and not bool(valid.all()) else None
        return pixels, tokens, attention_mask(tokens.shape[1], 0, like.device, valid=valid), self._ends(tokens, valid)

    def _ends(self, tokens: Int[Tensor, "batch pos"], valid: Tensor | None) -> Int[Tensor, " batch"]:
        """Where each text is read: at its first end token (or its first largest id), which must be real."""
        end = self.config.eos_id
        at = tokens.argmax(1) if end is None else (tokens == end).int().argmax(1)
        if end is not None and not bool((tokens == end).any(1).all()):
            raise BadValue("a text", "without its end token", f"one that holds it (id {end}): there the text is read")
        if valid is not None and not bool(valid.gather(1, at.unsqueeze(1)).all()):
            raise BadValue("the batch's mask", "false at a text's end", "true there, where the text is read")
        return at

    def loss(self, batch: PairBatch) -> tuple[Float[Tensor, ""], int]:
        """The summed symmetric contrastive loss (nats) and the number of pairs. It depends on which pairs share a batch, so
        ``accumulate`` changes it. Raises BadValue."""
        if len(batch.pixels) != len(batch.tokens):
            raise BadValue("the batch's texts", len(batch.tokens), f"{len(batch.pixels)}, one an image")
        logits, _ = self._pass(batch, Ask("all", Resume(), False, None))
        assert logits is not None, "a whole run has logits"
        return contrastive_nll(logits)

    def named_weights(self) -> dict[str, Tensor]:
        """Every weight by its public name; ``logit_scale`` is a number, the logarithm of the factor."""
        return self.text.weights() | self.image.weights() | {"logit_scale": self.logit_scale}

    @classmethod
    def tiny(cls, seed: int = 0) -> tuple[CLIP, PairBatch]:
        """The smallest model worth testing (towers of unequal width) and a batch of three pairs, one text padded."""
        towers = {"n_layers_text": 2, "d_model_text": 16, "n_heads_text": 4, "n_layers_image": 2, "d_model_image": 12, "n_heads_image": 3}
        size = {"d_vocab": 23, "n_ctx": 8, "eos_id": 22, "height": 4, "width": 6, "channels": 2, "patch": 2, "d_joint": 10}
        draw = generator_of("tiny", seed)
        tokens = torch.cat([torch.randint(0, 22, (3, 5), generator=draw), torch.full((3, 1), 22)], 1)
        tokens[1, 3:] = 22
        mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2, [True] * 6])
        return cls(CLIPConfig.parse({**towers, **size}), seed=seed), PairBatch(torch.rand(3, 2, 4, 6, generator=draw), tokens, mask)
