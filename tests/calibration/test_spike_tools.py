"""What can be asked in place follows from a tool's kind and the model; what cannot is named with its reason, before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.calibration import spike
from workbench.calibration.exams.places import ATTRIBUTIONS
from workbench.calibration.spike_direction import READERS
from workbench.calibration.spikes import SPIKES
from workbench.cli.main import main
from workbench.core.errors import BadValue, Incompatible, UnknownName
from workbench.data.text import BPETokenizer
from workbench.families.bert import BERT, BERTConfig
from workbench.families.gpt import GPT, GPTConfig
from workbench.lab import spike as lab
from workbench.lab.calibrate import Calibrated
from workbench.store.runs import Store


def texts(count: int = 2200) -> list[str]:
    draw = np.random.default_rng(0)
    words = ["".join(draw.choice(list("abcdefghijklmnop"), 4)) for _ in range(400)]
    return [" ".join(draw.choice(words, 12)) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return BPETokenizer.train(texts(400), 500)


@pytest.fixture(scope="module")
def decoder(tokenizer: BPETokenizer) -> GPT:
    config = GPTConfig(n_layers=2, d_model=32, n_heads=4, d_vocab=tokenizer.vocab_size, n_ctx=48, init_std=0.3)
    return GPT(config, tokenizer, seed=0).eval()


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...]]]:
    """What would be carried out: exam and tools, nothing of which is."""
    out: list[tuple[str, tuple[str, ...]]] = []

    def instead(one: Any, model: Any, name: str, **how: Any) -> Calibrated:
        out.append((one.exam.name, one.tools))
        return Calibrated("", (), ())

    monkeypatch.setattr(lab, "_carried_out", instead)
    return out


def test_the_kind_of_a_tool_is_read_off_its_result() -> None:
    assert all(spike.takes(name) for name in (*ATTRIBUTIONS, "deep-lift"))
    others = ("generation-attribution", "data-attribution", "explanation-quality", "logit-lens", "exposure")
    assert not any(spike.takes(name) for name in others)


def test_a_decoder_is_asked_everything_that_something_is_planted_for(decoder: GPT) -> None:
    found = lab.askable(decoder)
    assert set(ATTRIBUTIONS) <= set(found["token"])
    assert all(spike.takes(name) for name in found["token"])
    assert found["direction"] == tuple(READERS)
    assert found["canaries"] == ("exposure", "membership")
    assert all(lab.why_not(tool, decoder) == "" for tools in found.values() for tool in tools)


def test_an_encoder_without_logits_is_asked_probes_alone(decoder: GPT) -> None:
    config = BERTConfig(n_layers=2, d_model=32, n_heads=4, d_vocab=decoder.config.d_vocab, n_ctx=16, head="none")
    encoder = BERT(config, decoder.tokenizer, seed=0)
    assert lab.askable(encoder) == {"direction": ("probing",)}
    assert "does not offer logits" in lab.why_not("concept-direction", encoder)
    assert "a decoder of tokens is needed, and this is a bert model" in lab.why_not("exposure", encoder)


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("logit-lens", "it is scored on organisms: `workbench calibrate logit-lens --exam directions`"),
        ("winobias", "it is scored on organisms: `workbench calibrate winobias --exam suites`"),
        ("perplexity", "no exam scores it yet"),
    ],
)
def test_why_a_tool_cannot_be_asked_is_said(decoder: GPT, tool: str, words: str) -> None:
    assert lab.why_not(tool, decoder) == f"nothing that it looks for is planted into a model at hand, {words}"


def test_a_tool_that_was_named_and_cannot_be_asked_is_refused(decoder: GPT, tmp_path: Path, begun: list[Any]) -> None:
    store = Store.open(tmp_path / "home")
    with pytest.raises(Incompatible) as caught:
        lab.spike_in(decoder, ["occlusion", "logit-lens"], store=store, data=texts())
    assert "logit-lens: nothing that it looks for is planted" in str(caught.value)
    assert "occlusion: " not in str(caught.value)
    known = lab.askable(decoder)
    can = [f"about canaries {', '.join(known['canaries'])}", f"about a direction {', '.join(known['direction'])}"]
    assert f"What can be asked of copies of it: {'; '.join(can)}; about a token {', '.join(known['token'])}." in str(caught.value)
    with pytest.raises(UnknownName, match="no instrument, suite or plan 'exposur' that can be asked of copies of this model.*exposure"):
        lab.spike_in(decoder, ["exposur"], store=store, data=texts())
    with pytest.raises(BadValue, match="settings.*given for one plant at a time"):
        lab.spike_in(decoder, ["occlusion", "probing"], store=store, data=texts(), settings={"window": 8})
    assert not begun
    assert store.runs.list() == ()


def test_of_a_plan_all_is_asked_that_can_be_and_the_rest_is_named(decoder: GPT, tmp_path: Path, begun: list[Any]) -> None:
    store = Store.open(tmp_path / "home")
    done = lab.spike_in(decoder, ["town"], store=store, data=texts())
    assert begun == [("spike-canaries", ("exposure",)), ("spike-direction", ("probing",)), ("spike", ("integrated-gradients",))]
    left = dict(words.split(": ", 1) for words in done.left_out)
    suites, instruments = {"occupation-pronoun", "trigger", "perplexity", "crows-pairs"}, {"head-scores", "attention-pattern"}
    assert set(left) == {*suites, *instruments, "attention-rollout"}
    own = tmp_path / "own.yaml"
    own.write_text("name: own\nmodel: run:last\nsuites: [membership, winobias]\n", encoding="utf-8")
    begun.clear()
    done = lab.spike_in(decoder, [str(own), "saliency"], store=store, data=texts())
    assert done.left_out == (f"winobias: {lab.why_not('winobias', decoder)}",)
    assert begun == [("spike-canaries", ("membership",)), ("spike", ("saliency",))]
    with pytest.raises(Incompatible, match="crows-pairs: nothing that it looks for is planted.*What can be asked"):
        lab.spike_in(decoder, ["language-model"], store=store, data=texts())


def test_without_names_everything_is_asked_that_can_be(decoder: GPT, tmp_path: Path, begun: list[Any]) -> None:
    lab.spike_in(decoder, store=Store.open(tmp_path / "home"), data=texts())
    known = lab.askable(decoder)
    assert dict(begun) == {"spike": known["token"], "spike-direction": known["direction"], "spike-canaries": known["canaries"]}


def test_the_command_lists_what_is_planted_and_for_which_tools(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--list", "--json"]) == 0
    ways = {name: SPIKES.load(name) for name in SPIKES}
    listed = json.loads(capsys.readouterr().out)["spikes"]
    assert listed == [{"name": name, "words": SPIKES[name].words, "asks": way.asks} for name, way in ways.items()]
    assert main(["calibrate", "--list"]) == 0
    said = capsys.readouterr().out
    assert all(way.asks in said for way in ways.values())
