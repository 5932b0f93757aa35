"""BART of random weights: the same numbers in ours, in both stacks, and the same weights back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.adapters.parity import compared, patterns, same_state, shaken, streams, taken_in
from workbench.adapters import hf
from workbench.core.batch import SequenceBatch
from workbench.core.errors import CorruptFile, Incompatible
from workbench.core.protocol import Resume
from workbench.core.tolerance import agree
from workbench.families.seq2seq import Seq2Seq, Seq2SeqConfig

transformers = pytest.importorskip("transformers")


def bart(dtype: torch.dtype = torch.float32, cls: str = "BartForConditionalGeneration", **changes: Any) -> Any:
    torch.manual_seed(0)
    fields = {
        "encoder_layers": 2, "decoder_layers": 3, "d_model": 24, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "vocab_size": 31, "max_position_embeddings": 16,
    }  # fmt: skip
    config = transformers.BartConfig(**{**fields, **changes}, attn_implementation="eager")
    theirs = shaken(getattr(transformers, cls)(config).to(dtype))
    if hasattr(theirs, "final_logits_bias"):  # a buffer: shaken moves parameters alone
        theirs.final_logits_bias.copy_(torch.linspace(-1, 1, 31, dtype=dtype))
    return theirs


def batch() -> SequenceBatch:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 31, (3, 20), generator=generator)
    return SequenceBatch(ids[:, :11], ids[:, 11:], mask=torch.arange(11) < torch.tensor([[11], [7], [1]]))


def check(theirs: Any, ours: Any, dtype: torch.dtype) -> None:
    given = batch()
    with torch.no_grad():
        out = theirs(
            input_ids=given.source, attention_mask=given.mask.long() if given.mask is not None else None, decoder_input_ids=given.tokens,
            output_hidden_states=True, output_attentions=True,
        )  # fmt: skip
    expected = streams("encoder.", out.encoder_hidden_states, last_is_normed=False) | patterns("encoder.", out.encoder_attentions)
    expected |= streams("decoder.", out.decoder_hidden_states, last_is_normed=False) | patterns("decoder.", out.decoder_attentions)
    expected |= patterns("decoder.", out.cross_attentions, "cross_attn") | {"unembed.hook_in": out.decoder_hidden_states[-1]}
    expected |= {"logits": out.logits} if "logits" in out else {}
    assert len(expected) >= 3 + 4 + 2 + 3 + 3 + 1
    compared(ours.run(given, capture=[name for name in expected if name != "logits"]), expected, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("cls", "changes"),
    [
        ("BartForConditionalGeneration", {}),
        ("BartForConditionalGeneration", {"scale_embedding": True, "activation_function": "gelu_new", "forced_bos_token_id": 3}),
        ("BartModel", {"activation_function": "relu"}),
    ],
    ids=["generating", "scaled", "base"],
)
def test_bart(tmp_path: Path, dtype: torch.dtype, cls: str, changes: dict[str, Any]) -> None:
    theirs = bart(dtype, cls, **changes)
    ours = taken_in(theirs, tmp_path / "theirs")
    check(theirs, ours, dtype)
    same_state(theirs, ours, tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text())["architectures"] == ["BartForConditionalGeneration"]
    check(theirs, hf.load(tmp_path / "back"), dtype)


@pytest.mark.parametrize("biased", [True, False])
def test_what_is_exported_answers_as_ours_does(tmp_path: Path, biased: bool) -> None:
    """The published library chooses the class by the folder, and draws no weight of its own."""
    config = Seq2SeqConfig(
        d_vocab=31, n_layers_decoder=3, d_model=24, n_heads=4, n_ctx=16, norm_placement="post", embed_norm=True, positions="learned",
        reserved=2, act="gelu", logits_bias=biased,
    )  # fmt: skip
    ours = shaken(Seq2Seq(config, seed=0))
    hf.save(ours, tmp_path)
    theirs, loading = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True, attn_implementation="eager")
    assert not any(loading.values()), loading
    assert type(theirs).__name__ == "BartForConditionalGeneration"
    check(theirs, ours, torch.float32)
    assert hf.load(tmp_path).config == ours.config


def test_continuing_a_past_is_the_same_there(tmp_path: Path) -> None:
    theirs = bart(torch.float64)
    ours, given = taken_in(theirs, tmp_path), batch()
    past = ours.run(SequenceBatch(given.source, given.tokens[:, :4], mask=given.mask), cache=True).past
    found = ours.run(SequenceBatch(given.source, given.tokens[:, 4:]), resume=Resume(past=past))
    with torch.no_grad():
        mask = given.mask.long() if given.mask is not None else None
        first = theirs(input_ids=given.source, attention_mask=mask, decoder_input_ids=given.tokens[:, :4], use_cache=True)
        expected = theirs(
            encoder_outputs=(first.encoder_last_hidden_state,), attention_mask=mask, decoder_input_ids=given.tokens[:, 4:],
            past_key_values=first.past_key_values,
        )  # fmt: skip
    assert found.logits is not None
    assert agree(found.logits, expected.logits, "logits")


def test_a_head_trained_elsewhere_and_a_base_model_with_its_bias(tmp_path: Path) -> None:
    theirs = bart()
    theirs.save_pretrained(tmp_path)
    check(theirs, hf.load(edited(tmp_path, architectures=["BartModel"])), torch.float32)


def edited(folder: Path, **changes: Any) -> Path:
    """The folder with its config changed."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False is not handled"),
        ({"activation_function": "tanh"}, "activation_function='tanh' is not handled"),
        ({"decoder_ffn_dim": 41}, r"decoder_ffn_dim=41 is not handled \(only 40\)"),
        ({"decoder_attention_heads": 2}, "decoder_attention_heads=2 is not handled"),
        ({"normalize_before": True}, "normalize_before=True is not handled"),
        ({"static_position_embeddings": True}, "static_position_embeddings=True is not handled"),
        ({"is_decoder": True}, "is_decoder=True is not handled"),
        ({"a_new_switch": 3}, "a_new_switch=3 is not handled"),
        ({"architectures": ["BartForSequenceClassification"]}, "BartForSequenceClassification"),
    ],
)
def test_a_field_that_is_not_handled_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    bart().save_pretrained(tmp_path)
    with pytest.raises(Incompatible, match=words):
        hf.load(edited(tmp_path, **changes))


