"""Images out of noise, told by a text (after Imagen, Saharia et al. 2022).

A text encoder, and a denoiser that reads it by cross-attention and heeds the step of noise through adaptive norm; a base model makes
small images, and an upsampling stage (``upsamples`` above 1, the same module) larger ones from them. **The published denoiser is a
U-Net; this one is a transformer over patches, as that of Peebles and Xie 2022 is.** The published text encoder is a frozen T5; this
one learns with the rest. The step alone, not a pooled text, is the condition; the low image is noised by one fixed amount.

``logits`` are the predicted velocity (see ``blocks.diffusion``) ``[batch, channel, height, width]`` of the noisy images of one batch,
each at its own step: a run is one step of one guidance branch. The branches are the text and the null text, a row whose ``mask`` is
false throughout, for which one learned vector stands. Sites of the text stack (``text.``) are along tokens; sites of the denoiser
(``denoiser.``) along patches, row by row from the top left; its cross-attention's keys are tokens (of the null text, the first).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from workbench.blocks.attention import Attention
from workbench.blocks.cache import KVCache
from workbench.blocks.diffusion import Canvas, Noise, PixelHead, StepEmbed, mixed, sampled, starts, velocity_error
from workbench.blocks.embed import Axes, Embed
from workbench.blocks.frontends import Grid, check_pixels
from workbench.blocks.init import STD, generator_of
from workbench.blocks.inputs import given_residual
from workbench.blocks.mask import AttentionMask, attention_mask
from workbench.blocks.mlp import MLP
from workbench.blocks.model import Ask, Model, prefixed
from workbench.blocks.modulation import Modulation
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm
from workbench.blocks.prompt import Prompt
from workbench.blocks.stack import Block, Setting, Stack
from workbench.core.batch import DiffusionBatch, PairBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import Resume, Tokenizer
from workbench.core.spec import Spec

PREFIX = "denoiser."
PLAIN = Ask("all", Resume(), False, None)


class ImagenConfig(Spec):
    """The shape of a model; ``d_mlp`` left out (or 0) is ``4 d_model``. ``n_layers`` are the denoiser's. Sizes are in pixels."""

    n_layers: PositiveInt = 4
    n_layers_text: PositiveInt = 2
    d_model: PositiveInt = Field(default=128, multiple_of=2)
    n_heads: PositiveInt = 4
    d_mlp: PositiveInt = 0
    d_vocab: PositiveInt
    n_ctx: PositiveInt = Field(default=16, description="the longest text, in tokens")
    height: PositiveInt = 16
    width: PositiveInt = 16
    channels: PositiveInt = 3
    patch: PositiveInt = Field(default=2, description="the side of a patch; divides height and width")
    upsamples: PositiveInt = Field(default=1, description="how many times larger an image is than the low one given; 1: a base model")
    low_noise: NonNegativeFloat = Field(
        default=0.1, description="deviation of the noise on low images in training, where an image is -1 to 1"
    )
    n_steps: PositiveInt = Field(default=1000, description="steps of noise in training; sampling visits some of them")
    drop_text: float = Field(default=0.1, ge=0.0, lt=1.0, description="share of texts replaced by the null text in training")
    norm_eps: PositiveFloat = 1e-5
    init_std: PositiveFloat = Field(default=STD, description="of the matrices at first; narrow models learn sooner near d_model ** -0.5")

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("d_model", 128), int):
            return values  # the fields' own checks say what is wrong
        return values | {"d_mlp": values.get("d_mlp") or 4 * values.get("d_model", 128)}

    @model_validator(mode="after")
    def _fits(self) -> ImagenConfig:
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads must divide d_model ({self.d_model}), and it is {self.n_heads}")
        for word in ("patch", "upsamples"):
            if self.height % getattr(self, word) or self.width % getattr(self, word):
                raise ValueError(f"{word} must divide height and width ({self.height} x {self.width}), and it is {getattr(self, word)}")
        return self


