"""Published models in and out through the lab and the command: what goes in comes out, and nothing is written over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.adapters.test_hf_gpt import gpt2
from tests.engine.models import words
from workbench.core.errors import BadValue, Incompatible, MissingFile
from workbench.core.measure import Loglikelihood
from workbench.engine.score import loglikelihoods
from workbench.families.gpt import GPT, GPTConfig
from workbench.lab.exchange import export_folder, import_folder
from workbench.lab.refs import load
from workbench.training.checkpoint import write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("published")
    gpt2().save_pretrained(place)
    return place


def test_a_published_folder_comes_in_and_goes_out_again(folder: Path, tmp_path: Path) -> None:
    found = import_folder(str(folder), str(tmp_path / "ours"))
    again = export_folder(str(tmp_path / "ours"), str(tmp_path / "theirs"))
    assert found["digest"] == again["digest"] == load(f"hf:{tmp_path / 'theirs'}").digest()
    assert found["family"] == "gpt"
    ids = torch.arange(9)[None]
    there, here = load(f"hf:{folder}").run(ids).logits, load(str(tmp_path / "ours")).run(ids).logits
    assert there is not None
    assert here is not None
    assert torch.equal(there, here)


def test_nothing_is_written_over(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(BadValue, match="not there yet"):
        import_folder(str(folder), str(tmp_path / "there"))
    with pytest.raises(BadValue, match="not there yet"):
        export_folder("family:gpt", str(tmp_path / "there"))


def test_what_is_not_there_and_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="No published model at 'no/such-model'"):
        load("hf:no/such-model")
    with pytest.raises(Incompatible, match="its positions is 'rope'"):
        export_folder("family:gpt", str(tmp_path / "out"), "gpt2")
    with pytest.raises(Incompatible, match="'bert' is not built from this family"):
        export_folder("family:gpt", str(tmp_path / "out"), "bert")
    with pytest.raises(Incompatible, match="this endpoint model: no published architecture is built from this family"):
        export_folder("endpoint:m@http://127.0.0.1:9/v1", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_model_card_is_no_model(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(MissingFile, match="weights in safetensors"):
        load(f"hf:{tmp_path}")


def test_the_tokenizer_goes_out_with_the_model_and_comes_in_again(tmp_path: Path) -> None:
    ours = GPT(GPTConfig(n_layers=1, d_model=16, n_heads=2, d_vocab=words().vocab_size, n_ctx=32, norm="rms", act="swiglu"), words()).eval()
    write(tmp_path / "ours", ours)
    export_folder(str(tmp_path / "ours"), str(tmp_path / "theirs"))
    again = load(f"hf:{tmp_path / 'theirs'}")
    assert again.tokenizer is not None
    assert again.tokenizer.encode("the cat sat") == words().encode("the cat sat")
    asked = [Loglikelihood("the cat", (" sat", " here"))]
    assert dict(loglikelihoods(again, asked)) == dict(loglikelihoods(ours, asked))
