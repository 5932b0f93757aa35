"""CLIP of random weights: the same numbers in ours, and the same weights back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.adapters.parity import compared, patterns, same_state, shaken, streams, taken_in
from workbench.adapters import hf
from workbench.core.batch import PairBatch
from workbench.core.errors import CorruptFile, Incompatible

transformers = pytest.importorskip("transformers")

TEXT: dict[str, Any] = {
    "vocab_size": 31, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 9, "bos_token_id": None, "eos_token_id": 7, "pad_token_id": None,
}  # fmt: skip
IMAGE: dict[str, Any] = {
    "hidden_size": 20, "intermediate_size": 36, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 8, "patch_size": 4,
    "num_channels": 2,
}  # fmt: skip


def clip(dtype: torch.dtype = torch.float32, text: dict[str, Any] | None = None, image: dict[str, Any] | None = None) -> Any:
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config={**TEXT, **(text or {})}, vision_config={**IMAGE, **(image or {})}, projection_dim=12, attn_implementation="eager"
    )
    return shaken(transformers.CLIPModel(config).to(dtype))


def pairs(dtype: torch.dtype) -> PairBatch:
    """Four images and three texts, one of them padded after its end (7), one with an id above its end's."""
    tokens = torch.tensor([[3, 9, 7, 7, 7, 7], [30, 4, 5, 6, 2, 7], [1, 30, 2, 7, 11, 12]])
    mask = torch.tensor([[True] * 3 + [False] * 3, [True] * 6, [True] * 6])
    pixels = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    return PairBatch(pixels, tokens, mask)


def without_casts(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """The published attention rounds its softmax to float32 whatever its dtype; for a comparison in float64 it must not."""
    if dtype == torch.float64:
        softmax = torch.nn.functional.softmax
        monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim=dim))


def check(theirs: Any, ours: Any, dtype: torch.dtype) -> None:
    batch = pairs(dtype)
    assert batch.mask is not None
    with torch.no_grad():
        out = theirs(
            input_ids=batch.tokens, pixel_values=batch.pixels, attention_mask=batch.mask.long(),
            output_hidden_states=True, output_attentions=True,
        )  # fmt: skip
    expected = {"logits": out.logits_per_image, "text.hook_joint": out.text_embeds, "image.hook_joint": out.image_embeds}
    for tower, theirs_out in (("text", out.text_model_output), ("image", out.vision_model_output)):
        layers = getattr(ours.config, f"n_layers_{tower}")
        assert len(theirs_out.hidden_states) == layers + 1
        expected |= streams(f"{tower}.", theirs_out.hidden_states, last_is_normed=False)
        expected |= patterns(f"{tower}.", theirs_out.attentions)
        expected[f"{tower}.hook_projected"] = theirs_out.pooler_output
    compared(ours.run(batch, capture=[name for name in expected if name != "logits"]), expected, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("end", [7, 2], ids=["end token", "largest id"])
def test_clip(tmp_path: Path, dtype: torch.dtype, end: int, monkeypatch: pytest.MonkeyPatch) -> None:
    without_casts(monkeypatch, dtype)
    other = {"hidden_act": "gelu", "layer_norm_eps": 1e-4} if end == 2 else {}
    theirs = clip(dtype, {"eos_token_id": end, **other}, other)
    ours = taken_in(theirs, tmp_path / "theirs")
    assert ours.config.eos_id == (None if end == 2 else 7)
    # With the largest id, the padded text would be read at a real token and the others at 30: all are real.
    check(theirs, ours, dtype)
    same_state(theirs, ours, tmp_path / "back")
    check(theirs, hf.load(tmp_path / "back"), dtype)


def test_the_loss_is_theirs_a_pair(tmp_path: Path) -> None:
    theirs = clip()
    ours = taken_in(theirs, tmp_path)
    batch = pairs(torch.float32)
    batch = PairBatch(batch.pixels[:3], batch.tokens)
    with torch.no_grad():
        expected = theirs(input_ids=batch.tokens, pixel_values=batch.pixels, return_loss=True).loss
        total, count = ours.loss(batch)
    assert abs(float(total / count) - float(expected)) < 2e-6


def edited(folder: Path, tower: str = "", **changes: Any) -> Path:
    """The folder with its config, or that of one tower, changed."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    (config[tower] if tower else config).update(changes)
    path.write_text(json.dumps(config))
    return folder


def test_the_form_of_older_files(tmp_path: Path) -> None:
    """What ``…_config_dict`` repeats counts, the rest of it by default; fields of generation change nothing."""
    theirs = clip()
    theirs.save_pretrained(tmp_path)
    edited(tmp_path, "text_config", num_hidden_layers=9, num_beam_groups=1, tie_encoder_decoder=False)
    edited(tmp_path, text_config_dict=TEXT, vision_config_dict=None)
    check(theirs, hf.load(tmp_path), torch.float32)


@pytest.mark.parametrize(
    ("tower", "changes", "words"),
    [
        ("text_config", {"hidden_act": "tanh"}, r"text_config.*hidden_act='tanh' is not handled"),
        ("text_config", {"hidden_act": "gelu"}, "towers that differ in activation or norm"),
        ("text_config", {"eos_token_id": [7, 8]}, r"eos_token_id=\[7, 8\] is not handled"),
        ("text_config", {"is_decoder": True}, "is_decoder=True is not handled"),
        ("vision_config", {"a_new_switch": 3}, r"vision_config.*a_new_switch=3 is not handled"),
        ("vision_config", {"image_size": [8, 8]}, r"image_size=\[8, 8\] is not handled"),
        ("", {"a_new_switch": 3}, "a_new_switch=3 is not handled"),
        ("", {"architectures": ["CLIPForImageClassification"]}, "CLIPForImageClassification"),
    ],
)
def test_a_field_that_is_not_handled_is_refused_by_name(tmp_path: Path, tower: str, changes: dict[str, Any], words: str) -> None:
    clip().save_pretrained(tmp_path)
    hf.load(tmp_path)
    with pytest.raises(Incompatible, match=words):
        hf.load(edited(tmp_path, tower, **changes))


def test_weights_that_are_not_the_configs_are_refused(tmp_path: Path) -> None:
    clip().save_pretrained(tmp_path)
    with pytest.raises(CorruptFile, match=r"'vision_model\.encoder\.layers\.2\..*' is unexpected"):
        hf.load(edited(tmp_path, "vision_config", num_hidden_layers=2))


def test_a_model_that_was_never_published_says_why(tmp_path: Path) -> None:
    ours = taken_in(clip(), tmp_path / "in")
    ours.config = type(ours.config).parse({**ours.config.model_dump(), "width": 16, "eos_id": 2})
    with pytest.raises(Incompatible, match=r"its images are 8 x 16, not square, its end id is 2"):
        hf.save(ours, tmp_path / "out")
