"""Checkpoints: whole or not at all, and believed only when verified."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.training.setting import model
from workbench.core.errors import CorruptFile, MissingFile, UnknownName, UsageError
from workbench.data.text import CharTokenizer
from workbench.families.gpt import GPT
from workbench.training import checkpoint
from workbench.training.checkpoint import load_model, pointed, read, save, write


def resign(folder: Path) -> None:
    """Make the manifest agree with what is there, as an honest tool that wrote other content would."""
    names = sorted(p.name for p in folder.iterdir() if p.name != checkpoint.MANIFEST)
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    (folder / checkpoint.MANIFEST).write_text("".join(lines))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_round_trip(tmp_path: Path, dtype: torch.dtype) -> None:
    m = GPT(model().config, CharTokenizer("abcdefghij\n")).to(dtype)
    write(tmp_path / "m", m, {"a.exp_avg": torch.ones(2)}, {"step": 3})
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "MANIFEST.sha256", "config.json", "model.safetensors", "optimizer.safetensors", "tokenizer.json", "train_state.json",
    ]  # fmt: skip
    again = load_model(tmp_path / "m")
    assert again.digest() == m.digest()
    assert not again.training
    before, after = m.run("badge").logits, again.run("badge").logits
    assert before is not None
    assert torch.equal(after, before)
    found = read(tmp_path / "m")
    assert found.train_state == {"step": 3}
    assert found.optimizer is not None
    assert torch.equal(found.optimizer["a.exp_avg"], torch.ones(2))
    manifest = (tmp_path / "m" / "MANIFEST.sha256").read_text()
    resign(tmp_path / "m")
    assert (tmp_path / "m" / "MANIFEST.sha256").read_text() == manifest
    assert not list(tmp_path.glob(".writing-*"))


def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", model()), write(tmp_path / "two", model())
    assert (one / checkpoint.MANIFEST).read_bytes() == (two / checkpoint.MANIFEST).read_bytes()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "train_state.json", "MANIFEST.sha256"])
def test_one_changed_byte_is_noticed(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "m", model()) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises((CorruptFile, MissingFile), match="sha256|checkpoint file"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "train_state.json", "MANIFEST.sha256"])
def test_a_missing_file_is_noticed(tmp_path: Path, name: str) -> None:
    (write(tmp_path / "m", model()) / name).unlink()
    with pytest.raises(MissingFile, match=name):
        load_model(tmp_path / "m")


def test_a_truncated_file_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "m", model()) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptFile, match="as its manifest says"):
        load_model(tmp_path / "m")
    resign(path.parent)
    with pytest.raises(CorruptFile, match="a safetensors file"):
        load_model(tmp_path / "m")


def test_weights_of_another_model_are_noticed(tmp_path: Path) -> None:
    for change, words in [
        (lambda w: w.pop("embed.token.weight"), r"'embed\.token\.weight' is missing"),
        (lambda w: w.update(extra=torch.ones(1)), "'extra' is unexpected"),
        (lambda w: w.update({"embed.token.weight": torch.ones(11, 15)}), r"shape \(11, 15\), not \(11, 16\)"),
    ]:
        folder = write(tmp_path / "m", model())
        weights = safetensors.torch.load((folder / "model.safetensors").read_bytes())
        change(weights)
        (folder / "model.safetensors").write_bytes(safetensors.torch.save(weights))
        resign(folder)
        with pytest.raises(CorruptFile, match=words):
            load_model(folder)


def test_configs_that_are_not_ours_are_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", model())
    plain = json.loads((folder / "config.json").read_text())
    for change, error, words in [
        ({"format": 2}, CorruptFile, "of format 1, but its format is 2"),
        ({"family": "gbt"}, UnknownName, "no family 'gbt'"),
        ({"config": {**plain["config"], "n_layer": 3}}, UnknownName, "no field 'n_layer'"),
        ({"config": {**plain["config"], "n_heads": 0}}, UsageError, "n_heads"),
    ]:
        (folder / "config.json").write_text(json.dumps(plain | change))
        resign(folder)
        with pytest.raises(error, match=words):
            load_model(folder)
    (folder / "config.json").write_text("[1]")
    resign(folder)
    with pytest.raises(CorruptFile, match="a JSON object"):
        load_model(folder)


def test_folders_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="No checkpoint folder"):
        load_model(tmp_path / "nowhere")
    write(tmp_path / "run" / "final", model())
    with pytest.raises(MissingFile, match="There are checkpoints inside it: final"):
        load_model(tmp_path / "run")


def test_keep_latest_and_best(tmp_path: Path) -> None:
    m = model()
    for step in (5, 10, 15, 20):
        save(tmp_path, m, {}, {"step": step}, keep=2)
        if step == 5:
            checkpoint.point(tmp_path, checkpoint.BEST, "step-00000005")
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000005", "step-00000015", "step-00000020"]
    assert pointed(tmp_path, "latest") == tmp_path / "step-00000020"
    assert pointed(tmp_path, "best") == tmp_path / "step-00000005"
    assert pointed(tmp_path, "worst") is None
    for text in ("step-00000099", "../outside", ""):
        (tmp_path / "latest").write_text(text)
        with pytest.raises(CorruptFile, match="the name of a checkpoint beside it"):
            pointed(tmp_path, "latest")


def test_a_crash_while_writing_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, model(), {}, {"step": 1}, keep=2)
    before = checkpoint.load_model(tmp_path / "step-00000001").digest()
    real = checkpoint._flushed
    for fails_at in range(5):
        left = [fails_at]

        def failing(path: Path, content: bytes, left: list[int] = left) -> None:
            if left[0] == 0:
                raise OSError("no space left")
            left[0] -= 1
            real(path, content)

        monkeypatch.setattr(checkpoint, "_flushed", failing)
        with pytest.raises(OSError, match="no space"):
            save(tmp_path, model(seed=1), {}, {"step": 2}, keep=2)
        monkeypatch.setattr(checkpoint, "_flushed", real)
        folder = pointed(tmp_path, "latest")
        assert folder is not None
        assert load_model(folder).digest() == before
    checkpoint.clean(tmp_path)
    assert not list(tmp_path.glob(".writing-*"))


def test_nothing_is_pickled() -> None:
    source = Path(checkpoint.__file__).parent
    words = ("pickle", "torch.load(", "torch.save(")
    found = [(p.name, w) for p in source.glob("*.py") for w in words if w in p.read_text().replace("safetensors.torch.", "safe_")]
    assert [f for f in found if f[1] != "pickle"] == []
