"""Whisper of random weights: the same numbers in ours, and the same weights back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.adapters.parity import compared, patterns, same_state, shaken, streams, taken_in
from tests.adapters.test_hf_gpt import edited
from workbench.adapters import hf
from workbench.core.batch import SequenceBatch
from workbench.core.errors import CorruptFile, Incompatible
from workbench.core.protocol import Resume
from workbench.core.tolerance import gap
from workbench.families.whisper import Whisper, WhisperConfig

transformers = pytest.importorskip("transformers")

FIELDS: dict[str, Any] = {
    "d_model": 24, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "num_mel_bins": 6, "max_source_positions": 7, "max_target_positions": 9,
    "vocab_size": 31, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
    "begin_suppress_tokens": None,
}  # fmt: skip


def published(dtype: torch.dtype = torch.float32, *, head: bool = True, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.WhisperConfig(**{**FIELDS, **changes}, attn_implementation="eager")
    cls = transformers.WhisperForConditionalGeneration if head else transformers.WhisperModel
    return shaken(cls(config).to(dtype))


def given(dtype: torch.dtype) -> SequenceBatch:
    generator = torch.Generator().manual_seed(1)
    mel = torch.randn(3, 6, 14, generator=generator, dtype=torch.float64).to(dtype)
    return SequenceBatch(mel, torch.randint(0, 31, (3, 8), generator=generator))


def seen(theirs: Any, batch: SequenceBatch) -> dict[str, torch.Tensor]:
    """All that the published model shows of a run, by our names."""
    with torch.no_grad():
        out = theirs(batch.source, decoder_input_ids=batch.tokens, output_hidden_states=True, output_attentions=True)
    expected = streams("encoder.", out.encoder_hidden_states, last_is_normed=True)
    expected |= streams("decoder.", out.decoder_hidden_states, last_is_normed=True)
    expected |= patterns("encoder.", out.encoder_attentions) | patterns("decoder.", out.decoder_attentions)
    expected |= patterns("decoder.", out.cross_attentions, "cross_attn")
    assert len(expected) == 2 + 3 + 2 + 3 + 3
    return expected | {"unembed.hook_in": out.decoder_hidden_states[-1]} | ({"logits": out.logits} if "logits" in out else {})


def check(theirs: Any, ours: Any, dtype: torch.dtype) -> None:
    batch = given(dtype)
    expected = seen(theirs, batch)
    compared(ours.run(batch, capture=[name for name in expected if name != "logits"]), expected, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "changes", [{}, {"tie_word_embeddings": False, "activation_function": "relu", "scale_embedding": True}], ids=["tied", "untied"]
)
def test_whisper(tmp_path: Path, dtype: torch.dtype, changes: dict[str, Any]) -> None:
    theirs = published(dtype, **changes)
    ours = taken_in(theirs, tmp_path / "theirs")
    check(theirs, ours, dtype)
    same_state(theirs, ours, tmp_path / "back")
    check(theirs, hf.load(tmp_path / "back"), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_base_model_alone_is_enough_where_the_head_is_tied(tmp_path: Path, dtype: torch.dtype) -> None:
    theirs = published(dtype, head=False)
    ours = taken_in(theirs, tmp_path)
    check(theirs, ours, dtype)
    table = theirs.decoder.embed_tokens.weight
    batch = given(dtype)
    compared(ours.run(batch), {"logits": seen(theirs, batch)["unembed.hook_in"] @ table.T}, dtype)


def test_a_continued_run_equals_the_published_cache(tmp_path: Path) -> None:
    theirs = published(torch.float64)
    ours = taken_in(theirs, tmp_path)
    batch = given(torch.float64)
    with torch.no_grad():
        first = theirs(batch.source, decoder_input_ids=batch.tokens[:, :5], use_cache=True)
        rest = theirs(
            encoder_outputs=(first.encoder_last_hidden_state,), decoder_input_ids=batch.tokens[:, 5:], past_key_values=first.past_key_values
        )
    past = ours.run(SequenceBatch(batch.source, batch.tokens[:, :5]), cache=True).past
    trace = ours.run(SequenceBatch(batch.source, batch.tokens[:, 5:]), resume=Resume(past=past))
    compared(trace, {"logits": rest.logits}, torch.float64)


def test_the_comparison_catches_a_wrong_weight(tmp_path: Path) -> None:
    """Query and key maps of one cross-attention exchanged: every shape is as it was."""
    theirs = published(torch.float64)
    ours = taken_in(theirs, tmp_path)
    met = ours.decoder.stack.blocks[1].cross_attn
    met.q.weight, met.k.weight = met.k.weight, met.q.weight
    batch = given(torch.float64)
    assert gap(ours.run(batch).logits, seen(theirs, batch)["logits"]) > 1e-4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoder_attention_heads": 2}, "encoder_attention_heads=4 with decoder_attention_heads=2 is not handled"),
        ({"decoder_ffn_dim": 12}, "encoder_ffn_dim=40 with decoder_ffn_dim=12"),
        ({"activation_function": "tanh"}, "activation_function='tanh' is not handled"),
        ({"num_hidden_layers": 5}, "num_hidden_layers=5 is not handled"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder=False is not handled"),
        ({"a_new_switch": 3}, "a_new_switch=3 is not handled"),
        ({"architectures": ["WhisperForAudioClassification"]}, "WhisperForAudioClassification"),
        ({"architectures": ["WhisperModel"], "tie_word_embeddings": False}, "without the head's weights"),
    ],
)
def test_a_field_that_is_not_handled_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    published().save_pretrained(tmp_path)
    hf.load(tmp_path)
    with pytest.raises(Incompatible, match=words):
        hf.load(edited(tmp_path, **changes))


def test_weights_that_are_not_the_configs_are_refused(tmp_path: Path) -> None:
    published().save_pretrained(tmp_path)
    with pytest.raises(CorruptFile, match=r"'decoder\.layers\.3\..*' is missing"):
        hf.load(edited(tmp_path, decoder_layers=4))
    with pytest.raises(CorruptFile, match="has shape"):
        hf.load(edited(tmp_path, decoder_layers=3, num_mel_bins=5))


def test_a_model_that_is_no_published_whisper_says_why(tmp_path: Path) -> None:
    ours = Whisper(WhisperConfig(d_model=8, n_heads=2, d_vocab=5, key_bias=True, norm_eps=1e-6))
    with pytest.raises(Incompatible, match="its key_bias is True, not False, its norm_eps is 1e-06"):
        hf.save(ours, tmp_path / "out")
    assert not (tmp_path / "out").exists()
