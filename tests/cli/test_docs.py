"""The page on model references: what it says to type does what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from evals import SUITES
from tests.cli.conftest import Call
from workbench.adapters.endpoint import EndpointConfig
from workbench.lab.recipe import read
from workbench.lab.refs import SCHEMES
from workbench.lab.run import train
from workbench.lab.settings import overlay, read_settings
from workbench.store.runs import Store

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
SHORT = {
    "text": {"source": "", "file": "text.txt", "length": 32}, "train": {"steps": 2, "warmup": 1}, "model": {"n_layers": 1, "n_ctx": 32},
}  # fmt: skip
TEXT = "the cat sat on the mat and the dog saw it. " * 60


def test_every_form_of_reference_and_every_option_is_on_the_page() -> None:
    assert [name for name in SCHEMES if f"`{name}:" not in PAGE] == []
    options = [name for name in EndpointConfig.model_fields if name not in ("model", "url")]
    assert [name for name in options if f"`{name}`" not in PAGE] == []
    for name, field in EndpointConfig.model_fields.items():
        (row,) = re.findall(rf"^\| [^|]*`{name}`[^|]*\|([^|]*)\|", PAGE, re.MULTILINE) or [""]
        if isinstance(field.default, int | float) and not isinstance(field.default, bool) and row:
            assert f"{field.default:g}" in row, name
    assert get_args(EndpointConfig.model_fields["length_field"].annotation)[1] in PAGE


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_commands_of_the_page_work(call: Call, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, but for the training, which is a moment of the same recipe on another text, and the evaluation on its text."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    lines = [line for block in BLOCKS for line in block.splitlines()]
    assert len(lines) == 10
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "workbench"
        settings = read_settings(words[number] for number in range(1, len(words)) if words[number - 1] == "--set")
        if words[1] == "train":
            with Store.open(home) as store:
                train(read(words[2], overlay(settings, SHORT)), store=store)
        elif words[1] == "eval":
            SUITES.load(words[2]).spec.parse(settings)
        else:
            said = call(*words[1:])
            assert said.code == 0, f"{line}: {said.err}"
    assert (tmp_path / "theirs" / "tokenizer.json").is_file()
