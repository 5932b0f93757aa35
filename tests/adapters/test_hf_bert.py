"""BERT of random weights, with each of its heads: the same numbers in ours, and the same weights back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.adapters.parity import compared, patterns, same_state, shaken, streams, taken_in
from workbench.adapters import hf
from workbench.core.batch import IGNORE, EncoderBatch
from workbench.core.errors import BadValue, CorruptFile, Incompatible
from workbench.core.tolerance import agree

transformers = pytest.importorskip("transformers")

HEADS = {
    "masked": "BertForMaskedLM", "sequence": "BertForSequenceClassification", "token": "BertForTokenClassification",
    "span": "BertForQuestionAnswering", "regression": "BertForSequenceClassification",
}  # fmt: skip
NAMES = {0: "no", 1: "yes", 2: "perhaps"}


def published(cls: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    torch.manual_seed(0)
    fields = {
        "num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 40, "vocab_size": 31,
        "max_position_embeddings": 16, "type_vocab_size": 3, "pad_token_id": None,
    }  # fmt: skip
    config = transformers.BertConfig(**{**fields, **changes}, attn_implementation="eager")
    return shaken(getattr(transformers, cls)(config).to(dtype))


def named(head: str) -> dict[str, Any]:
    """What of a published config says what the outputs are."""
    return {} if head == "span" else {"id2label": NAMES} | ({"problem_type": "regression"} if head == "regression" else {})


def batch() -> EncoderBatch:
    """Three rows, two of them padded, with all sentence types."""
    generator = torch.Generator().manual_seed(1)
    ids, types = torch.randint(0, 31, (3, 14), generator=generator), torch.randint(0, 3, (3, 14), generator=generator)
    return EncoderBatch(ids, mask=torch.arange(14) < torch.tensor([[14], [9], [1]]), types=types)


def theirs_of(model: Any, given: EncoderBatch) -> Any:
    assert given.mask is not None
    with torch.no_grad():
        return model(
            given.tokens, attention_mask=given.mask.long(), token_type_ids=given.types, output_hidden_states=True, output_attentions=True
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("head", HEADS)
def test_heads(tmp_path: Path, head: str, dtype: torch.dtype) -> None:
    changes = {"hidden_act": "gelu_new", "layer_norm_eps": 1e-5} if head == "token" else {}
    theirs = published(HEADS[head], dtype, **named(head), **changes)
    ours = taken_in(theirs, tmp_path / "theirs")
    assert ours.config.head == head
    assert ours.config.classes == (() if head in ("masked", "span") else ("no", "yes", "perhaps"))
    given = batch()
    out = theirs_of(theirs, given)
    scores = torch.stack([out.start_logits, out.end_logits], -1) if head == "span" else out.logits
    expected = streams("", out.hidden_states, last_is_normed=False) | patterns("", out.attentions) | {"logits": scores}
    if head in ("token", "span"):
        expected["unembed.hook_in"] = out.hidden_states[-1]
    if head in ("sequence", "regression"):
        with torch.no_grad():
            expected["unembed.hook_in"] = theirs.bert.pooler(out.hidden_states[-1])
    compared(ours.run(given, capture=[name for name in expected if name != "logits"]), expected, dtype)
    compared(ours.run(given), {"logits": scores}, dtype)  # the fused path
    same_state(theirs, ours, tmp_path / "back")
    again = hf.load(tmp_path / "back")
    assert again.config == ours.config
    assert torch.equal(again.run(given).logits, ours.run(given).logits)


@pytest.mark.parametrize(
    "name",
    ["types.weight", "embed.position.weight", "ln_embed.bias", "stack.blocks.0.ln1.weight", "stack.blocks.1.attn.k.weight", "head.ln.bias"],
)
def test_the_comparison_sees_one_wrong_number(tmp_path: Path, name: str) -> None:
    theirs = published("BertForMaskedLM")
    ours, given = taken_in(theirs, tmp_path), batch()
    logits = theirs_of(theirs, given).logits
    compared(ours.run(given), {"logits": logits}, torch.float32)
    with torch.no_grad():
        ours.get_parameter(name).view(-1)[1] += 1e-2
    with pytest.raises(AssertionError, match="logits"):
        compared(ours.run(given), {"logits": logits}, torch.float32)


@pytest.mark.parametrize("head", HEADS)
def test_the_loss_is_the_published_one(tmp_path: Path, head: str) -> None:
    theirs = published(HEADS[head], torch.float64, **named(head))
    ours = taken_in(theirs, tmp_path)
    given, generator = batch(), torch.Generator().manual_seed(2)
    if head in ("span", "regression"):
        # The published loss of a span counts padding among the positions, ours does not: without padding they are one.
        whole = EncoderBatch(given.tokens, types=given.types)
        targets = torch.tensor([[2, 5], [0, 0], [3, 13]]) if head == "span" else torch.randn(3, 3, generator=generator, dtype=torch.float64)
        labels = {"start_positions": targets[:, 0], "end_positions": targets[:, 1]} if head == "span" else {"labels": targets}
        total, count = ours.loss(replace(whole, targets=targets))
        mean = theirs(given.tokens, token_type_ids=given.types, **labels).loss
        assert count == (3 if head == "span" else 9)
        assert agree(total.detach(), mean.detach() * count, "loglik")
        return
    if head == "sequence":
        targets = torch.randint(0, 3, (3,), generator=generator)
    else:
        targets = torch.randint(0, 31 if head == "masked" else 3, (3, 14), generator=generator)
        targets[torch.rand(3, 14, generator=generator) < 0.6] = IGNORE
    total, count = ours.loss(EncoderBatch(given.tokens, targets, given.mask, given.types))
    assert given.mask is not None
    mean = theirs(given.tokens, attention_mask=given.mask.long(), token_type_ids=given.types, labels=targets).loss
    assert count == int((targets != IGNORE).sum())
    assert agree(total.detach(), mean.detach() * count, "loglik")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_base_model_with_its_pooler_and_without(tmp_path: Path, dtype: torch.dtype) -> None:
    theirs, given = published("BertModel", dtype), batch()
    ours = taken_in(theirs, tmp_path / "with")
    out = theirs_of(theirs, given)
    assert ours.config.head == "pooler"
    trace = ours.run(given, capture=["unembed.hook_in", "pooler.hook_post"])
    assert trace.logits is None
    compared(trace, {"unembed.hook_in": out.last_hidden_state, "pooler.hook_post": out.pooler_output}, dtype)
    same_state(theirs, ours, tmp_path / "back")

    theirs.pooler = None
    bare = taken_in(theirs, tmp_path / "without")
    assert bare.config.head == "none"
    compared(bare.run(given, capture="unembed.hook_in"), {"unembed.hook_in": out.last_hidden_state}, dtype)
    hf.save(bare, tmp_path / "bare")
    again = transformers.BertModel.from_pretrained(tmp_path / "bare", add_pooling_layer=False, dtype=dtype)
    assert {n: v.tolist() for n, v in again.state_dict().items()} == {n: v.tolist() for n, v in theirs.state_dict().items()}


def tensors(folder: Path, change: Any) -> Path:
    """The folder with its tensors changed."""
    path = folder / "model.safetensors"
    safetensors.torch.save_file(change(safetensors.torch.load_file(path)), path, metadata={"format": "pt"})
    return folder


def edited(folder: Path, **changes: Any) -> Path:
    """The folder with its config changed."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_a_checkpoint_of_the_whole_pretraining_in_older_names(tmp_path: Path) -> None:
    """As the first published ones are: gamma and beta, a pooler, a second head, a buffer of positions, and an older config."""
    theirs, given = published("BertForPreTraining"), batch()
    theirs.save_pretrained(tmp_path)
    edited(tmp_path, architectures=["BertForMaskedLM"], position_embedding_type="absolute", gradient_checkpointing=False)

    def older(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        named = {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v for n, v in held.items()}
        return named | {"bert.embeddings.position_ids": torch.arange(16).unsqueeze(0)}

    assert any(".pooler." in name for name in safetensors.torch.load_file(tmp_path / "model.safetensors"))
    ours = hf.load(tensors(tmp_path, older))
    compared(ours.run(given), {"logits": theirs_of(theirs, given).prediction_logits}, torch.float32)


def test_number_of_classes(tmp_path: Path) -> None:
    published("BertForSequenceClassification").save_pretrained(tmp_path / "two")
    assert hf.load(tmp_path / "two").config.classes == ("LABEL_0", "LABEL_1")
    one = taken_in(published("BertForSequenceClassification", num_labels=1), tmp_path / "one")
    assert one.run(batch()).logits.shape == (3, 1)
    with pytest.raises(Incompatible, match="1 classes: cross-entropy needs logits of two or more"):
        one.loss(batch())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key' is not handled"),
        ({"hidden_act": "silu"}, "hidden_act='silu' is not handled"),
        ({"is_decoder": True}, "is_decoder=True is not handled"),
        ({"problem_type": "multi_label_classification"}, "problem_type='multi_label_classification' is not handled"),
        ({"id2label": {"0": "a", "2": "b"}}, r"the numbers \[0, 2\] is not handled"),
        ({"a_new_switch": 3}, "a_new_switch=3 is not handled"),
        ({"architectures": ["BertForMultipleChoice"]}, "BertForMultipleChoice"),
    ],
)
def test_a_field_that_is_not_handled_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    published("BertForSequenceClassification").save_pretrained(tmp_path)
    hf.load(tmp_path)
    with pytest.raises(Incompatible, match=words):
        hf.load(edited(tmp_path, **changes))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    published("BertForMaskedLM", tie_word_embeddings=False).save_pretrained(tmp_path / "untied")
    with pytest.raises(Incompatible, match="tie_word_embeddings=False is not handled"):
        hf.load(tmp_path / "untied")
    with pytest.raises(CorruptFile, match="equal to"):  # and where the config says they are tied, they must be equal
        hf.load(edited(tmp_path / "untied", tie_word_embeddings=True))
    published("BertForTokenClassification", id2label=NAMES).save_pretrained(tmp_path / "few")
    with pytest.raises(CorruptFile, match=r"'classifier\.(weight|bias)' has shape"):
        hf.load(edited(tmp_path / "few", id2label={"0": "no", "1": "yes"}))
    published("BertForSequenceClassification").save_pretrained(tmp_path / "bare")
    tensors(tmp_path / "bare", lambda held: {n: v for n, v in held.items() if "pooler" not in n})
    with pytest.raises(CorruptFile, match=r"'pooler\.dense\.bias' is missing"):
        hf.load(tmp_path / "bare")


def test_left_padding_is_the_published_number_where_the_head_reads_positions_and_refused_where_it_reads_the_first(tmp_path: Path) -> None:
    given = batch()
    assert given.mask is not None
    left = EncoderBatch(given.tokens, mask=given.mask.flip(1), types=given.types)
    theirs = published("BertForMaskedLM")
    compared(taken_in(theirs, tmp_path / "m").run(left), {"logits": theirs_of(theirs, left).logits}, torch.float32)
    with pytest.raises(BadValue, match="the pooler reads that token"):
        taken_in(published("BertForSequenceClassification"), tmp_path / "s").run(left)
