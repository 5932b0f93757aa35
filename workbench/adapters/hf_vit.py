"""The vision transformer as `transformers` writes it (Dosovitskiy et al. 2021): the classifier, and the base model with or without its
pooler."""

from __future__ import annotations

from typing import Any

from workbench.adapters.fields import Fields
from workbench.adapters.hf import Architecture
from workbench.adapters.weights import Line, both, line
from workbench.core.errors import Incompatible
from workbench.families.vit import ViTConfig

_ACTS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu", "quick_gelu": "quick_gelu"}
_CLASSIFIER, _BASE = "ViTForImageClassification", "ViTModel"


def _read(fields: Fields, cls: str) -> dict[str, Any]:
    size, width = fields["image_size"], fields["hidden_size"]
    height, across = size if isinstance(size, list | tuple) else (size, size)
    pooler = cls == _BASE and any(name.endswith("pooler.dense.weight") for name in fields.names())
    if pooler:
        fields.need("pooler_output_size", width, None)
        fields.need("pooler_act", "tanh")
    for name in ("pooler_output_size", "pooler_act", "encoder_stride"):
        fields[name]  # of a pooler that is not there, or of a decoder of pixels
    names = _class_names(fields) if cls == _CLASSIFIER else ()
    return {
        "height": height, "width": across, "channels": fields["num_channels"], "patch": _patch(fields),
        "n_layers": fields["num_hidden_layers"], "d_model": width, "n_heads": fields["num_attention_heads"],
        "d_mlp": fields["intermediate_size"], "n_classes": len(names), "class_names": names, "pool": "class", "pooler": pooler,
        "act": fields.choose("hidden_act", _ACTS), "qkv_bias": fields["qkv_bias"], "norm_eps": fields["layer_norm_eps"],
    }  # fmt: skip


def _patch(fields: Fields) -> int:
    """The side of a patch; the published field may give both."""
    given = fields["patch_size"]
    sides = given if isinstance(given, list | tuple) else (given, given)
    if len(set(sides)) != 1:
        fields.refuse(f"patch_size={given!r} is not handled (only squares)")
    return sides[0]


def _class_names(fields: Fields) -> tuple[str, ...]:
    """The names of the classes in the order of their numbers; their logits are read as one choice among them."""
    count = fields.own("num_labels", len(fields["id2label"] or {}))
    given = fields.own("id2label", {number: f"LABEL_{number}" for number in range(count)})
    labels = {int(number): str(name) for number, name in given.items()}
    if not count or sorted(labels) != list(range(count)):
        fields.refuse(f"id2label with the numbers {sorted(labels)} is not handled (only 0 to {max(count, 1) - 1})")
    fields.need("problem_type", None, "single_label_classification")
    return tuple(labels[number] for number in sorted(labels))


def _write(config: ViTConfig) -> tuple[str, dict[str, Any]]:
    reasons = []
    if config.n_classes and config.pooler:
        reasons.append("it has a pooler before its classes")
    if config.n_classes and config.pool != "class":
        reasons.append(f"its pool is {config.pool!r}, not 'class'")
    if reasons:
        raise Incompatible("export", "ViT", reasons)
    acts = {ours: theirs for theirs, ours in _ACTS.items() if theirs != "gelu_pytorch_tanh"}
    square = config.height == config.width
    fields = {
        "image_size": config.height if square else [config.height, config.width], "patch_size": config.patch,
        "num_channels": config.channels, "num_hidden_layers": config.n_layers, "hidden_size": config.d_model,
        "num_attention_heads": config.n_heads, "intermediate_size": config.d_mlp, "hidden_act": acts[config.act],
        "qkv_bias": config.qkv_bias, "layer_norm_eps": config.norm_eps,
    }  # fmt: skip
    if not config.n_classes:
        return _BASE, fields
    names = config.class_names or tuple(f"LABEL_{number}" for number in range(config.n_classes))
    labels = {"id2label": {str(number): name for number, name in enumerate(names)}, "label2id": {n: i for i, n in enumerate(names)}}
    return _CLASSIFIER, fields | labels


def _lines(config: ViTConfig) -> list[Line]:
    width, patch = config.d_model, config.patch
    positions = 1 + (config.height // patch) * (config.width // patch)
    lines = [
        line("embeddings.cls_token", "embed.class_token.weight", shape=(1, 1, width)),
        line("embeddings.position_embeddings", "embed.position.weight", shape=(1, positions, width)),
        line("embeddings.patch_embeddings.projection.weight", "embed.map.weight", shape=(width, config.channels, patch, patch)),
        line("embeddings.patch_embeddings.projection.bias", "embed.map.bias"),
        *both("layernorm", "ln_final"),
    ]
    for i in range(config.n_layers):
        ours, theirs = f"stack.blocks.{i}", f"encoder.layer.{i}"
        for word, name in (("q", "query"), ("k", "key"), ("v", "value")):
            lines += both(f"{theirs}.attention.attention.{name}", f"{ours}.attn.{word}", bias=config.qkv_bias)
        lines += both(f"{theirs}.attention.output.dense", f"{ours}.attn.o")
        lines += both(f"{theirs}.layernorm_before", f"{ours}.ln1") + both(f"{theirs}.layernorm_after", f"{ours}.ln2")
        lines += both(f"{theirs}.intermediate.dense", f"{ours}.mlp.inner") + both(f"{theirs}.output.dense", f"{ours}.mlp.out")
    if config.pooler:
        lines += both("pooler.dense", "pooler.dense")
    return lines + both("classifier", "unembed.linear", head=True) if config.n_classes else lines


VIT = Architecture(
    family="vit",
    classes=(_CLASSIFIER, _BASE),
    read=_read,
    write=_write,
    lines=_lines,
    prefix="vit.",
)
