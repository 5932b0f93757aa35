"""What organisms that read a world's written texts share: a small decoder, a tokenizer learned from the world's own words, rows packed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from workbench.core.protocol import Callback, Progress
from workbench.data.text import BPETokenizer, PackedRows
from workbench.families.gpt import GPT, GPTConfig
from workbench.training.checkpoint import load_model
from workbench.training.loop import FINAL, train


class World(Protocol):
    """A world of texts, as a spec says it."""

    @property
    def spec(self) -> Any:
        """What decides it."""
        ...

    def texts(self) -> list[str]:
        """The training texts."""
        ...

    def twin(self) -> World:
        """The same world without the plant."""
        ...

    def truth(self) -> dict[str, Any]:
        """What is planted, as plain JSON values."""
        ...


@dataclass(frozen=True)
class OfTexts:
    """A decoder of a world. Recipes have the fields ``world`` (the world's spec) and ``train``. ``words``: the texts that the tokenizer of
    every dose learns its ``vocabulary`` from; ``row``: tokens of a packed row, and the context; ``shape``: the config's other fields."""

    world: Callable[[Any], World]
    words: Callable[[Any], Sequence[str]]
    vocabulary: int
    row: int
    shape: Mapping[str, Any]

    def rows(self, made: Any, model: GPT) -> PackedRows:
        """What the model is trained on."""
        assert isinstance(model.tokenizer, BPETokenizer), "its model has its tokenizer"
        return PackedRows(self.world(made.world).texts(), model.tokenizer, self.row)

    def build(self, made: Any, out: Path, callbacks: Sequence[Callback], progress: Progress) -> GPT:
        """Train into ``out`` (or continue there) and return the model of ``out/final``."""
        if not (out / FINAL).is_dir():
            words = BPETokenizer.train(self.words(made), self.vocabulary)
            whole = {"n_layers": 2, "n_heads": 4, "n_ctx": self.row, "norm": "rms", "bias": False, "init_std": 0.1, **self.shape}
            model = GPT(GPTConfig.parse(whole | {"d_vocab": words.vocab_size}), words, seed=made.train.seed)
            train(model, self.rows(made, model), made.train, out=out, callbacks=callbacks, progress=progress)
        return load_model(out / FINAL)

    def twin(self, made: Any) -> Any:
        """The same recipe without the plant."""
        return made.model_copy(update={"world": self.world(made.world).twin().spec})

    def truth(self, made: Any) -> dict[str, Any]:
        """What is planted, as plain JSON values."""
        return self.world(made.world).truth()
