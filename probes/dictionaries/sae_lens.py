"""Dictionaries in SAELens's form: a folder of ``cfg.json`` and ``sae_weights.safetensors`` (its version 6).

What is written is folded, so nothing is left to normalise (``normalize_activations: none``); features and reconstructions of raw
activations are the same on both sides. Kinds are theirs: topk; batch-topk and jumprelu become ``jumprelu`` (as theirs do after training);
gated. A transcoder of the two threshold kinds becomes ``jumprelu_transcoder``; they know none for the others, which are refused. Their
``standard`` and ``transcoder`` (ReLU) are read as jumprelu with thresholds of 0, which is the same function.

What their files do not hold cannot be read: an ``expected_average_only_in`` normalisation keeps its factor elsewhere, and without it every
number would be wrong, so it must be given. Normalisation row by row (``layer_norm``, ``constant_norm_rescale``) is refused.

Form: SAELens 6 (``sae_lens/saes``, ``loading/pretrained_sae_loaders.py``); ``benchmarks/dictionary_speed.py`` checks it against SAELens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from probes.dictionaries.dictionary import Dictionary
from probes.dictionaries.files import fill
from probes.dictionaries.folding import folded
from probes.dictionaries.normalisation import Normalisation
from probes.dictionaries.spec import DictionarySpec, Kind, Origin
from workbench.core.errors import CorruptFile, Incompatible, MissingFile

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
VERSION = "6.54.12"
"""The version of SAELens whose form this is."""
OURS = "assay"
"""Where our own facts are kept in its metadata."""
ARCHITECTURES: dict[str, Kind] = {
    "topk": "topk", "jumprelu": "jumprelu", "gated": "gated", "standard": "jumprelu",
    "transcoder": "jumprelu", "jumprelu_transcoder": "jumprelu",
}  # fmt: skip


def save(folder: Path | str, dictionary: Dictionary) -> Path:
    """Write a dictionary for SAELens. Raises Incompatible for a transcoder of a kind that it does not know."""
    spec, d = dictionary.spec, folded(dictionary)
    theirs = "jumprelu" if spec.kind in ("batch-topk", "jumprelu") else spec.kind
    if spec.transcoder and theirs != "jumprelu":
        why = f"SAELens knows no {theirs} transcoders, only those with thresholds"
        raise Incompatible(
            "sae-lens export", "this dictionary", [why], do="Train a jumprelu or batch-topk one, or keep it in our own form."
        )
    weights = {"W_enc": d.encoder.T, "W_dec": d.decoder, "b_dec": d.decoder_bias}
    if spec.kind == "gated":
        weights |= {"b_gate": d.gate_bias, "b_mag": d.magnitude_bias, "r_mag": d.magnitude_log}
    else:
        weights["b_enc"] = d.encoder_bias
    if theirs == "jumprelu":
        weights["threshold"] = d.threshold.expand(spec.d_sae)
    dtype = str(d.decoder.dtype).removeprefix("torch.")
    config: dict[str, Any] = {
        "architecture": "jumprelu_transcoder" if spec.transcoder else theirs, "d_in": spec.d_in, "d_sae": spec.d_sae, "dtype": dtype,
        "device": "cpu", "apply_b_dec_to_input": not spec.transcoder, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": VERSION, "sae_lens_training_version": None, "model_name": d.origin.model or None,
            "hook_name": d.origin.site or None, "hook_name_out": d.origin.site_out or None, "prepend_bos": d.origin.bos,
            OURS: {"spec": spec.model_dump(mode="json"), "origin": d.origin.model_dump(mode="json")},
        },
    }  # fmt: skip
    if spec.kind == "topk":
        config |= {"k": spec.k, "rescale_acts_by_decoder_norm": False}
    if spec.transcoder:
        config["d_out"] = spec.width_out
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file({name: w.detach().clone().contiguous() for name, w in weights.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
    return folder


def load(folder: Path | str, *, scale: float | None = None) -> Dictionary:
    """Read a dictionary of SAELens's. ``scale``: the factor activations were multiplied with, where it was trained with
    ``expected_average_only_in`` and not folded.

    Raises MissingFile, CorruptFile for a file that is not of that form, Incompatible for what ours cannot be.
    """
    folder = Path(folder)
    config, weights = _config(folder / CONFIG), _weights(folder / WEIGHTS)
    architecture = config.get("architecture", "standard")
    if reasons := _objections(config, architecture, scale):
        raise Incompatible("sae-lens import", f"'{folder.name}'", reasons, do="Fold it there first, or give what is missing.")
    metadata = config.get("metadata") or {}
    ours = metadata.get(OURS) or {}
    transcoder = architecture.endswith("transcoder")
    k = config.get("k") or (ours.get("spec") or {}).get("k") or config.get("d_sae")
    told = {
        "kind": ARCHITECTURES[architecture], "d_in": config.get("d_in"), "d_sae": config.get("d_sae"),
        "k": k, "d_out": config.get("d_out") if transcoder else None,
    }  # fmt: skip
    spec = DictionarySpec.parse(told, what=f"'{folder / CONFIG}'")
    known = Origin.parse(ours["origin"]) if "origin" in ours else _origin(config, metadata)
    d = Dictionary(spec, origin=known)
    table = _as_ours(weights, config, spec, folder / WEIGHTS)
    d.to(table["decoder"].dtype)
    fill(d, {**d.state_dict(), **table}, folder / WEIGHTS)
    if scale is not None:
        one = torch.tensor(scale, dtype=d.decoder.dtype)
        with torch.no_grad():
            d.normalise(Normalisation(torch.zeros_like(d.centre_in), one))
    return d


def _objections(config: Mapping[str, Any], architecture: str, scale: float | None) -> list[str]:
    reasons = []
    if architecture not in ARCHITECTURES:
        reasons.append(f"its architecture is '{architecture}', and {', '.join(sorted(ARCHITECTURES))} can be read")
    how = config.get("normalize_activations") or "none"
    if how == "expected_average_only_in" and scale is None:
        reasons.append(
            "its activations were scaled by a factor that its files do not hold (normalize_activations: expected_average_only_in)"
        )
    elif how not in ("none", "expected_average_only_in"):
        reasons.append(f"its activations are normalised by '{how}', which is not a constant centre and scale")
    elif how == "none" and scale is not None:
        reasons.append("a scale was given, and its activations were not scaled")
    if scale is not None and architecture.endswith("transcoder"):
        reasons.append("a scale was given for a transcoder, whose output has its own")
    if (reshaped := config.get("reshape_activations") or "none") != "none":
        reasons.append(f"it reads activations reshaped ('{reshaped}')")
    if config.get("finetuning_scaling_factor"):
        reasons.append("it has a finetuning scale")
    return reasons


def _origin(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> Origin:
    """What an older or foreign file says of where it belongs."""
    name = metadata.get("model_name") or config.get("model_name") or ""
    site = metadata.get("hook_name") or config.get("hook_name") or ""
    bos = metadata.get("prepend_bos", config.get("prepend_bos"))
    return Origin(model=name, site=site, site_out=metadata.get("hook_name_out") or "", bos=True if bos is None else bool(bos))


def _as_ours(weights: Mapping[str, Tensor], config: Mapping[str, Any], spec: DictionarySpec, path: Path) -> dict[str, Tensor]:
    """Their tensors by our names. Raises CorruptFile for one that is missing."""

    def take(name: str) -> Tensor:
        if name not in weights:
            raise CorruptFile(path, f"the weights of a {config.get('architecture')} dictionary", f"'{name}' is missing")
        return weights[name]

    reads, gives = take("W_enc").T.contiguous(), take("W_dec")
    out = {"encoder": reads, "decoder": gives, "decoder_bias": take("b_dec")}
    biases = ("gate_bias", "magnitude_bias") if spec.kind == "gated" else ("encoder_bias",)
    names = {"gate_bias": "b_gate", "magnitude_bias": "b_mag", "encoder_bias": "b_enc"}
    out |= {ours: take(names[ours]) for ours in biases}
    if spec.kind == "gated":
        out["magnitude_log"] = take("r_mag")
    if spec.kind == "jumprelu":
        plain = config.get("architecture") in ("standard", "transcoder")
        out["threshold"] = torch.zeros_like(take("b_enc")) if plain else take("threshold")
    if not spec.transcoder and config.get("apply_b_dec_to_input", True) is False:  # ours subtracts it: given back to the bias
        shift = reads @ out["decoder_bias"]
        for name in biases:
            out[name] = out[name] + (shift * out["magnitude_log"].exp() if name == "magnitude_bias" else shift)
    if config.get("rescale_acts_by_decoder_norm"):
        length = gives.norm(dim=1)
        out |= {"encoder": reads * length[:, None], "encoder_bias": out["encoder_bias"] * length, "decoder": gives / length[:, None]}
    return out


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFile(path, "SAELens config")
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise CorruptFile(path, "JSON", f"it is not ({error})") from None
    if not isinstance(found, dict):
        raise CorruptFile(path, "a JSON object", f"it is {type(found).__name__}")
    return found


def _weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingFile(path, "SAELens weights")
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise CorruptFile(path, "a safetensors file", str(error)) from None
