"""What the live page asks (``lab.live``): the same answers as the recorded entry, and refusals before anything is computed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.dashboards.conftest import Home, tiny
from workbench.core.charts.heat import shown
from workbench.core.errors import BadValue, Incompatible, MissingFile, StoreError, UnknownName
from workbench.core.result import Result
from workbench.core.sites import SiteTable
from workbench.families.gpt import GPT, GPTConfig
from workbench.lab import live
from workbench.lab.run import probe
from workbench.store.runs import Store
from workbench.training.checkpoint import write

PROMPT = "The nurse said that"


@pytest.mark.slow
def test_a_look_is_what_the_recorded_entry_says_but_leaves_no_run(tmp_path: Path) -> None:
    store, model = Store.open(tmp_path / "home"), tiny()
    before = len(store.runs.list())
    asked: dict[str, Any] = {"quantity": "logit-difference", "baseline": "unknown-token"}
    look = live.ask(model, live.ATTRIBUTION, PROMPT, target=" that", foil=" for", **asked)
    assert len(store.runs.list()) == before
    recorded = probe(live.ATTRIBUTION, model, {"texts": [PROMPT], "targets": [" that"], "foils": [" for"]}, store=store, **asked)
    assert look.digest() == recorded.digest()
    store.close()


def test_next_tokens_are_the_softmax_and_survive_json() -> None:
    model = tiny()
    found = live.next_tokens(model, PROMPT, most=7)
    ids = torch.tensor([live.tokens_of(model, PROMPT).ids])
    logits = model.run(ids).logits
    assert logits is not None
    wanted = logits[0, -1].double().numpy()
    wanted = np.exp(wanted - wanted.max()) / np.exp(wanted - wanted.max()).sum()
    order = np.argsort(-wanted, kind="stable")[:7]
    assert found.values.token_id.values.tolist() == order.tolist()
    np.testing.assert_allclose(found.values.probability.values, wanted[order], rtol=1e-6)
    assert float(found.values.rest) == pytest.approx(1 - wanted[order].sum(), abs=1e-6)
    assert float(found.values.entropy) == pytest.approx(-(wanted * np.log2(wanted)).sum(), rel=1e-6)
    assert Result.from_json(found.to_json()).digest() == found.digest()
    assert "8 bits" not in found.summary()
    assert found.plot().to_dict()["description"].startswith("Most likely next: ")


@pytest.mark.slow
def test_answers_can_all_be_asked_about() -> None:
    model = tiny()
    found = live.next_tokens(model, PROMPT, most=40)
    answers = live.answers(model, PROMPT, found)
    assert 0 < len(answers) < 40, "tokens that are part of a character cannot be typed"
    assert live.ask(model, live.ATTRIBUTION, PROMPT, target=answers[-1]).values.target_id.item() in found.values.token_id.values


@pytest.mark.parametrize("token", [" she", "she", "  ", "a b", "\n", "\tx ", " é"])
def test_a_token_is_read_back_as_it_is_shown(token: str) -> None:
    assert live.typed_token(shown(token)) == token
    assert live.typed_token(" she") == " she"


@pytest.mark.parametrize("most", [0, -1, 10_000])
def test_how_many_must_be_possible(most: int) -> None:
    with pytest.raises(BadValue, match="the number of next tokens"):
        live.next_tokens(tiny(), PROMPT, most=most)


def test_prompts_that_cannot_be_asked() -> None:
    with pytest.raises(BadValue, match="of at least one character"):
        live.tokens_of(tiny(), "")
    with pytest.raises(BadValue, match="at most 64 tokens, this model's context"):
        live.ask(tiny(), live.ATTENTION, PROMPT * 30)
    with pytest.raises(UnknownName, match="There is no field 'layer'"):
        live.ask(tiny(), live.ATTENTION, PROMPT, layer=0)


def test_choices_are_what_can_be_opened(home: Home, tmp_path: Path) -> None:
    with Store.open(shutil.copytree(home.folder, tmp_path / "mine")) as store:
        store.runs.finish(store.runs.create("eval", {"model": "organism:town@seed=77"}, "organism:town@seed=77"))
        store.runs.finish(store.runs.create("eval", {}, "organism:of-an-earlier-version"))
        store.runs.finish(store.runs.create("train", {}, "recipe:never-saved"), "failed")
        assert [choice.ref for choice in live.choices(store)] == [f"run:{home.trained}"]
        with pytest.raises(MissingFile, match=r"Training takes minutes: run `workbench models show organism:town@seed=77` first"):
            live.fingerprint("organism:town@seed=77", store)


def test_a_half_trained_organism_is_not_opened(tmp_path: Path) -> None:
    """Loading it would go on training it."""
    with Store.open(tmp_path / "home") as store:
        place = live._folder("organism:town@seed=77", store)
        write(place.parent / "step-00000001", tiny())
        with pytest.raises(MissingFile, match="Training takes minutes"):
            live.fingerprint("organism:town@seed=77", store)
        write(place, tiny())
        assert len(live.fingerprint("organism:town@seed=77", store)) == 64


def test_a_fingerprint_changes_with_the_weights(tmp_path: Path) -> None:
    write(tmp_path / "a", tiny(seed=1))
    first = live.fingerprint(str(tmp_path / "a"), None)
    assert first == live.fingerprint(str(tmp_path / "a"), None)
    write(tmp_path / "a", tiny(seed=2))
    assert first != live.fingerprint(str(tmp_path / "a"), None)
    with pytest.raises(MissingFile, match="No model checkpoint"):
        live.fingerprint(str(tmp_path / "b"), None)
    with pytest.raises(StoreError, match="there is none"):
        live.fingerprint("run:last", None)


def test_shapes_and_models_without_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    assert live.shape_of(tiny()) == live.Shape((0, 1), 2, 64)
    model = tiny()
    monkeypatch.setattr(model, "sites", lambda: SiteTable(()))
    with pytest.raises(Incompatible, match="the live page"):
        live.shape_of(model)


def test_the_tables_hold_the_results_numbers() -> None:
    model = tiny()
    found = live.ask(model, live.ATTENTION, PROMPT, layers=(1,), heads=(1,))
    table = live.attention_table(found)
    assert table.shape == (5, 5)
    np.testing.assert_allclose(np.nansum(table.to_numpy(), axis=1), 1.0, atol=1e-6)
    assert np.isnan(table.to_numpy()[np.triu_indices(5, 1)]).all()
    moved = live.ask(model, live.ATTRIBUTION, PROMPT, target=" that")
    rows = live.attribution_table(moved)
    assert rows["token"].tolist() == ["<|bos|>", "The", "·nurse", "·said", "·that"]
    said = " ".join(live.completeness(moved))
    assert f"{rows['attribution'].sum():.4g}" in said
    assert "completeness gap" in said


def test_a_model_without_a_tokenizer_is_refused() -> None:
    with pytest.raises(Exception, match="has no tokenizer"):
        live.tokens_of(GPT(GPTConfig(n_layers=1, d_model=8, n_heads=1, d_vocab=11, n_ctx=8)), "x")


def test_the_command_that_asks_again_can_be_typed() -> None:
    words = live.again(live.ATTENTION, "run:1", "it's $HOME", layers=(1,), heads=(0, 1))
    assert words == "workbench probe attention-pattern --model run:1 --text 'it'\"'\"'s $HOME' --set 'layers=[1]' --set 'heads=[0, 1]'"


@pytest.mark.parametrize(
    ("allowed", "machine", "had", "left"),
    [({5}, 8, 8, 1), ({0, 3, 5}, 8, 8, 2), ({0, 1, 2, 3}, 8, 2, 2), (None, 4, 4, 3), (None, None, 4, 1)],
)
def test_a_core_is_left_of_those_that_this_process_may_run_on(
    allowed: set[int] | None, machine: int | None, had: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if allowed is None:  # a system that does not tell
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    else:
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: allowed, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    monkeypatch.setattr(torch, "get_num_threads", lambda: had)
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    live.leave_a_core()
    assert told == [left]
