"""Small models with weights large enough that every part of them matters, and the configs they are tried on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from workbench.core.protocol import Trace
from workbench.families.gpt import GPT, GPTConfig

SMALL: dict[str, Any] = {"n_layers": 2, "d_model": 16, "n_heads": 4, "d_vocab": 17, "n_ctx": 12}

# Every option occurs, and every two options of one pair of fields occur together at least once where it matters.
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"n_kv_heads": 2, "norm": "rms", "act": "swiglu", "bias": False},
    "one_kv": {"n_kv_heads": 1, "positions": "learned", "act": "gelu_tanh", "tied": False},
    "post": {"norm_placement": "post", "positions": "learned", "act": "gelu", "tied": False},
    "post_rms": {"norm_placement": "post", "norm": "rms", "act": "swiglu", "n_kv_heads": 2},
    "no_norm": {"norm_placement": "none", "act": "relu", "bias": False},
    "attention_only": {"act": "none", "norm": "layer"},
    "attention_only_bare": {"act": "none", "norm_placement": "none", "positions": "learned", "bias": False, "tied": False},
    "wide_heads": {"n_heads": 2, "d_head": 10, "d_mlp": 7, "rope_base": 100.0, "norm_eps": 1e-3},
}


ESSENTIAL = ("grouped", "one_kv", "post", "attention_only_bare")
TIERED = [*ESSENTIAL, *(pytest.param(name, marks=pytest.mark.full) for name in sorted(CONFIGS) if name not in ESSENTIAL)]
"""Every config, those that share all their options with an essential one in the full tier."""


def shape(changes: dict[str, Any] | None = None) -> GPTConfig:
    """The config of ``SMALL`` with changes."""
    return GPTConfig.parse({**SMALL, **(changes or {})})


def build(name_or_fields: str | dict[str, Any] = "plain", *, dtype: torch.dtype = torch.float32, seed: int = 0) -> GPT:
    """A model of a named config (or fields) with weights of spread about 0.3: attention is far from uniform, norms from 1."""
    fields = CONFIGS[name_or_fields] if isinstance(name_or_fields, str) else name_or_fields
    model = GPT(shape(fields), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model.to(dtype).eval()


def tokens(model: GPT, rows: int = 2, length: int = 7, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, model.config.d_vocab, (rows, length), generator=torch.Generator().manual_seed(seed))


def logits(trace: Trace) -> torch.Tensor:
    """The logits of a run that was asked for them."""
    assert trace.logits is not None
    return trace.logits


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Any config of the family, small."""
    n_kv_heads = draw(st.sampled_from([1, 2, 3]))
    return {
        "n_layers": draw(st.integers(1, 2)), "d_model": draw(st.sampled_from([6, 12])), "n_heads": n_kv_heads * draw(st.integers(1, 2)),
        "n_kv_heads": n_kv_heads, "d_head": draw(st.sampled_from([2, 4])), "d_vocab": draw(st.integers(1, 9)), "n_ctx": 8,
        "norm": draw(st.sampled_from(["layer", "rms"])), "norm_placement": draw(st.sampled_from(["pre", "post", "none"])),
        "act": draw(st.sampled_from(["gelu", "gelu_tanh", "swiglu", "relu", "none"])),
        "positions": draw(st.sampled_from(["rope", "learned"])), "tied": draw(st.booleans()), "bias": draw(st.booleans()),
    }  # fmt: skip
