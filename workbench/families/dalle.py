"""Text, then an image as codes, written one after another by one decoder (DALL-E, Ramesh et al. 2021, in small).

An image is cut into patches, each patch becomes one of ``n_codes`` (``blocks.quantize``), and the decoder reads and writes

    text ids | begin | code ids          a joint vocabulary (``blocks.joint``): text ids first, then codes, then the begin token

Training has two phases, as published. ``learn("coder")``: the loss is the coder's own and the rest is frozen. ``learn("decoder")``, the
state of every new or loaded model: the coder is frozen and the loss is that of the next token. Unlike the published model, positions
are numbered in one row, attention is dense, the coder is a VQ-VAE of single patches (not a convolutional one with a relaxed softmax), and
a begin token stands where padding tokens ended the text.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from workbench.blocks.attention import Attention
from workbench.blocks.cache import KVCache
from workbench.blocks.embed import Axes, Embed, Unembed
from workbench.blocks.frontends import Grid
from workbench.blocks.init import STD, generator_of
from workbench.blocks.inputs import Passage, chosen, passage
from workbench.blocks.joint import Joint, drawn
from workbench.blocks.losses import next_token_nll
from workbench.blocks.mlp import MLP
from workbench.blocks.model import Ask, Model, prefixed
from workbench.blocks.norm import SITES as NORM_SITES
from workbench.blocks.norm import Norm
from workbench.blocks.quantize import Coder
from workbench.blocks.stack import Block, Setting, Stack
from workbench.core.batch import PairBatch, TokenBatch
from workbench.core.errors import BadValue, UnknownName
from workbench.core.protocol import Resume, Tokenizer
from workbench.core.spec import Spec


class DalleConfig(Spec):
    """The shape of a model; ``d_mlp`` left out (or 0) is ``4 d_model``. Sizes are in pixels, ``n_text`` in tokens."""

    n_layers: PositiveInt = 4
    d_model: PositiveInt = 128
    n_heads: PositiveInt = 4
    d_mlp: PositiveInt = 0
    d_vocab_text: PositiveInt
    n_text: PositiveInt = Field(default=16, description="the longest text; image positions come after as many, however long a text is")
    height: PositiveInt = 32
    width: PositiveInt = 32
    channels: PositiveInt = 3
    patch: PositiveInt = Field(default=4, description="the side of a patch; divides height and width")
    n_codes: PositiveInt = 128
    d_code: PositiveInt = 16
    d_coder: PositiveInt = Field(default=128, description="hidden width of the coder's two MLPs")
    commitment: NonNegativeFloat = 0.25
    text_weight: NonNegativeFloat = Field(default=0.0, description="of the text's own next-token loss, where the image's weight is 1")
    norm_eps: PositiveFloat = 1e-5
    init_std: PositiveFloat = Field(default=STD, description="of the matrices at first; narrow models learn sooner near d_model ** -0.5")

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("d_model", 128), int):
            return values  # the fields' own checks say what is wrong
        return values | {"d_mlp": values.get("d_mlp") or 4 * values.get("d_model", 128)}

    @model_validator(mode="after")
    def _fits(self) -> DalleConfig:
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads must divide d_model ({self.d_model}), and it is {self.n_heads}")
        if self.height % self.patch or self.width % self.patch:
            raise ValueError(f"patch must divide height and width ({self.height} x {self.width}), and it is {self.patch}")
        return self

    @property
    def joint(self) -> Joint:
        """The vocabularies and lengths of text and image."""
        return Joint(self.d_vocab_text, self.n_text, self.n_codes, (self.height // self.patch) * (self.width // self.patch))

    @property
    def d_vocab(self) -> int:
        """The joint vocabulary: text ids, codes, begin."""
        return self.joint.begin + 1

    @property
    def n_ctx(self) -> int:
        """The most positions: a text, begin, and all codes but the last, which nothing follows."""
        return self.n_text + self.joint.n_image


class Dalle(Model):
    """A batch is a PairBatch (pixels are encoded; the last code is not read), or joint ids: a tensor ``[batch, pos]`` or a TokenBatch."""

    family = "dalle"
    config_type: ClassVar[type[DalleConfig]] = DalleConfig
    abilities: frozenset[str] = frozenset({"logits", "edit", "grad", "cache", "mask", "weights"})
    resumes: ClassVar[frozenset[str]] = frozenset({"start", "stop", "residual", "past", "positions", "mask"})
    reads: ClassVar[str] = "pairs"
    one_row: ClassVar[bool] = True
    parts: ClassVar[tuple[str, ...]] = ("coder", "decoder")

    def __init__(self, config: DalleConfig, tokenizer: Tokenizer | None = None, *, seed: int = 0) -> None:
        if tokenizer is not None and tokenizer.vocab_size != config.d_vocab_text:
            raise BadValue("d_vocab_text", config.d_vocab_text, f"the tokenizer's {tokenizer.vocab_size}")
        super().__init__(config)
        self.tokenizer, c, grid = tokenizer, config, Grid(config.height, config.width, config.patch, classed=False)
        self.grids = {"": grid}
        self.coder = Coder(grid, c.channels, n_codes=c.n_codes, d_code=c.d_code, d_hidden=c.d_coder, commitment=c.commitment)
        self.embed = Embed(c.d_vocab, c.d_model, n_positions=c.n_ctx)
        self.stack = Stack([self._block() for _ in range(c.n_layers)])
        self.ln_final = self._norm()
        self.unembed = Unembed(c.d_model, c.d_vocab, tied=False)
        sites: dict[str, Axes] = self.embed.sites() | self.stack.sites() | prefixed("ln_final.", NORM_SITES)
        self._finish(sites | prefixed("unembed.", self.unembed.sites()), additive=True, seed=seed, writes=2 * c.n_layers, std=c.init_std)
        self.learn("decoder")

    def _norm(self) -> Norm:
        return Norm("layer", self.config.d_model, eps=self.config.norm_eps, bias=True)

    def _block(self) -> Block:
        c = self.config
        attn = Attention(c.d_model, c.n_heads, c.n_heads, c.d_model // c.n_heads, bias=True)
        return Block(attn, MLP(c.d_model, c.d_mlp, act="gelu", bias=True), self._norm, placement="pre")

    def learn(self, part: str) -> None:
        """Choose what ``loss`` is of and what has gradients from now on, 'coder' or 'decoder'; the other is frozen. Raises UnknownName."""
        if part not in self.parts:
            raise UnknownName("part to learn", part, self.parts)
        self.learning = part
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith("coder.") == (part == "coder"))

    def sequence(self, batch: PairBatch) -> TokenBatch:
        """What the decoder reads of text and image, and what follows each."""
        return self.config.joint.whole(batch.tokens, batch.mask, self.coder.encode(batch.pixels))

    def _passage(self, batch: Any, resume: Resume) -> Passage:
        rows = self.sequence(batch) if isinstance(batch, PairBatch) else batch
        return passage(rows, resume, self.config, tokenizer=self.tokenizer, like=self.embed.token.weight)

    def _pass(self, batch: Any, ask: Ask) -> tuple[Tensor | None, KVCache | None]:
        """Logits are ``[batch, pos or chosen, d_vocab]``, over the joint vocabulary."""
        given = self._passage(batch, ask.resume)
        asked = chosen(ask.logits, given) if ask.stops is None else None
        x = given.residual if given.residual is not None else self.embed(given.tokens, given.positions, ask.listener)
        start, stop = ask.start(self.stack), ask.stop(self.stack)
        x, past = self.stack(x, Setting(given.mask), past=given.past, listener=ask.listener, start=start, stop=stop)
        if ask.stops is not None:
            return None, past
        x = self.unembed(self.ln_final(x, ask.under("ln_final.")), self.embed, ask.under("unembed."))
        return (asked.take(x) if asked is not None else None), past

    def loss(self, batch: PairBatch) -> tuple[Float[Tensor, ""], int]:
        """Of the decoder: the summed negative log-likelihood (nats) of the images' codes plus ``text_weight`` times that of the texts,
        and the number of codes. Where the coder learns, its own (see ``blocks.quantize``) and the number of patches."""
        if self.learning == "coder":
            return self.coder.loss(batch.pixels)
        rows = self.sequence(batch)
        given = self._passage(rows, Resume())
        x, _ = self.stack(self.embed(given.tokens, given.positions), Setting(given.mask))
        x, text = self.ln_final(x), rows.tokens.shape[1] - self.config.joint.n_image
        matrix = self.unembed.matrix(self.embed)
        total, count = next_token_nll(x[:, text:], matrix, rows.targets[:, text:])
        if self.config.text_weight:
            total = total + self.config.text_weight * next_token_nll(x[:, :text], matrix, rows.targets[:, :text])[0]
        return total, count

    def draw(
        self, tokens: Tensor, *, mask: Tensor | None = None, seed: int = 0, temperature: float = 1.0, cache: bool = True
    ) -> Int[Tensor, "batch code"]:
        """The codes of an image for each text ``[batch, pos]`` (see ``blocks.joint.drawn``); ``cache`` changes the time alone."""
        tokens = tokens.to(self.embed.token.weight.device)
        return drawn(self.run, self.config.joint, (tokens, mask), seed=seed, temperature=temperature, cache=cache)

    @torch.no_grad()
    def paint(
        self, tokens: Tensor, *, mask: Tensor | None = None, seed: int = 0, temperature: float = 1.0
    ) -> Float[Tensor, "batch channel height width"]:
        """An image for each text: ``draw``, decoded."""
        return self.coder.decode(self.draw(tokens, mask=mask, seed=seed, temperature=temperature))

    def named_weights(self) -> dict[str, Tensor]:
        """Every weight by its public name; the coder's begin with ``coder.``."""
        own = self.stack.weights() | self.embed.weights() | self.unembed.weights(self.embed)
        return own | prefixed("ln_final.", self.ln_final.weights()) | prefixed("coder.", self.coder.weights())

    @classmethod
    def tiny(cls, seed: int = 0) -> tuple[Dalle, PairBatch]:
        """The smallest model worth testing (six patches, two layers) and a batch of three rows, one text shorter than the others."""
        config = DalleConfig(
            n_layers=2, d_model=16, n_heads=4, d_vocab_text=11, n_text=5, height=4, width=6, channels=2, patch=2, n_codes=7,
            d_code=3, d_coder=8,
        )  # fmt: skip
        draw = generator_of("tiny", seed)
        tokens = torch.randint(0, config.d_vocab_text, (3, 4), generator=draw)
        mask = torch.tensor([[True] * 4, [True, True, False, False], [True] * 4])
        return cls(config, seed=seed), PairBatch(torch.rand(3, 2, 4, 6, generator=draw), tokens, mask)
