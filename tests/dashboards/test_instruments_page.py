"""The page of all instruments: it asks what the command asks, and what a user can get wrong is a sentence."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from probes import INSTRUMENTS
from tests.dashboards.conftest import Home, tiny
from tests.dashboards.pages import box, opened, settled, texts, unlabelled
from workbench.core.protocol import Inputs
from workbench.lab import live

PROMPT, TWIN = "The nurse said that", "The pilot said that"


@pytest.fixture
def page(home: Home) -> AppTest:
    page = opened("instruments.py")
    page.text_area(key="prompt").set_value(PROMPT)
    page.text_area(key="corrupt").set_value(TWIN)
    return settled(page.run())


def errors(page: AppTest) -> str:
    return " ".join(error.value for error in settled(page).error).replace("\\", "")


def asked(page: AppTest) -> AppTest:
    page.button(key="ask").click()
    return settled(page.run())


def table(page: AppTest) -> Any:
    return next(one.value for one in page.dataframe if "All numbers" in one.proto.alt)


def test_nothing_is_computed_until_asked_and_then_it_is_the_instruments_own(page: AppTest) -> None:
    assert "Nothing is computed until you ask." in texts(page)
    assert not page.dataframe
    assert unlabelled(page) == []
    asked(page)
    model = tiny()
    assert model.tokenizer is not None
    clean, corrupt = ([model.tokenizer.encode(text, bos=True)] for text in (PROMPT, TWIN))
    assert len(clean[0]) == len(corrupt[0])
    target = int(live.next_tokens(model, PROMPT).values.token_id[0])
    tool = INSTRUMENTS.load("activation-patching")
    wanted = tool(model, Inputs(torch.tensor(clean), reference=torch.tensor(corrupt), targets=torch.tensor([target])))
    shown = table(page)
    assert np.allclose(shown["value"], wanted.to_frame()["value"], rtol=1e-5, atol=1e-6)
    command = shlex.split(page.code[0].value)
    assert command[:3] == ["workbench", "probe", "activation-patching"]
    assert f"inputs.corrupt={TWIN}" in command
    assert len(page.get("vega_lite_chart")) == 1
    page.text_area(key="prompt").set_value(PROMPT + " she").run()
    assert "Nothing is computed until you ask." in texts(page)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attribution-patching", "direct-logit-attribution", "logit-lens", "composition-scores", "value-norms"])
def test_other_instruments_answer_too(page: AppTest, name: str) -> None:
    box(page, "Instrument").set_value(name)
    settled(page.run())
    asked(page)
    assert not page.error, errors(page)
    assert len(table(page)) > 0
    assert name in page.code[0].value


def test_settings_are_told_and_mistakes_are_sentences(page: AppTest) -> None:
    page.text_input(key="activation-patching.components").set_value("[z]").run()
    asked(page)
    assert set(table(page)["component"]) == {"z"}
    assert "components=[z]" in page.code[0].value
    page.text_input(key="activation-patching.components").set_value("[zz]").run()
    assert "no component 'zz'" in errors(asked(page))
    page.text_input(key="activation-patching.components").set_value("[z").run()
    assert "cannot be read as a value of 'components'" in errors(page)
    page.text_input(key="activation-patching.components").set_value("").run()
    page.text_area(key="corrupt").set_value("The").run()
    assert "length of corrupt item 0" in errors(asked(page))
    page.text_area(key="prompt").set_value("").run()
    assert "prompt" in errors(page)
