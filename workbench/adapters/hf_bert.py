"""BERT as `transformers` writes it, as our encoder (Devlin et al. 2019), with one of the heads its published classes have.

A sentence-transformers folder (Reimers and Gurevych 2019) holds the base model; what it computes after it, the mean over real tokens and
a norm, is no weight and is left to the caller.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from workbench.adapters.fields import Fields
from workbench.adapters.hf import Architecture
from workbench.adapters.weights import Line, both, line
from workbench.blocks.heads import NAMED, POOLED
from workbench.families.bert import BERTConfig

_ACTS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu", "quick_gelu": "quick_gelu"}
_HEADS = {
    "BertForMaskedLM": "masked", "BertForSequenceClassification": "sequence", "BertForTokenClassification": "token",
    "BertForQuestionAnswering": "span",
}  # fmt: skip
_BASE = "BertModel"
_NORM = re.compile(r"(?P<norm>.*LayerNorm)\.(?P<word>gamma|beta)")


def _read(fields: Fields, cls: str) -> dict[str, Any]:
    fields.need("is_decoder", False)
    fields.need("add_cross_attention", False)
    fields.need("position_embedding_type", "absolute", None)  # None: the published field is gone where only one value was left
    head = _HEADS.get(cls) or ("pooler" if any(name.endswith("pooler.dense.weight") for name in fields.names()) else "none")
    if head == "sequence" and fields["problem_type"] == "regression":
        head = "regression"
    tied = fields["tie_word_embeddings"]
    if head == "masked" and not tied:
        fields.refuse("tie_word_embeddings=False is not handled")
    return {
        "n_layers": fields["num_hidden_layers"], "d_model": fields["hidden_size"], "n_heads": fields["num_attention_heads"],
        "d_mlp": fields["intermediate_size"], "d_vocab": fields["vocab_size"], "n_ctx": fields["max_position_embeddings"],
        "n_types": fields["type_vocab_size"], "act": fields.choose("hidden_act", _ACTS), "head": head,
        "classes": _classes(fields, head) if head in NAMED else (), "norm_eps": fields["layer_norm_eps"],
    }  # fmt: skip


def _classes(fields: Fields, head: str) -> tuple[str, ...]:
    """The names of the classes in the order of their numbers; their logits are read as one choice among them, or as numbers."""
    count = fields.own("num_labels", len(fields["id2label"] or {}))
    given = fields.own("id2label", {number: f"LABEL_{number}" for number in range(count)})
    labels = {int(number): str(name) for number, name in given.items()}
    if sorted(labels) != list(range(count)):
        fields.refuse(f"id2label with the numbers {sorted(labels)} is not handled (only 0 to {count - 1})")
    if count > 1 and head != "regression":
        fields.need("problem_type", None, "single_label_classification")
    return tuple(labels[number] for number in sorted(labels))


def _write(config: BERTConfig) -> tuple[str, dict[str, Any]]:
    classes = {head: cls for cls, head in _HEADS.items()}
    acts = {ours: theirs for theirs, ours in _ACTS.items() if theirs != "gelu_pytorch_tanh"}
    fields = {
        "num_hidden_layers": config.n_layers, "hidden_size": config.d_model, "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_mlp, "vocab_size": config.d_vocab, "max_position_embeddings": config.n_ctx,
        "type_vocab_size": config.n_types, "hidden_act": acts[config.act], "layer_norm_eps": config.norm_eps, "pad_token_id": None,
    }  # fmt: skip
    if config.classes:
        fields["id2label"] = {str(number): name for number, name in enumerate(config.classes)}
        fields["label2id"] = {name: number for number, name in enumerate(config.classes)}
    if config.head == "regression":
        fields["problem_type"] = "regression"
    return classes.get("sequence" if config.head == "regression" else config.head, _BASE), fields


def _lines(config: BERTConfig) -> list[Line]:
    lines = [line("embeddings.word_embeddings.weight", "embed.token.weight")]
    lines += [line("embeddings.position_embeddings.weight", "embed.position.weight")]
    lines += [line("embeddings.token_type_embeddings.weight", "types.weight"), *both("embeddings.LayerNorm", "ln_embed")]
    for i in range(config.n_layers):
        ours, theirs = f"stack.blocks.{i}", f"encoder.layer.{i}"
        for word, name in (("q", "query"), ("k", "key"), ("v", "value")):
            lines += both(f"{theirs}.attention.self.{name}", f"{ours}.attn.{word}")
        lines += both(f"{theirs}.attention.output.dense", f"{ours}.attn.o") + both(f"{theirs}.attention.output.LayerNorm", f"{ours}.ln1")
        lines += both(f"{theirs}.intermediate.dense", f"{ours}.mlp.inner") + both(f"{theirs}.output.dense", f"{ours}.mlp.out")
        lines += both(f"{theirs}.output.LayerNorm", f"{ours}.ln2")
    if config.head in POOLED:
        lines += both("pooler.dense", "pooler.dense")
    if config.head == "span":
        lines += both("qa_outputs", "unembed.linear", head=True)
    if config.head in NAMED:
        lines += both("classifier", "unembed.linear", head=True)
    if config.head == "masked":
        lines += both("cls.predictions.transform.dense", "head.dense", head=True)
        lines += both("cls.predictions.transform.LayerNorm", "head.ln", head=True)
        lines += [line("cls.predictions.bias", "unembed.bias", head=True)]
    return lines


def _older(tensors: Mapping[str, Tensor], config: BERTConfig) -> dict[str, Tensor]:
    """Norms by their present names. The published classes with a head of positions load no pooler and no second pretraining head,
    though checkpoints of the whole pretraining hold them."""
    out: dict[str, Tensor] = {}
    for name, value in tensors.items():
        found = _NORM.fullmatch(name)
        out[f"{found['norm']}.{'weight' if found['word'] == 'gamma' else 'bias'}" if found else name] = value
    if config.head not in ("masked", "token", "span"):
        return out
    return {name: value for name, value in out.items() if not name.startswith(("bert.pooler.", "cls.seq_relationship."))}


BERT = Architecture(
    family="bert",
    classes=(*_HEADS, _BASE),
    read=_read,
    write=_write,
    lines=_lines,
    prefix="bert.",
    ignored=("embeddings.position_ids",),
    same=lambda config: (
        {"cls.predictions.decoder.weight": "embeddings.word_embeddings.weight", "cls.predictions.decoder.bias": "cls.predictions.bias"}
        if config.head == "masked"
        else {}
    ),
    older=_older,
)