class Imagen(Model):
    """A batch is a DiffusionBatch, with images and low images of values about -1 to 1; ``noised`` makes one of pixels 0 to 1 and text."""

    family = "imagen"
    config_type: ClassVar[type[ImagenConfig]] = ImagenConfig
    abilities: frozenset[str] = frozenset({"logits", "edit", "grad", "weights"})
    reads: ClassVar[str] = "noise"

    def __init__(self, config: ImagenConfig, tokenizer: Tokenizer | None = None, *, seed: int = 0) -> None:
        super().__init__(config, tokenizer)
        c, grid = config, Grid(config.height, config.width, config.patch, classed=False)
        self.noise, self.grids = Noise(c.n_steps), {PREFIX.removesuffix("."): grid}
        embed, blocks = Embed(c.d_vocab, c.d_model, n_positions=c.n_ctx), [self._block() for _ in range(c.n_layers_text)]
        self.text = Prompt(embed, blocks, self._norm(), n_ctx=c.n_ctx)
        self.canvas, self.condition = Canvas(grid, c.channels, c.d_model, upsamples=c.upsamples), StepEmbed(c.n_steps, c.d_model)
        self.denoiser = Stack([self._block(told=True) for _ in range(c.n_layers)], PREFIX)
        self.ln_final, self.head = self._norm(), PixelHead(grid, c.channels, c.d_model)
        sites: dict[str, Axes] = self.text.sites() | prefixed(PREFIX, self.condition.sites() | self.canvas.sites())
        sites |= self.denoiser.sites() | prefixed(f"{PREFIX}ln_final.", NORM_SITES) | prefixed("unembed.", self.head.sites())
        self._finish(sites, additive=True, seed=seed, writes=max(3 * c.n_layers, 2 * c.n_layers_text), std=c.init_std)

    def _norm(self) -> Norm:
        return Norm("layer", self.config.d_model, eps=self.config.norm_eps, bias=True)

    def _block(self, *, told: bool = False) -> Block:
        c = self.config
        attn, cross = (Attention(c.d_model, c.n_heads, c.n_heads, c.d_model // c.n_heads, bias=True) for _ in range(2))
        mlp = MLP(c.d_model, c.d_mlp, act="gelu", bias=True)
        if not told:
            return Block(attn, mlp, self._norm, placement="pre")
        turns = Modulation(c.d_model, c.d_model, ("attn", "cross_attn", "mlp"))
        return Block(attn, mlp, self._norm, placement="pre", cross_attn=cross, modulation=turns)

    def _pass(self, batch: Any, ask: Ask) -> tuple[Tensor | None, KVCache | None]:
        """Logits are the predicted velocity ``[batch, channel, height, width]``."""
        if not isinstance(batch, DiffusionBatch):
            raise BadValue("the batch", type(batch).__name__, "a DiffusionBatch", do="`noised` makes one of a PairBatch.")
        if not (ask.logits is None or (isinstance(ask.logits, str) and ask.logits == "all")):
            found = ask.logits if isinstance(ask.logits, str) else "positions"
            raise BadValue("logits", found, f"'all' or None for a {self.family} model, which predicts whole images")
        late = ask.start(self.denoiser) is not None  # what lies before the start runs unheard
        memory, real = self.text(batch.tokens, batch.mask, PLAIN if late else ask)
        if ask.stop(self.text.stack) is not None:
            return None, None
        front = None if late else ask.under(PREFIX)
        read, condition = self.canvas.read(batch.pixels, batch.low), self.condition(batch.step, front)
        if not len(read) == len(condition) == len(memory):
            raise BadValue("the rows of images, steps and texts", (len(read), len(condition), len(memory)), "equally many")
        seen = attention_mask(self.canvas.positions, 0, read.device, causal=False, valid=real)
        setting = Setting(AttentionMask(), memory=memory, seen=seen, condition=condition)
        given = given_residual(ask.resume if late else Resume(), read.new_empty(len(read), self.canvas.positions), self.config, read)
        x = given if given is not None else self.canvas(read, front)
        stop = ask.stop(self.denoiser)
        x, _ = self.denoiser(x, setting, listener=ask.under(PREFIX), start=ask.start(self.denoiser), stop=stop)
        if stop is not None:
            return None, None
        out = self.head(self.ln_final(x, ask.under(f"{PREFIX}ln_final.")), ask.under("unembed."))
        return (None if ask.logits is None else out), None

    def predict(self, batch: DiffusionBatch) -> Float[Tensor, "batch channel height width"]:
        """The predicted velocities, with gradients where torch makes them."""
        out, _ = self._pass(batch, PLAIN)
        assert out is not None, "logits were asked for"
        return out

    def noised(self, batch: PairBatch) -> DiffusionBatch:
        """Images (pixels 0 to 1) with noise, some without their text, and what is to be predicted (see ``blocks.diffusion.mixed``). In
        training mode torch's generator draws, otherwise always the same one does."""
        c, by = self.config, None if self.training else generator_of("noised")
        clean = 2 * check_pixels(batch.pixels, c.channels, self.canvas.grid, self.canvas.map.weight) - 1
        low = self.canvas.lowered(clean) if c.upsamples > 1 else None
        return mixed(clean, batch, self.noise, low=low, low_noise=c.low_noise, drop_text=c.drop_text, by=by)

    def loss(self, batch: DiffusionBatch | PairBatch) -> tuple[Float[Tensor, ""], int]:
        """The summed squared error of the velocities, and the number of values; a PairBatch is ``noised`` first."""
        batch = self.noised(batch) if isinstance(batch, PairBatch) else batch
        return velocity_error(self.predict(batch), batch.targets)

    @torch.no_grad()
    def paint(
        self,
        tokens: Tensor,
        *,
        mask: Tensor | None = None,
        low: Float[Tensor, "batch channel low_height low_width"] | None = None,
        seed: int = 0,
        steps: int = 20,
        guidance: float = 2.0,
        each: Callable[[DiffusionBatch], None] | None = None,
    ) -> Float[Tensor, "batch channel height width"]:
        """An image (pixels 0 to 1) for each text ``[batch, pos]``, by DDIM over ``steps`` steps with ``guidance`` (1: none); ``low`` are
        an upsampling stage's small images (0 to 1). A row depends on (seed, number of the row) and its text, not on its neighbours.
        ``each`` is given the text branch's batch at every step; its null branch has a ``mask`` that is false throughout."""
        x = starts(len(tokens), self.canvas.shape, seed, self.canvas.map.weight)
        start = DiffusionBatch(x, self.noise.last(len(x)), tokens, mask, None if low is None else 2 * low - 1)
        return (sampled(self.predict, start, self.noise, steps=steps, guidance=guidance, each=each) + 1) / 2

    def named_weights(self) -> dict[str, Tensor]:
        """Every weight by its public name."""
        own = self.canvas.weights() | prefixed("condition.", self.condition.weights()) | prefixed("ln_final.", self.ln_final.weights())
        return self.text.weights() | prefixed(PREFIX, own) | self.denoiser.weights() | self.head.weights()

    @classmethod
    def tiny(cls, seed: int = 0) -> tuple[Imagen, DiffusionBatch]:
        """The smallest upsampling stage worth testing (six patches, two layers a stack); the last of four texts is the null text."""
        sizes = {"height": 4, "width": 6, "channels": 2, "upsamples": 2, "n_steps": 10}
        config = ImagenConfig.parse({"n_layers": 2, "n_layers_text": 2, "d_model": 16, "d_vocab": 11, "n_ctx": 5, **sizes})
        draw = generator_of("tiny", seed)
        pixels, targets = (torch.randn(4, 2, 4, 6, generator=draw) for _ in range(2))
        tokens, mask = torch.randint(0, 11, (4, 4), generator=draw), torch.ones(4, 4, dtype=torch.bool)
        mask[1, 2:], mask[3] = False, False
        step, low = torch.tensor([0, 3, 6, 9]), torch.randn(4, 2, 2, 3, generator=draw)
        return cls(config, seed=seed), DiffusionBatch(pixels, step, tokens, mask, low, targets)
