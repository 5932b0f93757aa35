"""Texts as vectors, against one text at a time without padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.probes.standin import Letters
from workbench.core.errors import BadValue, Incompatible
from workbench.core.tolerance import agree
from workbench.engine.embed import embedded, mean_pooled
from workbench.families.bert import BERT, BERTConfig
from workbench.families.gpt import GPT, GPTConfig
from workbench.families.vit import ViT

TEXTS = ["abc", "a", "bad cab dad", "ba"]


def model_of(dtype: torch.dtype, kind: Any = BERT) -> Any:
    letters = Letters()
    sizes: dict[str, Any] = {"n_layers": 2, "d_model": 16, "n_heads": 4, "d_vocab": letters.vocab_size, "n_ctx": 16}
    made = BERT(BERTConfig(**sizes, head="none"), letters) if kind is BERT else GPT(GPTConfig(**sizes), letters)
    return made.to(dtype).eval()


@pytest.mark.parametrize("kind", [BERT, GPT])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_texts_together_are_each_alone(dtype: torch.dtype, kind: Any) -> None:
    model = model_of(dtype, kind)
    last = "blocks.1.hook_resid_post"
    alone = torch.cat([model.run(torch.tensor([model.tokenizer.encode(text)]), capture=last)[last].mean(1) for text in TEXTS])
    assert agree(embedded(model, TEXTS, unit=False), alone, "activation")
    assert agree(embedded(model, TEXTS, unit=False, batch=2), alone, "activation")
    assert agree(embedded(model, TEXTS), alone / alone.norm(dim=1, keepdim=True), "activation")
    assert not agree(embedded(model, TEXTS, unit=False), alone.roll(1, 0), "activation")


def test_padding_is_not_read_whatever_it_is() -> None:
    stream = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    real = torch.tensor([[True, True, False], [False, True, False]])  # padding may lie anywhere
    expected = torch.stack([(stream[0, 0] + stream[0, 1]) / 2, stream[1, 1]])
    stream[~real] = float("nan")
    assert torch.equal(mean_pooled(stream, real), expected)
    with pytest.raises(BadValue, match="at least 1"):
        mean_pooled(stream, torch.tensor([[True] * 3, [False] * 3]))


def test_what_has_no_vector_is_said() -> None:
    with pytest.raises(BadValue, match="each of at least one token"):
        embedded(model_of(torch.float32), ["a", ""])
    with pytest.raises(BadValue, match="at least one"):
        embedded(model_of(torch.float32), [])
    with pytest.raises(Incompatible, match="tokenizer and one stack"):
        embedded(ViT.tiny()[0], ["a"])
