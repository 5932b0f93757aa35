"""Whisper as `transformers` writes it (Radford et al. 2022), as our listener that writes.

The published encoder takes exactly ``2 * max_source_positions`` frames; ours takes fewer too. ``scale_embedding`` is a field that the
published model does not heed.
"""

from __future__ import annotations

from typing import Any

from workbench.adapters.fields import Fields
from workbench.adapters.hf import Architecture
from workbench.adapters.weights import Line, both, line
from workbench.core.errors import Incompatible
from workbench.families.whisper import WhisperConfig

_ACTS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu", "relu": "relu"}
_EPS = 1e-5
"""Of every norm; no field says so."""


def _read(fields: Fields, cls: str) -> dict[str, Any]:
    fields.need("is_encoder_decoder", True)
    for name in ("attention_heads", "ffn_dim"):
        ours, theirs = fields[f"encoder_{name}"], fields[f"decoder_{name}"]
        if ours != theirs:
            fields.refuse(f"encoder_{name}={ours!r} with decoder_{name}={theirs!r} is not handled (only equal ones)")
    layers, tied = fields["encoder_layers"], fields["tie_word_embeddings"]
    if fields.own("num_hidden_layers", layers) != layers:
        fields.refuse(f"num_hidden_layers={fields['num_hidden_layers']!r} is not handled (only encoder_layers={layers!r})")
    if cls == "WhisperModel" and not tied:
        fields.refuse("tie_word_embeddings=False is not handled without the head's weights")
    return {
        "n_layers_encoder": layers, "n_layers_decoder": fields["decoder_layers"], "d_model": fields["d_model"],
        "n_heads": fields["encoder_attention_heads"], "d_mlp": fields["encoder_ffn_dim"], "n_mels": fields["num_mel_bins"],
        "n_ctx_source": fields["max_source_positions"], "d_vocab": fields["vocab_size"], "n_ctx": fields["max_target_positions"],
        "positions": "sinusoid", "act": fields.choose("activation_function", _ACTS), "key_bias": False, "tied": tied, "norm_eps": _EPS,
    }  # fmt: skip


def _write(config: WhisperConfig) -> tuple[str, dict[str, Any]]:
    acts = {ours: theirs for theirs, ours in _ACTS.items() if theirs != "gelu_pytorch_tanh"}
    wanted = {"source": "mel", "key_bias": False, "norm_eps": _EPS}
    reasons = [
        f"its {name} is {getattr(config, name)!r}, not {value!r}" for name, value in wanted.items() if getattr(config, name) != value
    ]
    if reasons:
        raise Incompatible("export", "Whisper", reasons)
    # Which tokens begin, end and fill is the tokenizer's to say: the published defaults lie outside a small vocabulary.
    unsaid = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "begin_suppress_tokens", "suppress_tokens"))
    return "WhisperForConditionalGeneration", {
        "encoder_layers": config.n_layers_encoder, "decoder_layers": config.n_layers_decoder, "d_model": config.d_model,
        "encoder_attention_heads": config.n_heads, "decoder_attention_heads": config.n_heads, "encoder_ffn_dim": config.d_mlp,
        "decoder_ffn_dim": config.d_mlp, "num_mel_bins": config.n_mels, "max_source_positions": config.n_ctx_source,
        "max_target_positions": config.n_ctx, "vocab_size": config.d_vocab, "activation_function": acts[config.act],
        "tie_word_embeddings": config.tied, "is_encoder_decoder": True, "decoder_start_token_id": 0, **unsaid,
    }  # fmt: skip


def _lines(config: WhisperConfig) -> list[Line]:
    lines = [line("encoder.embed_positions.weight", "encoder.front.position"), *both("encoder.conv1", "encoder.front.conv1")]
    lines += both("encoder.conv2", "encoder.front.conv2") + both("encoder.layer_norm", "encoder.ln_final")
    lines += [line(f"decoder.embed_{theirs}.weight", f"decoder.embed.{ours}.weight") for theirs, ours in _TABLES]
    lines += both("decoder.layer_norm", "decoder.ln_final")
    for i in range(config.n_layers_encoder):
        lines += _layer(f"encoder.layers.{i}", f"encoder.stack.blocks.{i}", _ENCODER)
    for i in range(config.n_layers_decoder):
        lines += _layer(f"decoder.layers.{i}", f"decoder.stack.blocks.{i}", _DECODER)
    return lines if config.tied else [*lines, line("proj_out.weight", "decoder.unembed.own.weight", head=True)]


_TABLES = (("tokens", "token"), ("positions", "position"))
_ENCODER = {"self_attn": ("attn", "ln1"), "final": ("mlp", "ln2")}
_DECODER = {"self_attn": ("attn", "ln1"), "encoder_attn": ("cross_attn", "ln2"), "final": ("mlp", "ln3")}
"""Published sublayers, with our name of each and of the norm before it."""


def _layer(theirs: str, ours: str, sublayers: dict[str, tuple[str, str]]) -> list[Line]:
    lines: list[Line] = []
    for name, (part, norm) in sublayers.items():
        lines += both(f"{theirs}.{name}_layer_norm", f"{ours}.{norm}")
        if part == "mlp":
            lines += both(f"{theirs}.fc1", f"{ours}.mlp.inner") + both(f"{theirs}.fc2", f"{ours}.mlp.out")
            continue
        for word, map_name in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", "out_proj")):
            lines += both(f"{theirs}.{name}.{map_name}", f"{ours}.{part}.{word}", bias=word != "k")
    return lines


WHISPER = Architecture(
    family="whisper",
    classes=("WhisperForConditionalGeneration", "WhisperModel"),
    read=_read,
    write=_write,
    lines=_lines,
    prefix="model.",
    same=lambda config: {"proj_out.weight": "decoder.embed_tokens.weight"} if config.tied else {},
    inert=(
        "scale_embedding", "use_weighted_layer_sum", "classifier_proj_size", "apply_spec_augment", "mask_time_*", "mask_feature_*",
        "median_filter_width",
    ),
)  # fmt: skip
