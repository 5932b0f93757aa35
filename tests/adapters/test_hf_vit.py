"""ViT of random weights: the same numbers in ours, and the same weights back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.adapters.parity import compared, patterns, same_state, shaken, streams, taken_in
from workbench.adapters import hf
from workbench.core.errors import BadValue, CorruptFile, Incompatible

transformers = pytest.importorskip("transformers")

FIELDS: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40, "image_size": [8, 12], "patch_size": 4,
    "num_channels": 2, "num_labels": 5,
}  # fmt: skip


def config(**changes: Any) -> Any:
    return transformers.ViTConfig(**{**FIELDS, **changes}, attn_implementation="eager")


def classifier(dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    torch.manual_seed(0)
    return shaken(transformers.ViTForImageClassification(config(**changes)).to(dtype))


def base(dtype: torch.dtype = torch.float32, *, pooler: bool = True, **changes: Any) -> Any:
    torch.manual_seed(0)
    return shaken(transformers.ViTModel(config(**changes), add_pooling_layer=pooler).to(dtype))


def images(dtype: torch.dtype, height: int = 8, width: int = 12, channels: int = 2) -> torch.Tensor:
    return torch.randn(3, channels, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def without_casts(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """The published attention rounds its softmax to float32 whatever its dtype; for a comparison in float64 it must not."""
    if dtype == torch.float64:
        softmax = torch.nn.functional.softmax
        monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim=dim))


def check(theirs: Any, ours: Any, dtype: torch.dtype, pixels: torch.Tensor) -> None:
    with torch.no_grad():
        out = theirs(pixels, output_hidden_states=True, output_attentions=True)
    assert len(out.hidden_states) == ours.config.n_layers + 1
    expected = streams("", out.hidden_states, last_is_normed=False) | patterns("", out.attentions)
    if hasattr(out, "logits"):
        expected["logits"] = out.logits
    else:
        expected["unembed.hook_in"] = out.last_hidden_state
    if getattr(out, "pooler_output", None) is not None:
        expected["pooler.hook_post"] = out.pooler_output
    compared(ours.run(pixels, capture=[name for name in expected if name != "logits"]), expected, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "changes", [{}, {"image_size": 8, "qkv_bias": False, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5}], ids=["oblong", "square"]
)
def test_the_classifier(tmp_path: Path, dtype: torch.dtype, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    without_casts(monkeypatch, dtype)
    theirs = classifier(dtype, **changes)
    ours = taken_in(theirs, tmp_path / "theirs")
    pixels = images(dtype, width=8 if changes else 12)
    check(theirs, ours, dtype, pixels)
    same_state(theirs, ours, tmp_path / "back")
    check(theirs, hf.load(tmp_path / "back"), dtype, pixels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_base_model_with_its_pooler(tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    without_casts(monkeypatch, dtype)
    theirs = base(dtype)
    ours = taken_in(theirs, tmp_path / "theirs")
    assert "logits" not in ours.abilities
    check(theirs, ours, dtype, images(dtype))
    same_state(theirs, ours, tmp_path / "back")


def test_the_base_model_without_its_pooler(tmp_path: Path) -> None:
    theirs = base(pooler=False)
    ours = taken_in(theirs, tmp_path)
    assert not ours.config.pooler
    check(theirs, ours, torch.float32, images(torch.float32))


def test_the_names_of_the_classes_come_along(tmp_path: Path) -> None:
    names = {0: "cat", 1: "dog", 2: "a horse"}
    ours = taken_in(classifier(num_labels=3, id2label=names, label2id={n: i for i, n in names.items()}), tmp_path / "theirs")
    assert ours.config.class_names == ("cat", "dog", "a horse")
    hf.save(ours, tmp_path / "back")
    assert transformers.ViTConfig.from_pretrained(tmp_path / "back").id2label == names


def edited(folder: Path, **changes: Any) -> Path:
    """The folder with its config changed."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch_size": [4, 2]}, r"patch_size=\[4, 2\] is not handled"),
        ({"hidden_act": "tanh"}, "hidden_act='tanh' is not handled"),
        ({"head_dim": 3}, "head_dim=3 is not handled"),
        ({"problem_type": "multi_label_classification"}, "problem_type='multi_label_classification'"),
        ({"id2label": {"0": "a", "2": "b"}}, r"numbers \[0, 2\] is not handled"),
        ({"architectures": ["ViTForMaskedImageModeling"]}, "ViTForMaskedImageModeling"),
    ],
)
def test_a_field_that_is_not_handled_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    classifier().save_pretrained(tmp_path)
    hf.load(tmp_path)
    with pytest.raises(Incompatible, match=words):
        hf.load(edited(tmp_path, **changes))


def test_a_pooler_of_another_kind_is_refused(tmp_path: Path) -> None:
    base(pooler_act="relu", pooler_output_size=7).save_pretrained(tmp_path)
    with pytest.raises(Incompatible, match=r"pooler_output_size=7 is not handled.*pooler_act='relu' is not handled"):
        hf.load(tmp_path)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    classifier().save_pretrained(tmp_path)
    with pytest.raises(BadValue, match="the tokenizer.*reads no text"):
        hf.load(tmp_path, tokenizer=object())
    with pytest.raises(CorruptFile, match="has shape"):
        hf.load(edited(tmp_path, image_size=[8, 8]))
    with pytest.raises(BadValue, match="patch must divide height and width"):
        hf.load(edited(tmp_path, image_size=[9, 12]))


def test_a_model_that_was_never_published_says_why(tmp_path: Path) -> None:
    ours = taken_in(classifier(), tmp_path / "in")
    ours.config = type(ours.config).parse({**ours.config.model_dump(), "pool": "mean"})
    with pytest.raises(Incompatible, match="its pool is 'mean', not 'class'"):
        hf.save(ours, tmp_path / "out")
    assert not (tmp_path / "out").exists()
