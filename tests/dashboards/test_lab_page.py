"""The live page: it shows what the model says, and everything a user can get wrong is a sentence."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboards import looks
from dashboards.panels import PANELS
from tests.dashboards.conftest import Home, tiny
from tests.dashboards.pages import box, opened, settled, texts, typed, unlabelled
from workbench.families.clip import CLIP, CLIPConfig
from workbench.lab.refs import checkpoint_of
from workbench.lab.rows import Rows
from workbench.store.runs import Store
from workbench.training.checkpoint import write

PROMPT = "The nurse said that"


@pytest.fixture
def page(home: Home) -> AppTest:
    page = opened("lab.py")
    page.text_area(key="prompt").set_value(PROMPT).run()
    return settled(page)


def errors(page: AppTest) -> str:
    return " ".join(error.value for error in settled(page).error).replace("\\", "")


def table(page: AppTest, alt: str) -> Any:
    return next(one.value for one in page.dataframe if alt in one.proto.alt)


def test_tokens_and_next_tokens_are_the_models_own(page: AppTest) -> None:
    model = tiny()
    assert model.tokenizer is not None
    ids = model.tokenizer.encode(PROMPT, bos=True)
    assert list(table(page, "tokens with their ids")["id"]) == ids
    logits = model.run(torch.tensor([ids])).logits
    assert logits is not None
    wanted = logits[0, -1].double().softmax(-1).sort(descending=True)
    shown = table(page, "Next tokens")
    assert list(shown["token_id"]) == wanted.indices[:10].tolist()
    assert list(shown["probability"]) == pytest.approx(wanted.values[:10].tolist(), rel=1e-5)
    assert unlabelled(page) == []
    assert len(page.get("vega_lite_chart")) == 2
    assert "a row adds up to one" in texts(page)
    heads = [one.value for one in page.header]
    assert heads == ["Tokens", "Next token", "Attention", "Attribution"], "whichever is computed first"
    assert not [one for one in page.dataframe if "Attention weights" in one.proto.alt], "a closed fold is neither made nor sent"


@pytest.mark.slow
def test_layer_and_head_choose_the_pattern(page: AppTest) -> None:
    model = tiny()
    assert model.tokenizer is not None
    ids = torch.tensor([model.tokenizer.encode(PROMPT, bos=True)])
    page.session_state["attention-table"] = True
    page.selectbox(key="layer").select_index(1).run()
    page.selectbox(key="head").select_index(1).run()
    shown = table(settled(page), "Attention weights").fillna(0.0).to_numpy()
    wanted = model.run(ids, capture="blocks.1.attn.hook_pattern")["blocks.1.attn.hook_pattern"][0, 1]
    assert torch.allclose(torch.tensor(shown, dtype=torch.float32), wanted, atol=1e-6)


@pytest.mark.slow
def test_attribution_shows_gap_steps_and_baseline(page: AppTest) -> None:
    said = texts(page).replace("\\", "")
    assert "the completeness gap is" in said
    assert "steps" in said
    assert "Baseline: content tokens replaced" in said
    assert page.code[0].value.startswith("workbench probe integrated-gradients --model run:")
    page.selectbox(key="baseline").select_index(1).run()
    assert "Baseline: the zero embedding" in texts(settled(page)).replace("\\", "")
    box(page, "Foil").select_index(0).run()
    assert "quantity=logit " in page.code[0].value + " "
    assert not page.error


@pytest.mark.slow
def test_a_default_follows_the_model_and_a_choice_stays(page: AppTest) -> None:
    first = box(page, "Target").value
    page.text_area(key="prompt").set_value("The baker").run()
    assert box(settled(page), "Target").value == box(page, "Target").options[0]
    typed(page, "Target", "·nurse")
    page.text_area(key="prompt").set_value(PROMPT).run()
    assert box(settled(page), "Target").value == "·nurse" != first
    assert errors(page) == ""


def test_an_empty_prompt_is_a_sentence(page: AppTest) -> None:
    page.text_area(key="prompt").set_value("").run()
    assert errors(page) == "the prompt is '', but it must be of at least one character. Type a sentence."
    page.text_area(key="prompt").set_value(PROMPT).run()
    assert errors(page) == ""


def test_a_long_prompt_is_a_sentence(page: AppTest) -> None:
    page.text_area(key="prompt").set_value("The nurse said that " * 30).run()
    assert "at most 64 tokens, this model's context. Shorten it." in errors(page)
    assert page.text_area(key="prompt").proto.query_param_key == "prompt"
    page.text_area(key="prompt").set_value("The nurse said that " * 2000).run()
    assert "at most 64 tokens" in errors(page)
    page.run()
    assert not page.text_area(key="prompt").proto.query_param_key, "an address with it could not be opened again"


@pytest.mark.slow
def test_a_target_or_foil_that_cannot_be_meant_is_a_sentence(page: AppTest) -> None:
    typed(page, "Target", "·that")
    for label, value, words in (
        ("Foil", "·that", "different from the item's target"),
        ("Foil", "·nonsense", "the foil is ' nonsense', but it must be one token"),
        ("Target", "·nonsense", "the target is ' nonsense', but it must be one token"),
    ):
        typed(page, label, value)
        assert words in errors(page)
        assert len(page.get("vega_lite_chart")) == 1, "the rest of the page is still there"


def test_a_model_that_is_not_there_is_a_sentence(page: AppTest) -> None:
    for ref, words in (
        ("nowhere/checkpoint", "No model checkpoint at 'nowhere/checkpoint'"),
        ("run:nonsense", "There is no run 'nonsense'"),
        ("organism:town@seed=4711", "Training takes minutes: run `workbench models show organism:town@seed=4711` first"),
        ("organism:twon", "There is no organism 'twon'"),
        ("hf:gpt2", "No published model at"),
        ("[a](b):c", "No model checkpoint at '[a](b):c'"),
    ):
        typed(page, "Model", ref)
        assert words in errors(page)
        assert not page.get("vega_lite_chart")


@pytest.mark.slow
def test_a_folder_can_be_typed_and_new_weights_in_it_are_seen(page: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine", tiny(seed=1))
    typed(page, "Model", str(tmp_path / "mine"))
    assert "inside a folder that the dashboard may open" in errors(page), "nobody has allowed it yet"
    monkeypatch.setenv("WORKBENCH_FOLDERS", str(tmp_path))
    write(tmp_path / "mine", tiny(seed=1))
    typed(page, "Model", str(tmp_path / "mine"))
    assert errors(page) == ""
    first = table(page, "Next tokens")
    write(tmp_path / "mine", tiny(seed=2))
    typed(page, "Model", str(tmp_path / "mine"))
    assert not first.equals(table(settled(page), "Next tokens"))


@pytest.mark.slow
def test_without_a_store_a_folder_can_still_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("WORKBENCH_FOLDERS", str(tmp_path))
    page = opened("lab.py")
    assert "There is no trained model" in page.info[0].value
    write(tmp_path / "mine", tiny())
    page.text_area(key="prompt").set_value(PROMPT).run()
    typed(page, "Model", str(tmp_path / "mine"))
    assert errors(page) == ""
    assert len(page.get("vega_lite_chart")) == 2
    assert not (tmp_path / "none").exists()


def test_hostile_words_stay_words(page: AppTest) -> None:
    page.text_area(key="prompt").set_value("![x](http://h/y) <b>\x00\u202e").run()
    assert "![x]" not in "".join(one.value for one in (*page.markdown, *page.caption, *page.error))
    assert not page.exception


@pytest.mark.slow
def test_a_caption_without_a_picture_is_said_to_wait_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = CLIP.tiny()
    pairs = replace(batch, pixels=batch.pixels[:, :1].repeat(1, 3, 1, 1))
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    with Store.open(tmp_path) as store:
        trained = store.runs.create("train", {"name": "pairs"}, "recipe:pairs")
        write(checkpoint_of(store, trained) / "final", CLIP(CLIPConfig.parse({**model.config.model_dump(), "channels": 3})))
        store.runs.finish(trained)
    monkeypatch.setattr("dashboards.panels.PANELS", dict.fromkeys(PANELS, lambda ref, what: None))
    monkeypatch.setattr(looks, "rows_of", lambda ref, fingerprint: Rows("rows of a test", 3, "", pairs))
    page = opened("lab.py")
    assert errors(page) == ""
    before = table(page, "Answers")
    assert not [one.value for one in page.info if "file of your own" in one.value]
    page.text_area(key="captions").set_value("3 11 20").run()
    (said,) = [one.value for one in settled(page).info if "file of your own" in one.value]
    assert said == "What you typed is used beside a file of your own. There is none yet, so the held-out row is shown, with its own texts."
    assert table(page, "Answers").equals(before)
    drawn = io.BytesIO()
    Image.new("RGB", (6, 4), (200, 30, 30)).save(drawn, "PNG")
    page.file_uploader(key="own").set_value(("mine.png", drawn.getvalue(), "image/png")).run()
    assert not [one.value for one in settled(page).info if "file of your own" in one.value]
    assert errors(page) == ""
    assert len(table(page, "Answers")) == 1, "the typed caption alone"
