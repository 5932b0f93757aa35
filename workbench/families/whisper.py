"""The listener that writes (Whisper, Radford et al. 2022): an encoder over log-mel frames, or over the patches of an image, and a decoder
of text that reads it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from workbench.blocks.attention import Attention
from workbench.blocks.cache import KVCache
from workbench.blocks.decoder import Decoder
from workbench.blocks.embed import Embed, Unembed
from workbench.blocks.encoder import SILENT
from workbench.blocks.frontends import Grid, Patches
from workbench.blocks.init import STD, generator_of
from workbench.blocks.mel import MelFrontEnd
from workbench.blocks.mlp import MLP
from workbench.blocks.model import Ask, Model
from workbench.blocks.naming import token_names
from workbench.blocks.norm import Norm
from workbench.blocks.senses import SensingEncoder
from workbench.blocks.stack import Block
from workbench.core.batch import IGNORE, SequenceBatch
from workbench.core.errors import BadValue
from workbench.core.picture import Picture
from workbench.core.protocol import Tokenizer
from workbench.core.spec import Spec


class WhisperConfig(Spec):
    """The shape of a model. ``n_ctx_source`` counts encoder positions (of two frames each, or a class token and the patches), ``n_ctx``
    tokens of the decoder. Fields left out (or 0) follow: ``n_layers_decoder = n_layers_encoder``, ``d_mlp = 4 d_model``; for pixels also
    ``n_ctx_source`` and ``positions``."""

    source: Literal["mel", "pixels"] = "mel"
    n_layers_encoder: PositiveInt = 4
    n_layers_decoder: PositiveInt = 0
    d_model: PositiveInt = Field(default=128, multiple_of=2)
    n_heads: PositiveInt = 4
    d_mlp: PositiveInt = 0
    n_mels: PositiveInt = Field(default=80, description="of mel frames")
    image_size: PositiveInt = Field(default=32, description="height and width of pixels")
    patch: PositiveInt = Field(default=4, description="height and width of a patch of pixels")
    channels: PositiveInt = Field(default=3, description="of pixels")
    n_ctx_source: PositiveInt = 100
    d_vocab: PositiveInt
    n_ctx: PositiveInt = 64
    positions: Literal["sinusoid", "learned"] = Field(default="sinusoid", description="the encoder's; the decoder's are learned")
    act: Literal["gelu", "gelu_tanh", "quick_gelu", "relu"] = "gelu"
    key_bias: bool = Field(default=False, description="whether keys have a bias, as the other linear maps do")
    tied: bool = True
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="of embeddings and sublayer outputs, in training only")
    norm_eps: PositiveFloat = 1e-5
    init_std: PositiveFloat = Field(default=STD, description="of the matrices at first; narrow models learn sooner near d_model ** -0.5")

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("d_model", 128), int):
            return values  # the fields' own checks say what is wrong
        follow: dict[str, Any] = {"n_layers_decoder": values.get("n_layers_encoder", 4), "d_mlp": 4 * values.get("d_model", 128)}
        size, patch = values.get("image_size", 32), values.get("patch", 4)
        if values.get("source") == "pixels" and isinstance(size, int) and isinstance(patch, int) and patch > 0:
            follow |= {"n_ctx_source": Grid(size, size, patch).positions, "positions": "learned"}
        return values | {name: values.get(name) or value for name, value in follow.items()}

    @model_validator(mode="after")
    def _fits(self) -> WhisperConfig:
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads must divide d_model ({self.d_model}), and it is {self.n_heads}")
        fixed = {"positions": "learned", "n_ctx_source": self.grid.positions} if self.source == "pixels" else {}
        if fixed and self.image_size % self.patch:
            raise ValueError(f"patch must divide image_size ({self.image_size}), and it is {self.patch}")
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name} must be {value!r} for pixels (a class token and the patches), and it is {getattr(self, name)!r}")
        if self.positions == "sinusoid" and self.d_model < 4:
            raise ValueError(f"d_model must be at least 4 for sinusoids, and it is {self.d_model}")
        return self

    @property
    def grid(self) -> Grid:
        """The patches of an image."""
        return Grid(self.image_size, self.image_size, self.patch)


class Whisper(Model):
    """A batch is a SequenceBatch of mel frames ``[batch, mel, frame]`` or pixels ``[batch, channel, height, width]``, with ``mask`` over
    encoder positions (half the frames, rounded up; fewer than the context are allowed). Where the run stops in the encoder, the
    source alone is enough. With a past the encoder is not run: the past holds what it said, and the source is not read."""

    family = "whisper"
    reads: ClassVar[str] = "sequences"
    config_type: ClassVar[type[WhisperConfig]] = WhisperConfig
    abilities: frozenset[str] = frozenset({"logits", "edit", "grad", "cache", "weights"})
    resumes: ClassVar[frozenset[str]] = frozenset({"start", "stop", "residual", "past", "only"})

    def __init__(self, config: WhisperConfig, tokenizer: Tokenizer | None = None, *, seed: int = 0) -> None:
        super().__init__(config, tokenizer)
        c = config
        front = (
            MelFrontEnd(c.n_mels, c.d_model, c.n_ctx_source, fixed=c.positions == "sinusoid")
            if c.source == "mel"
            else Patches(c.grid, c.channels, c.d_model, bias=True)
        )
        self.encoder = SensingEncoder(front, [self._block() for _ in range(c.n_layers_encoder)], self._norm(), d_vocab=c.d_vocab)
        self.decoder = Decoder(
            Embed(c.d_vocab, c.d_model, n_positions=c.n_ctx),
            [self._block(crossed=True) for _ in range(c.n_layers_decoder)],
            self._norm(),
            Unembed(c.d_model, c.d_vocab, tied=c.tied),
            n_ctx=c.n_ctx,
        )
        sites, writes = self.encoder.sites() | self.decoder.sites(), max(2 * c.n_layers_encoder, 3 * c.n_layers_decoder)
        self._finish(sites, additive=True, seed=seed, writes=writes, std=c.init_std)

    def _norm(self) -> Norm:
        return Norm("layer", self.config.d_model, eps=self.config.norm_eps, bias=True)

    def _attention(self) -> Attention:
        c = self.config
        return Attention(c.d_model, c.n_heads, c.n_heads, c.d_model // c.n_heads, bias=True, key_bias=c.key_bias)

    def _block(self, *, crossed: bool = False) -> Block:
        mlp = MLP(self.config.d_model, self.config.d_mlp, act=self.config.act, bias=True)
        return Block(self._attention(), mlp, self._norm, placement="pre", cross_attn=self._attention() if crossed else None)

    def _pass(self, batch: Any, ask: Ask) -> tuple[Tensor | None, KVCache | None]:
        """Logits are ``[batch, pos or chosen, d_vocab]``, of the tokens."""
        within = ask.stop(self.encoder.stack) is not None
        if not isinstance(batch, SequenceBatch) and not (within and (batch is None or isinstance(batch, Tensor))):
            raise BadValue("the batch", type(batch).__name__, "a SequenceBatch (or, where the run stops in the encoder, its source alone)")
        source, mask, tokens = (batch.source, batch.mask, batch.tokens) if isinstance(batch, SequenceBatch) else (batch, None, None)
        given, memory, device = None, None, self.decoder.embed.token.weight.device
        if not within or ask.resume.past is not None:
            known = mask.to(device) if mask is not None and ask.resume.past is not None else None
            given = self.decoder.passage(tokens.to(device) if tokens is not None else None, ask, known)
        if ask.resume.past is None:
            late = ask.start(self.decoder.stack) is not None  # the encoder's sites lie before the start: it runs unheard
            memory = self.encoder(source, mask, SILENT if late else ask)
        return (None, None) if given is None else self.decoder(given, memory, ask)

    def loss(self, batch: SequenceBatch) -> tuple[Float[Tensor, ""], int]:
        """The summed negative log-likelihood (nats) of the batch's targets and their number; with dropout in training mode."""
        dropout = self.config.dropout if self.training else 0.0
        return self.decoder.loss(batch, self.encoder(batch.source, batch.mask, dropout=dropout), dropout)

    def places(self, batch: SequenceBatch, stack: str = "") -> list[list[str]]:
        """Frames by the first of the two a position hears, or patches; of the decoder the pieces (without a tokenizer, the ids)."""
        if stack == "decoder":
            return token_names(batch.tokens, None, self.tokenizer)
        frames = range(0, batch.source.shape[-1], 2)
        names = self.config.grid.names() if self.config.source == "pixels" else [f"frame {i}" for i in frames]
        real = [[True] * len(names)] * len(batch.source) if batch.mask is None else batch.mask.tolist()
        return [[name if kept else "" for name, kept in zip(names, row, strict=True)] for row in real]

    def picture(self, batch: SequenceBatch, stack: str = "") -> Picture | None:
        """The spectrogram, bands upward, of which a position of the encoder hears two frames; or the image."""
        if stack == "decoder":
            return None
        if self.config.source == "pixels":
            return Picture(batch.source, self.config.grid.boxes())
        _, n_mels, frames = batch.source.shape
        boxes = torch.tensor([(0, n_mels, i, min(i + 2, frames)) for i in range(0, frames, 2)])
        return Picture(batch.source.flip(1).unsqueeze(1), boxes, axes="frames across, mel bands upward", square=False)

    def named_weights(self) -> dict[str, Tensor]:
        """Every weight by its public name."""
        return self.encoder.weights() | self.decoder.weights()

    @classmethod
    def tiny(cls, seed: int = 0) -> tuple[Whisper, SequenceBatch]:
        """The smallest model worth testing (two layers a stack) and a batch of two rows, one of them shorter."""
        config = WhisperConfig(n_layers_encoder=2, d_model=16, n_heads=4, n_mels=5, n_ctx_source=6, d_vocab=13, n_ctx=8)
        generator = generator_of("tiny", seed)
        ids = torch.randint(0, config.d_vocab, (2, 6), generator=generator)
        targets = ids[:, 1:].clone()
        targets[1, 3:] = IGNORE
        mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
        return cls(config, seed=seed), SequenceBatch(torch.randn(2, 5, 10, generator=generator), ids[:, :-1], targets, mask)
