"""GPT-2 and Llama of random weights: the same numbers in ours, and the same weights back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.adapters.parity import compared, patterns, same_state, shaken, streams, taken_in
from workbench.adapters import hf
from workbench.core.errors import CorruptFile, Incompatible, MissingFile, UnknownName

transformers = pytest.importorskip("transformers")

ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 500.0},
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.5},
    "llama3": {
        "rope_type": "llama3", "rope_theta": 1e3, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 1e3, "factor": 4.0, "original_max_position_embeddings": 16},
}  # fmt: skip


def gpt2(dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    torch.manual_seed(0)
    fields = {"n_layer": 2, "n_embd": 24, "n_head": 4, "vocab_size": 31, "n_positions": 16, "bos_token_id": None, "eos_token_id": None}
    config = transformers.GPT2Config(**{**fields, **changes}, attn_implementation="eager")
    return shaken(transformers.GPT2LMHeadModel(config).to(dtype))


def llama(dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    torch.manual_seed(0)
    fields = {
        "num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 31,
        "intermediate_size": 40, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    config = transformers.LlamaConfig(**{**fields, **changes}, attn_implementation="eager")
    return shaken(transformers.LlamaForCausalLM(config).to(dtype))


def check(theirs: Any, ours: Any, dtype: torch.dtype) -> None:
    ids = torch.randint(0, 31, (3, 14), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        out = theirs(ids, output_hidden_states=True, output_attentions=True)
    expected = streams("", out.hidden_states, last_is_normed=True) | patterns("", out.attentions) | {"logits": out.logits}
    expected["unembed.hook_in"] = out.hidden_states[-1]
    compared(ours.run(ids, capture=[name for name in expected if name != "logits"]), expected, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "changes", [{}, {"tie_word_embeddings": False, "n_inner": 50, "activation_function": "gelu"}], ids=["tied", "untied"]
)
def test_gpt2(tmp_path: Path, dtype: torch.dtype, changes: dict[str, Any]) -> None:
    theirs = gpt2(dtype, **changes)
    ours = taken_in(theirs, tmp_path / "theirs")
    check(theirs, ours, dtype)
    same_state(theirs, ours, tmp_path / "back", "gpt2")


def without_casts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published Llama rounds its norms and its softmax to float32 whatever its dtype; for a comparison in float64 it must not.

    Its rotary angles are float32 too, and stay so: ours are made the same way for an imported model.
    """
    module = transformers.models.llama.modeling_llama
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim=dim))

    def norm(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * (x.square().mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()

    monkeypatch.setattr(module.LlamaRMSNorm, "forward", norm)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rope", ROPES)
def test_llama(tmp_path: Path, dtype: torch.dtype, rope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if dtype == torch.float64:
        without_casts(monkeypatch)
    bias = rope == "yarn"
    fields = {"tie_word_embeddings": rope == "linear", "attention_bias": bias, "mlp_bias": bias}
    theirs = llama(dtype, rope_parameters=dict(ROPES[rope]), **fields)
    ours = taken_in(theirs, tmp_path / "theirs")
    check(theirs, ours, dtype)
    same_state(theirs, ours, tmp_path / "back")
    check(theirs, hf.load(tmp_path / "back"), dtype)


def test_the_base_model_alone_is_enough_where_the_head_is_tied(tmp_path: Path) -> None:
    theirs = gpt2()
    theirs.transformer.save_pretrained(tmp_path)
    ids = torch.arange(10).unsqueeze(0)
    with torch.no_grad():
        expected = theirs(ids).logits
    compared(hf.load(tmp_path).run(ids), {"logits": expected}, torch.float32)


def edited(folder: Path, **changes: Any) -> Path:
    """The folder with its config changed."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True is not handled"),
        ({"activation_function": "tanh"}, "activation_function='tanh' is not handled"),
        ({"a_new_switch": 3}, "a_new_switch=3 is not handled"),
        ({"add_cross_attention": True}, "add_cross_attention=True"),
        ({"architectures": ["GPT2ForSequenceClassification"]}, "GPT2ForSequenceClassification"),
    ],
)
def test_a_field_that_is_not_handled_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    gpt2().save_pretrained(tmp_path)
    hf.load(tmp_path)
    with pytest.raises(Incompatible, match=words):
        hf.load(edited(tmp_path, **changes))


def test_an_unknown_rope_is_refused_by_name(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    with pytest.raises(Incompatible, match="rope_type='longrope' is not handled"):
        hf.load(edited(tmp_path, rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0}))


def test_weights_that_are_not_the_configs_are_refused(tmp_path: Path) -> None:
    gpt2().save_pretrained(tmp_path)
    with pytest.raises(CorruptFile, match=r"'h\.2\..*' is missing"):
        hf.load(edited(tmp_path, n_layer=3))
    with pytest.raises(CorruptFile, match=r"'h\.1\..*' is unexpected"):
        hf.load(edited(tmp_path, n_layer=1))
    with pytest.raises(CorruptFile, match="has shape"):
        hf.load(edited(tmp_path, n_layer=2, vocab_size=30))


def test_a_tie_that_does_not_hold_is_refused(tmp_path: Path) -> None:
    gpt2(tie_word_embeddings=False).save_pretrained(tmp_path)
    with pytest.raises(CorruptFile, match=r"'lm_head\.weight' equal to 'wte\.weight'"):
        hf.load(edited(tmp_path, tie_word_embeddings=True))


def test_a_pickle_is_refused_with_the_reason(tmp_path: Path) -> None:
    gpt2().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(MissingFile, match="pickle, which can run code"):
        hf.load(tmp_path)
    with pytest.raises(MissingFile, match="config of a published model"):
        hf.load(tmp_path / "nowhere")


def test_an_architecture_that_is_not_there(tmp_path: Path) -> None:
    gpt2().save_pretrained(tmp_path)
    with pytest.raises(UnknownName, match="architecture 'gpt_neox'"):
        hf.load(edited(tmp_path, model_type="gpt_neox"))


def test_a_model_that_is_no_published_architecture_says_why(tmp_path: Path) -> None:
    ours = taken_in(gpt2(), tmp_path / "in")
    with pytest.raises(Incompatible, match="its positions is 'learned'"):
        hf.save(ours, tmp_path / "out", "llama")
    assert not (tmp_path / "out").exists()
