"""The causal lab: two prompts, a grid, a cell and the circuit between them are the library's own; unequal prompts are a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dashboards.conftest import Home, tiny
from tests.dashboards.pages import opened, settled, texts, unlabelled
from workbench.lab import swaps, wires

CLEAN, CORRUPT = "The nurse said that", "The pilot said that"


def test_an_empty_store_and_unequal_prompts_are_sentences(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened("causal.py", clean=CLEAN, corrupt="The pilot of the boat said that")
    assert "they must have equally many" in page.warning[0].value
    assert unlabelled(page) == []
    assert "there is nothing to trace" in opened("causal.py", clean=CLEAN, corrupt=CLEAN).warning[0].value
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "none"))
    assert "There is no trained model" in opened("causal.py").info[0].value


@pytest.mark.slow
def test_a_circuit_is_as_large_as_it_is_chosen(home: Home) -> None:
    page = opened("causal.py", clean=CLEAN, corrupt=CORRUPT)
    said = texts(page).replace("\\", "")
    assert swaps.aligned(tiny(), CLEAN, CORRUPT).words() in said
    assert "differ at position 2 alone: '·nurse' against '·pilot'" in said
    assert not page.get("select_slider")
    page.toggle(key="circuit").set_value(True).run()
    (slider,) = settled(page).select_slider
    words = list(slider.options)
    slider.set_value(int(words[0].split()[0])).run()
    edges = next(one.value for one in settled(page).dataframe if "edges of the circuit" in one.proto.alt)
    assert len(edges) == int(words[0].split()[0]) < int(words[-1].split()[0])
    assert wires.CIRCUITS in page.code[-1].value
    assert not page.error
    assert unlabelled(page) == []
