"""SAELens's form: what is written means the same by its formulas, what is read means the same by ours, the rest is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from probes.dictionaries import sae_lens
from probes.dictionaries.dictionary import Dictionary
from probes.dictionaries.spec import KINDS, Origin
from tests.probes.test_dictionaries import rows, shaken
from workbench.core.errors import BadValue, CorruptFile, Incompatible, MissingFile


def by_their_formulas(folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features and reconstruction as SAELens 6 defines them, from its two files alone."""
    config, w = json.loads((folder / "cfg.json").read_text()), safetensors.torch.load_file(folder / "sae_weights.safetensors")
    kind = config["architecture"]
    c = x - w["b_dec"] if config["apply_b_dec_to_input"] else x
    if kind == "gated":
        features = (c @ w["W_enc"] + w["b_gate"] > 0) * (c @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"]).relu()
        return features, features @ w["W_dec"] + w["b_dec"]
    pre = c @ w["W_enc"] + w["b_enc"]
    length = w["W_dec"].norm(dim=-1) if config.get("rescale_acts_by_decoder_norm") else torch.ones_like(w["b_enc"])
    pre = pre * length
    if kind == "topk":
        value, index = pre.topk(config["k"], dim=-1)
        features = torch.zeros_like(pre).scatter(-1, index, value.relu())
    elif kind in ("standard", "transcoder"):
        features = pre.relu()
    else:
        features = pre.relu() * (pre > w["threshold"])
    return features, (features / length) @ w["W_dec"] + w["b_dec"]


def written(folder: Path, architecture: str, /, **config: Any) -> Path:
    """A dictionary of theirs, with a decoder of any length and every bias."""
    draw = torch.Generator().manual_seed(2)
    make = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64)  # noqa: E731
    out = 5 if architecture.endswith("transcoder") else 6
    weights = {"W_enc": make(6, 20), "W_dec": 2 * make(20, out), "b_dec": make(out)}
    if architecture == "gated":
        weights |= {"b_gate": make(20), "b_mag": make(20), "r_mag": make(20) / 3}
    else:
        weights["b_enc"] = make(20)
    if "jumprelu" in architecture:
        weights["threshold"] = make(20).abs()
    given = {
        "architecture": architecture, "d_in": 6, "d_sae": 20, "d_out": out, "dtype": "float64", "apply_b_dec_to_input": out == 6,
        "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.1.0", "model_name": "gpt2", "hook_name": "blocks.3.hook_resid_pre", "prepend_bos": False},
        **config,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(weights, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(given))
    return folder


@pytest.mark.parametrize(
    ("kind", "shape"), [*((kind, "autoencoder") for kind in KINDS), ("jumprelu", "transcoder"), ("batch-topk", "transcoder")]
)
def test_what_is_written_reads_and_rebuilds_the_same_by_their_formulas(kind: str, shape: str, tmp_path: Path) -> None:
    d = shaken(kind, shape)
    d.origin = Origin(model="gpt", model_digest="ab", site="blocks.0.hook_resid_post", site_out="x" if shape == "transcoder" else "")
    x = d.input.undo(rows(40))
    features, y = by_their_formulas(sae_lens.save(tmp_path, d), x)
    torch.testing.assert_close(features, d.encode(x), rtol=0, atol=1e-11)
    torch.testing.assert_close(y, d(x), rtol=0, atol=1e-11)
    again = sae_lens.load(tmp_path)
    torch.testing.assert_close(again(x), d(x), rtol=0, atol=1e-11)
    torch.testing.assert_close(again.encode(x), d.encode(x), rtol=0, atol=1e-11)
    assert again.origin == d.origin
    assert again.spec.k == d.spec.k
    assert again.spec.kind == ("jumprelu" if kind == "batch-topk" else kind)


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("standard", {}), ("jumprelu", {}), ("gated", {}), ("topk", {"k": 4}), ("topk", {"k": 4, "rescale_acts_by_decoder_norm": True}),
        ("standard", {"apply_b_dec_to_input": False}), ("gated", {"apply_b_dec_to_input": False}), ("transcoder", {}),
        ("jumprelu_transcoder", {}),
    ],
)  # fmt: skip
def test_what_is_read_means_the_same_by_our_formulas(architecture: str, config: dict[str, Any], tmp_path: Path) -> None:
    folder, x = written(tmp_path, architecture, **config), rows(40)
    d = sae_lens.load(folder)
    features, y = by_their_formulas(folder, x)
    torch.testing.assert_close(d.encode(x), features, rtol=0, atol=1e-12)
    torch.testing.assert_close(d(x), y, rtol=0, atol=1e-12)
    assert d.origin == Origin(model="gpt2", site="blocks.3.hook_resid_pre", bos=False)
    torch.testing.assert_close(d.direction(3).norm(), torch.tensor(1.0, dtype=torch.float64))


def test_a_scale_that_the_files_do_not_hold_must_be_given(tmp_path: Path) -> None:
    folder, x = written(tmp_path, "standard", normalize_activations="expected_average_only_in"), rows(40)
    with pytest.raises(Incompatible, match="scaled by a factor that its files do not hold.*give what is missing"):
        sae_lens.load(folder)
    d = sae_lens.load(folder, scale=0.25)
    features, y = by_their_formulas(folder, 0.25 * x)
    torch.testing.assert_close(d(x), y / 0.25, rtol=0, atol=1e-12)
    torch.testing.assert_close(d.encode(x), features / 0.25, rtol=0, atol=1e-12)
    again = sae_lens.load(sae_lens.save(tmp_path / "folded", d))
    torch.testing.assert_close(again(x), d(x), rtol=0, atol=1e-11)


def test_what_cannot_be_meant_is_refused_with_its_reason(tmp_path: Path) -> None:
    for config, word in (
        ({"normalize_activations": "layer_norm"}, "normalised by 'layer_norm'"), ({"reshape_activations": "hook_z"}, "reshaped"),
        ({"finetuning_scaling_factor": True}, "finetuning scale"), ({"architecture": "temporal"}, "its architecture is 'temporal'"),
    ):  # fmt: skip
        with pytest.raises(Incompatible, match=word):
            sae_lens.load(written(tmp_path / word.replace("'", ""), "standard", **config))
    with pytest.raises(Incompatible, match="were not scaled"):
        sae_lens.load(written(tmp_path / "s", "standard"), scale=2.0)
    with pytest.raises(CorruptFile, match="'threshold' is missing"):
        sae_lens.load(written(tmp_path / "t", "standard", architecture="jumprelu"))
    with pytest.raises(CorruptFile, match="of shape .20, 7., but it has shape .20, 6."):
        sae_lens.load(written(tmp_path / "u", "standard", d_in=7))
    with pytest.raises(BadValue, match="at most d_sae = 20"):
        sae_lens.load(written(tmp_path / "v", "topk", k=21))
    with pytest.raises(MissingFile, match="No SAELens config"):
        sae_lens.load(tmp_path / "nothing")
    (tmp_path / "t" / "cfg.json").write_text("{")
    with pytest.raises(CorruptFile, match="should be JSON"):
        sae_lens.load(tmp_path / "t")
    for kind in ("topk", "gated"):
        with pytest.raises(Incompatible, match=f"no {kind} transcoders"):
            sae_lens.save(tmp_path / "w", shaken(kind, "transcoder"))


def test_a_fold_left_out_before_writing_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sae_lens, "folded", lambda d: d)
    d: Dictionary = shaken("jumprelu")
    x = d.input.undo(rows(40))
    _, y = by_their_formulas(sae_lens.save(tmp_path, d), x)
    assert float((y - d(x)).detach().abs().max()) > 0.1
