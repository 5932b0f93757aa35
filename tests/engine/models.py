"""Small models and tokenizers for the tests of scoring and decoding."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from workbench.data.text import BPETokenizer, CharTokenizer
from workbench.families.gpt import GPT, GPTConfig

LETTERS = "abcdefghijklmnopqrstuvw"
WORDS = ("unbelievable", "cat", "sat", "mat", "here")


def lettered(
    *, positions: Literal["rope", "learned"] = "rope", n_ctx: int = 16, n_layers: int = 2, d_model: int = 16, seed: int = 0
) -> GPT:
    """A random model over 23 letters, without control tokens, with weights large enough that its guesses differ."""
    config = GPTConfig(
        n_layers=n_layers, d_model=d_model, n_heads=4, n_kv_heads=2, d_vocab=23, n_ctx=n_ctx, positions=positions, tied=False
    )
    model = GPT(config, CharTokenizer(LETTERS), seed=seed)
    for parameter in model.parameters():
        parameter.data.mul_(4 if parameter.ndim == 2 else 1)
    return model.eval()


@cache
def words() -> BPETokenizer:
    """A byte-level tokenizer with BOS and a few merges."""
    return BPETokenizer.train([" ".join(WORDS * 4), "the cat sat on the mat here"] * 3, 320)


def characters() -> CharTokenizer:
    return CharTokenizer.of("the cat")


def wordy(*, seed: int = 0, n_ctx: int = 64) -> GPT:
    """A random model over the tokens of ``words``."""
    config = GPTConfig(n_layers=2, d_model=16, n_heads=4, d_vocab=words().vocab_size, n_ctx=n_ctx)
    return GPT(config, words(), seed=seed).eval()


class Wrapped:
    """A model seen through a wrapper; ``lacking`` abilities are neither offered nor used. ``runs`` lists (shape in, logits out)."""

    def __init__(self, model: Any, *lacking: str) -> None:
        self.model, self.lacking, self.runs = model, set(lacking), []
        self.family, self.config, self.tokenizer = model.family, model.config, model.tokenizer
        self.abilities = model.abilities - self.lacking

    def sites(self) -> Any:
        return self.model.sites()

    def weight(self, name: str) -> Any:
        return self.model.weight(name)

    def digest(self) -> str:
        return self.model.digest()

    def run(self, batch: Any, **options: Any) -> Any:
        assert not options.get("cache") or "cache" not in self.lacking
        assert options.get("resume") is None or "mask" not in self.lacking
        trace = self.model.run(batch, **options)
        self.runs.append((tuple(batch.shape), tuple(trace.logits.shape)))
        return trace