def test_the_fields_of_older_configs_are_read(tmp_path: Path) -> None:
    theirs = bart()
    theirs.save_pretrained(tmp_path)
    older = {
        "normalize_before": False, "add_final_layer_norm": False, "normalize_embedding": True, "add_bias_logits": False,
        "static_position_embeddings": False, "extra_pos_embeddings": 2, "num_hidden_layers": 2, "_num_labels": 3, "classif_dropout": 0.1,
        "force_bos_token_to_be_generated": False, "gradient_checkpointing": False,
    }  # fmt: skip
    check(theirs, hf.load(edited(tmp_path, **older)), torch.float32)


def test_weights_that_are_not_the_configs_are_refused(tmp_path: Path) -> None:
    bart().save_pretrained(tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    safetensors.torch.save_file(tensors | {"lm_head.weight": torch.zeros(31, 24)}, tmp_path / "model.safetensors")
    with pytest.raises(CorruptFile, match=r"'lm_head\.weight' equal to 'shared\.weight'"):
        hf.load(tmp_path)
    safetensors.torch.save_file({k: v for k, v in tensors.items() if "encoder_attn.k" not in k}, tmp_path / "model.safetensors")
    with pytest.raises(CorruptFile, match=r"'decoder\.layers\.0\.encoder_attn\.k_proj\.bias' is missing"):
        hf.load(tmp_path)


def test_a_model_that_is_no_bart_says_why(tmp_path: Path) -> None:
    model, _ = Seq2Seq.tiny()
    with pytest.raises(Incompatible, match=r"its norm_placement is 'pre', not 'post'.*its positions is 'rope'"):
        hf.save(model, tmp_path / "out")
    gated = Seq2SeqConfig(d_vocab=9, norm_placement="post", embed_norm=True, positions="learned", reserved=2, act="swiglu")
    with pytest.raises(Incompatible, match="its act is 'swiglu'"):
        hf.save(Seq2Seq(gated), tmp_path / "out")
    assert not (tmp_path / "out").exists()
