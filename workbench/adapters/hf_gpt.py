"""GPT-2 and Llama as `transformers` writes them, as our decoder.

GPT-2: Radford et al. 2019. Llama: Touvron et al. 2023; rotary scaling as in Llama 3.1, linear and YaRN.
"""

from __future__ import annotations

import math
from typing import Any

from workbench.adapters.fields import Fields
from workbench.adapters.hf import Architecture
from workbench.adapters.weights import Line, both, line
from workbench.core.errors import Incompatible
from workbench.families.gpt import GPTConfig

_ACTS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu": "relu", "quick_gelu": "quick_gelu"}


def _odd(config: GPTConfig, wanted: dict[str, Any]) -> list[str]:
    """What of ``config`` is not as a published architecture has it."""
    return [f"its {name} is {getattr(config, name)!r}, not {value!r}" for name, value in wanted.items() if getattr(config, name) != value]


def _refused(kind: str, reasons: list[str]) -> None:
    if reasons:
        raise Incompatible("export", kind, reasons)


# --- GPT-2 --------------------------------------------------------------------------------------------------


def _read_gpt2(fields: Fields, cls: str) -> dict[str, Any]:
    fields.need("scale_attn_weights", True)
    fields.need("scale_attn_by_inverse_layer_idx", False)
    fields.need("add_cross_attention", False)
    fields["reorder_and_upcast_attn"]  # the same numbers, computed in another order
    tied = fields["tie_word_embeddings"]
    if cls == "GPT2Model" and not tied:
        fields.refuse("tie_word_embeddings=False is not handled without the head's weights")
    width = fields["n_embd"]
    return {
        "n_layers": fields["n_layer"], "d_model": width, "n_heads": fields["n_head"], "d_mlp": fields.own("n_inner", 4 * width),
        "d_vocab": fields["vocab_size"], "n_ctx": fields["n_positions"], "norm": "layer", "norm_placement": "pre",
        "act": fields.choose("activation_function", _ACTS), "positions": "learned", "tied": tied, "bias": True,
        "norm_eps": fields["layer_norm_epsilon"],
    }  # fmt: skip


