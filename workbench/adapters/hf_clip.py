"""CLIP as `transformers` writes it (Radford et al. 2021): both towers, their projections and the scale."""

from __future__ import annotations

from typing import Any

from workbench.adapters.fields import Fields
from workbench.adapters.hf import Architecture
from workbench.adapters.weights import Line, both, line
from workbench.core.errors import Incompatible
from workbench.families.clip import CLIPConfig

_ACTS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
_FIRST = 2
"""The end id that the first configs give by mistake; with it, a text is read at its largest id."""
_TOWERS = {"text": "text_config", "image": "vision_config"}
_INERT = (
    "projection_dim", "cross_attention_hidden_size", "decoder_start_token_id", "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty", "num_beam_groups", "num_return_sequences", "remove_invalid_values", "return_dict_in_generate",
    "tie_encoder_decoder", "tie_word_embeddings",
)  # fmt: skip
"""Fields of a tower that a model of both does not read: its own projection's width, and what older files say of generation."""


def _tower(fields: Fields, tower: str) -> Fields:
    """The fields of a tower. Older files repeat some in ``…_config_dict``, which then counts, with published defaults for the rest."""
    name = _TOWERS[tower]
    defaults, given = fields.defaults[name], fields.own(name, {})
    repeated = fields.own(f"{name}_dict", None)
    if repeated is not None:
        given = {**given, **defaults, **repeated}
    return Fields(given, defaults, f"{fields.what} ({name})")


def _read(fields: Fields, cls: str) -> dict[str, Any]:
    out: dict[str, Any] = {"d_joint": fields["projection_dim"], "logit_scale": fields["logit_scale_init_value"]}
    shared: dict[str, dict[str, Any]] = {}
    for tower in _TOWERS:
        own = _tower(fields, tower)
        own.need("is_decoder", False, None)
        own.need("add_cross_attention", False, None)
        shared[tower] = {"act": own.choose("hidden_act", _ACTS), "norm_eps": own["layer_norm_eps"]}
        out |= {
            f"n_layers_{tower}": own["num_hidden_layers"], f"d_model_{tower}": own["hidden_size"],
            f"n_heads_{tower}": own["num_attention_heads"], f"d_mlp_{tower}": own["intermediate_size"],
        }  # fmt: skip
        out |= _words(own) if tower == "text" else _picture(own)
        own.done(_INERT)
    if shared["text"] != shared["image"]:
        fields.refuse(f"towers that differ in activation or norm ({shared['text']} and {shared['image']}) are not handled")
    return out | shared["text"]


def _words(fields: Fields) -> dict[str, Any]:
    end = fields["eos_token_id"]
    if not isinstance(end, int):
        fields.refuse(f"eos_token_id={end!r} is not handled (only one id)")
        end = _FIRST
    return {"d_vocab": fields["vocab_size"], "n_ctx": fields["max_position_embeddings"], "eos_id": None if end == _FIRST else end}


def _picture(fields: Fields) -> dict[str, Any]:
    for name in ("image_size", "patch_size"):
        if not isinstance(fields[name], int):
            fields.refuse(f"{name}={fields[name]!r} is not handled (only one number, for squares)")
    size, patch = fields["image_size"], fields["patch_size"]
    return {"height": size, "width": size, "channels": fields["num_channels"], "patch": patch}


def _write(config: CLIPConfig) -> tuple[str, dict[str, Any]]:
    reasons = [f"its images are {config.height} x {config.width}, not square"] if config.height != config.width else []
    if config.eos_id == _FIRST:
        reasons.append(f"its end id is {_FIRST}, which the published model takes for a sign of its first configs")
    if reasons:
        raise Incompatible("export", "CLIP", reasons)
    acts = {ours: theirs for theirs, ours in _ACTS.items() if theirs != "gelu_pytorch_tanh"}
    towers: dict[str, dict[str, Any]] = {}
    for tower in _TOWERS:
        towers[tower] = {
            "num_hidden_layers": getattr(config, f"n_layers_{tower}"), "hidden_size": getattr(config, f"d_model_{tower}"),
            "num_attention_heads": getattr(config, f"n_heads_{tower}"), "intermediate_size": getattr(config, f"d_mlp_{tower}"),
            "hidden_act": acts[config.act], "layer_norm_eps": config.norm_eps, "projection_dim": config.d_joint,
        }  # fmt: skip
    towers["text"] |= {
        "vocab_size": config.d_vocab, "max_position_embeddings": config.n_ctx, "bos_token_id": None, "pad_token_id": None,
        "eos_token_id": _FIRST if config.eos_id is None else config.eos_id,
    }  # fmt: skip
    towers["image"] |= {"image_size": config.height, "num_channels": config.channels, "patch_size": config.patch}
    named = {_TOWERS[tower]: fields for tower, fields in towers.items()}
    return "CLIPModel", {"projection_dim": config.d_joint, "logit_scale_init_value": config.logit_scale, **named}


def _lines(config: CLIPConfig) -> list[Line]:
    width, patch = config.d_model_image, config.patch
    words, picture = "text_model.embeddings", "vision_model.embeddings"
    lines = [
        line("logit_scale", "logit_scale"),
        line("text_projection.weight", "text.project.weight"),
        line("visual_projection.weight", "image.project.weight"),
        line(f"{words}.token_embedding.weight", "text.front.token.weight"),
        line(f"{words}.position_embedding.weight", "text.front.position.weight"),
        line(f"{picture}.class_embedding", "image.front.class_token.weight", shape=(width,)),
        line(f"{picture}.position_embedding.weight", "image.front.position.weight"),
        line(f"{picture}.patch_embedding.weight", "image.front.map.weight", shape=(width, config.channels, patch, patch)),
        *both("text_model.final_layer_norm", "text.ln_final"),
        *both("vision_model.pre_layrnorm", "image.ln_pre"),
        *both("vision_model.post_layernorm", "image.ln_final"),
    ]
    for tower, theirs in (("text", "text_model"), ("image", "vision_model")):
        for i in range(getattr(config, f"n_layers_{tower}")):
            ours, layer = f"{tower}.stack.blocks.{i}", f"{theirs}.encoder.layers.{i}"
            lines += both(f"{layer}.layer_norm1", f"{ours}.ln1") + both(f"{layer}.layer_norm2", f"{ours}.ln2")
            for word, name in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", "out_proj")):
                lines += both(f"{layer}.self_attn.{name}", f"{ours}.attn.{word}")
            lines += both(f"{layer}.mlp.fc1", f"{ours}.mlp.inner") + both(f"{layer}.mlp.fc2", f"{ours}.mlp.out")
    return lines


CLIP = Architecture(
    family="clip",
    classes=("CLIPModel",),
    read=_read,
    write=_write,
    lines=_lines,
    ignored=("*.position_ids",),
)
