"""BART as `transformers` writes it, as our encoder-decoder (Lewis et al. 2019).

Its tables of positions begin with two rows that no token reads; they are kept (``reserved``), so that what is exported is what came in.
"""

from __future__ import annotations

from typing import Any

from workbench.adapters.fields import Fields
from workbench.adapters.hf import Architecture
from workbench.adapters.weights import Line, both, line
from workbench.core.errors import Incompatible
from workbench.families.seq2seq import Seq2SeqConfig

_ACTS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu", "quick_gelu": "quick_gelu"}
_GENERATING, _BASE = "BartForConditionalGeneration", "BartModel"
_BIAS = "final_logits_bias"
_RESERVED = 2
_NORM_EPS = 1e-5  # fixed in the published code


def _read(fields: Fields, cls: str) -> dict[str, Any]:
    fields.need("is_encoder_decoder", True)
    fields.need("is_decoder", False)
    fields.need("tie_word_embeddings", True)
    # Older configs spell out what every published BART has; other values meant an architecture that the published code no longer holds.
    for name, value in {"normalize_before": False, "add_final_layer_norm": False, "normalize_embedding": True}.items():
        fields.need(name, value, None)
    for name, value in {"add_bias_logits": False, "static_position_embeddings": False, "extra_pos_embeddings": _RESERVED}.items():
        fields.need(name, value, None)
    layers = fields["encoder_layers"]
    fields.need("num_hidden_layers", layers, None)
    heads, width = (_alike(fields, word) for word in ("attention_heads", "ffn_dim"))
    names = fields.names()  # a base model's file may hold the bias too
    return {
        "n_layers_encoder": layers, "n_layers_decoder": fields["decoder_layers"], "d_model": fields["d_model"], "n_heads": heads,
        "d_mlp": width, "d_vocab": fields["vocab_size"], "n_ctx": fields["max_position_embeddings"], "norm_placement": "post",
        "embed_norm": True, "act": fields.choose("activation_function", _ACTS), "positions": "learned", "reserved": _RESERVED,
        "scale_embed": bool(fields["scale_embedding"]), "logits_bias": _BIAS in names if names else cls == _GENERATING, "tied": True,
        "norm_eps": _NORM_EPS,
    }  # fmt: skip


def _alike(fields: Fields, word: str) -> Any:
    """A field that both stacks have, with one value."""
    value = fields[f"encoder_{word}"]
    fields.need(f"decoder_{word}", value)
    return value


def _write(config: Seq2SeqConfig) -> tuple[str, dict[str, Any]]:
    acts = {ours: theirs for theirs, ours in _ACTS.items() if theirs != "gelu_pytorch_tanh"}
    wanted = {
        "norm_placement": "post", "embed_norm": True, "positions": "learned", "reserved": _RESERVED, "tied": True, "norm_eps": _NORM_EPS,
    }  # fmt: skip
    reasons = [
        f"its {name} is {getattr(config, name)!r}, not {value!r}" for name, value in wanted.items() if getattr(config, name) != value
    ]
    if config.act not in acts:
        reasons.append(f"its act is {config.act!r}")
    if reasons:
        raise Incompatible("export", "BART", reasons)
    both_stacks = {"attention_heads": config.n_heads, "ffn_dim": config.d_mlp}
    # Also without the bias: a base model's folder would be opened without what it answers with. The published class adds none to such
    # a checkpoint.
    return _GENERATING, {
        "encoder_layers": config.n_layers_encoder, "decoder_layers": config.n_layers_decoder, "d_model": config.d_model,
        **{f"{stack}_{word}": value for word, value in both_stacks.items() for stack in ("encoder", "decoder")},
        "vocab_size": config.d_vocab, "max_position_embeddings": config.n_ctx, "activation_function": acts[config.act],
        "scale_embedding": config.scale_embed, "tie_word_embeddings": True, "pad_token_id": None, "bos_token_id": None,
        "eos_token_id": None, "decoder_start_token_id": None, "forced_eos_token_id": None,
    }  # fmt: skip


def _lines(config: Seq2SeqConfig) -> list[Line]:
    lines = [line("shared.weight", "decoder.embed.token.weight")]
    for stack, layers in (("encoder", config.n_layers_encoder), ("decoder", config.n_layers_decoder)):
        lines += [line(f"{stack}.embed_positions.weight", f"{stack}.embed.position.weight")]
        lines += both(f"{stack}.layernorm_embedding", f"{stack}.embed.ln")
        for i in range(layers):
            lines += _layer(f"{stack}.layers.{i}", f"{stack}.stack.blocks.{i}", crossed=stack == "decoder")
    bias = line(_BIAS, "decoder.unembed.bias", head=True, shape=(1, config.d_vocab))
    return [*lines, bias] if config.logits_bias else lines


def _layer(theirs: str, ours: str, *, crossed: bool) -> list[Line]:
    parts = [("self_attn", "attn")] + ([("encoder_attn", "cross_attn")] if crossed else [])
    lines: list[Line] = []
    for number, (their, our) in enumerate(parts, start=1):
        lines += both(f"{theirs}.{their}_layer_norm", f"{ours}.ln{number}")
        for word in "qkvo":
            lines += both(f"{theirs}.{their}.{'out' if word == 'o' else word}_proj", f"{ours}.{our}.{word}")
    lines += both(f"{theirs}.final_layer_norm", f"{ours}.ln{len(parts) + 1}")
    return lines + both(f"{theirs}.fc1", f"{ours}.mlp.inner") + both(f"{theirs}.fc2", f"{ours}.mlp.out")


BART = Architecture(
    family="seq2seq",
    classes=(_GENERATING, _BASE),
    read=_read,
    write=_write,
    lines=_lines,
    prefix="model.",
    ignored=("encoder.version", "decoder.version"),
    same=lambda config: dict.fromkeys(("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"), "shared.weight"),
    inert=("force_*",),
)