def _write_gpt2(config: GPTConfig) -> tuple[str, dict[str, Any]]:
    acts = {ours: theirs for theirs, ours in _ACTS.items() if theirs != "gelu_pytorch_tanh"}
    reasons = _odd(config, {"positions": "learned", "norm": "layer", "norm_placement": "pre", "bias": True})
    if config.act not in acts:
        reasons.append(f"its act is {config.act!r}")
    if config.n_kv_heads != config.n_heads or config.d_head * config.n_heads != config.d_model:
        reasons.append("its heads are grouped or do not make up d_model")
    _refused("GPT-2", reasons)
    return "GPT2LMHeadModel", {
        "n_layer": config.n_layers, "n_embd": config.d_model, "n_head": config.n_heads, "n_inner": config.d_mlp,
        "vocab_size": config.d_vocab, "n_positions": config.n_ctx, "activation_function": acts[config.act],
        "tie_word_embeddings": config.tied, "layer_norm_epsilon": config.norm_eps, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


def _lines_gpt2(config: GPTConfig) -> list[Line]:
    lines = [line("wte.weight", "embed.token.weight"), line("wpe.weight", "embed.position.weight"), *both("ln_f", "ln_final")]
    for i in range(config.n_layers):
        ours, theirs = f"stack.blocks.{i}", f"h.{i}"
        lines += both(f"{theirs}.ln_1", f"{ours}.ln1") + both(f"{theirs}.ln_2", f"{ours}.ln2")
        lines += both(f"{theirs}.attn.c_attn", *(f"{ours}.attn.{word}" for word in "qkv"), turned=True)
        lines += both(f"{theirs}.attn.c_proj", f"{ours}.attn.o", turned=True)
        lines += both(f"{theirs}.mlp.c_fc", f"{ours}.mlp.inner", turned=True) + both(f"{theirs}.mlp.c_proj", f"{ours}.mlp.out", turned=True)
    return lines if config.tied else [*lines, line("lm_head.weight", "unembed.own.weight", head=True)]


GPT2 = Architecture(
    family="gpt",
    classes=("GPT2LMHeadModel", "GPT2Model"),
    read=_read_gpt2,
    write=_write_gpt2,
    lines=_lines_gpt2,
    prefix="transformer.",
    ignored=("h.*.attn.bias", "h.*.attn.masked_bias"),
    same=lambda config: {"lm_head.weight": "wte.weight"} if config.tied else {},
)


# --- Llama --------------------------------------------------------------------------------------------------


def _read_llama(fields: Fields, cls: str) -> dict[str, Any]:
    fields.choose("hidden_act", {"silu": "swiglu", "swish": "swiglu"})
    bias = fields["attention_bias"]
    if fields["mlp_bias"] != bias:
        fields.refuse(f"attention_bias={bias!r} with mlp_bias={fields['mlp_bias']!r} is not handled (only both or neither)")
    width, heads, context = fields["hidden_size"], fields["num_attention_heads"], fields["max_position_embeddings"]
    base, scaling = _rope(fields, context)
    return {
        "n_layers": fields["num_hidden_layers"], "d_model": width, "n_heads": heads,
        "n_kv_heads": fields.own("num_key_value_heads", heads), "d_head": fields.own("head_dim", width // heads),
        "d_mlp": fields["intermediate_size"], "d_vocab": fields["vocab_size"], "n_ctx": context, "norm": "rms",
        "norm_placement": "pre", "act": "swiglu", "positions": "rope", "rope_base": base, "rope_scaling": scaling,
        "tied": fields["tie_word_embeddings"], "bias": bias, "norm_eps": fields["rms_norm_eps"],
    }  # fmt: skip


def _rope(fields: Fields, context: int) -> tuple[float, dict[str, Any]]:
    """The base and our ``Scaling`` from the published parameters, in their newer or older form."""
    older = fields.own("rope_scaling", None) or {}
    given = {"rope_theta": fields.own("rope_theta", 10_000.0), **older, **fields.own("rope_parameters", {})}
    kind = given.pop("rope_type", given.pop("type", "default"))
    given.pop("type", None)
    base = given.pop("rope_theta")
    out: dict[str, Any] = {"precision": "float32"}
    if kind == "linear":
        out |= {"kind": "linear", "factor": given.pop("factor")}
    elif kind == "llama3":
        out |= {"kind": "banded", "factor": given.pop("factor"), "low": given.pop("low_freq_factor"), "high": given.pop("high_freq_factor")}
        out |= {"original": given.pop("original_max_position_embeddings")}
    elif kind == "yarn":
        factor = given.pop("factor")
        magnitude = given.pop("attention_factor", None) or _yarn_magnitude(
            factor, given.pop("mscale", None), given.pop("mscale_all_dim", None)
        )
        out |= {"kind": "ramp", "factor": factor, "magnitude": magnitude, "truncated": given.pop("truncate", True)}
        out |= {"low": given.pop("beta_slow", None) or 1.0, "high": given.pop("beta_fast", None) or 32.0}
        out |= {"original": given.pop("original_max_position_embeddings", None) or context}
    elif kind != "default":
        fields.refuse(f"rope_type={kind!r} is not handled (only default, linear, llama3, yarn)")
        return base, out
    for name, value in given.items():
        if value is not None and not (name == "partial_rotary_factor" and value == 1.0):
            fields.refuse(f"rope_parameters.{name}={value!r} is not handled")
    return base, out


def _yarn_magnitude(factor: float, scale: float | None, all_dims: float | None) -> float:
    one = lambda weight: 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0  # noqa: E731
    return one(scale) / one(all_dims) if scale and all_dims else one(1.0)


def _write_llama(config: GPTConfig) -> tuple[str, dict[str, Any]]:
    wanted = {"positions": "rope", "norm": "rms", "norm_placement": "pre", "act": "swiglu"}
    reasons = [
        f"its {name} is {getattr(config, name)!r}, not {value!r}" for name, value in wanted.items() if getattr(config, name) != value
    ]
    _refused("Llama", reasons)
    scaling = config.rope_scaling
    rope: dict[str, Any] = {"rope_theta": config.rope_base, "rope_type": "default"}
    if scaling.kind == "linear":
        rope |= {"rope_type": "linear", "factor": scaling.factor}
    elif scaling.kind == "banded":
        rope |= {"rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low, "high_freq_factor": scaling.high}
        rope |= {"original_max_position_embeddings": scaling.original}
    elif scaling.kind == "ramp":
        rope |= {"rope_type": "yarn", "factor": scaling.factor, "beta_slow": scaling.low, "beta_fast": scaling.high}
        rope |= {"attention_factor": scaling.magnitude, "truncate": scaling.truncated, "original_max_position_embeddings": scaling.original}
    return "LlamaForCausalLM", {
        "num_hidden_layers": config.n_layers, "hidden_size": config.d_model, "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads, "head_dim": config.d_head, "intermediate_size": config.d_mlp,
        "vocab_size": config.d_vocab, "max_position_embeddings": config.n_ctx, "hidden_act": "silu", "rope_parameters": rope,
        "attention_bias": config.bias, "mlp_bias": config.bias, "tie_word_embeddings": config.tied, "rms_norm_eps": config.norm_eps,
        "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


def _lines_llama(config: GPTConfig) -> list[Line]:
    bias = config.bias
    lines = [line("embed_tokens.weight", "embed.token.weight"), line("norm.weight", "ln_final.weight")]
    for i in range(config.n_layers):
        ours, theirs = f"stack.blocks.{i}", f"layers.{i}"
        lines += both(f"{theirs}.input_layernorm", f"{ours}.ln1", bias=False)
        lines += both(f"{theirs}.post_attention_layernorm", f"{ours}.ln2", bias=False)
        for word in "qkvo":
            lines += both(f"{theirs}.self_attn.{word}_proj", f"{ours}.attn.{word}", bias=bias)
        for name, part in (("gate_proj", "gate"), ("up_proj", "inner"), ("down_proj", "out")):
            lines += both(f"{theirs}.mlp.{name}", f"{ours}.mlp.{part}", bias=bias)
    return lines if config.tied else [*lines, line("lm_head.weight", "unembed.own.weight", head=True)]


LLAMA = Architecture(
    family="gpt",
    classes=("LlamaForCausalLM",),
    read=_read_llama,
    write=_write_llama,
    lines=_lines_llama,
    prefix="model.",
    ignored=("layers.*.self_attn.rotary_emb.inv_freq",),
    same=lambda config: {"lm_head.weight": "embed_tokens.weight"} if config.tied else {},
)
