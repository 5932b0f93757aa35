"""Representations: what is stored is shown as the library has it, on an empty and a filled store, and a push is the library's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from probes.dictionaries.dictionary import Dictionary
from probes.dictionaries.files import save
from probes.dictionaries.spec import DictionarySpec, Origin
from tests.dashboards.conftest import TEXTS, tiny
from tests.dashboards.pages import box, opened, settled, texts, unlabelled
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import Replace
from workbench.lab import jobs, representations
from workbench.lab.refs import checkpoint_of
from workbench.lab.run import probe
from workbench.store.runs import Store
from workbench.training.checkpoint import write

PROMPT = "The nurse said that"
CLASSES = ["she" if " she " in text else "he" for text in TEXTS]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A store with a model and one result of each kind; the ids of their runs."""
    home = tmp_path_factory.mktemp("inner")
    with Store.open(home) as store:
        trained = store.runs.create("train", {"name": "tiny"}, "recipe:tiny")
        model = tiny()
        write(checkpoint_of(store, trained) / "final", model)
        store.runs.finish(trained)
        ref, site = f"run:{trained}", "blocks.0.hook_resid_post"
        d = Dictionary(DictionarySpec.parse({"kind": "topk", "d_in": 32, "d_sae": 48, "k": 4}), origin=Origin(
            model="gpt", model_digest=model.digest(), site=site))  # fmt: skip
        save(home / "dictionary", d)
        labelled = {"texts": TEXTS, "classes": CLASSES, "untrained": False}
        ids = {"ref": ref, "model": trained}
        for name, asked in {
            "probing": {"inputs": labelled, "draws": 1, "resamples": 400},
            "concept-direction": {"inputs": labelled, "resamples": 400},
            "sparse-dictionary": {
                "inputs": {"texts": TEXTS},
                "dictionary": str(home / "dictionary"),
                "site": site,
                "resamples": 400,
                "shown": 4,
            },
        }.items():
            result = probe(name, ref, asked.pop("inputs"), store=store, **asked)
            ids[name] = result.provenance.volatile["run"]
    return home, ids


@pytest.fixture
def ids(filled: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("WORKBENCH_HOME", str(filled[0]))
    return filled[1]


def test_an_empty_page_says_how_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "none"))
    page = opened("representations.py")
    assert "workbench probe probing --model REF" in texts(page)
    assert page.button(key="begin").disabled
    assert unlabelled(page) == []
    assert not (tmp_path / "none").exists(), "looking makes nothing"


@pytest.mark.slow
def test_what_is_stored_is_shown(ids: dict[str, str]) -> None:
    page = opened("representations.py", of=ids["probing"])
    assert page.query_params["of"] == f"{ids['probing']}/probing"
    with Store.open() as store:
        wanted = store.result(ids["probing"], "probing").result
    assert wanted.summary().splitlines()[1] in texts(page).replace("\\", "")
    shown = next(one.value for one in page.dataframe if "The numbers" in one.proto.alt)
    assert shown["accuracy"].fillna(-1).tolist() == wanted.to_frame()["accuracy"].fillna(-1).tolist()
    assert not page.error
    page = opened("representations.py", of="nonsense")
    assert "There is no run 'nonsense'" in page.error[0].value.replace("\\", "")


@pytest.mark.slow
def test_a_direction_is_pushed_along(ids: dict[str, str]) -> None:
    page = opened("representations.py", kind="directions", site="blocks.1.hook_resid_post", dose="2.0", prompt=PROMPT)
    assert "Pushed +2 times along" in texts(page).replace("\\", "")
    assert not page.error
    assert unlabelled(page) == []
    with Store.open() as store:
        result: Any = store.result(ids["concept-direction"], "concept-direction").result
    told: dict[str, Any] = {"site": "blocks.1.hook_resid_post", "labels": str(result.values["labels"].values[0]), "way": "difference"}
    model = tiny()
    found: Any = representations.along_direction(model, PROMPT, result, 2.0, **told)
    way = result.direction(**told) * float(result.values.separation.sel(site=told["site"], labels=told["labels"]))
    assert model.tokenizer is not None
    tokens, site = torch.tensor([model.tokenizer.encode(PROMPT, bos=True)]), told["site"]
    moved = model.run(tokens, capture=site, logits=None)[site] + 2.0 * way.float()
    logits = model.run(tokens, edit=[Replace(site, value=moved)]).logits
    assert logits is not None
    wanted = logits[0, -1].double().softmax(-1)[found.values.answer_id.values]
    assert found.values.after.values.tolist() == pytest.approx(wanted.tolist(), rel=1e-5)
    assert float(found.values.kl) > 0
    other = tiny(seed=5)
    with pytest.raises(Incompatible, match="other weights"):
        representations.along_direction(other, PROMPT, result, 2.0, **told)
    with pytest.raises(BadValue, match="the dose"):
        representations.along_direction(model, PROMPT, result, float("nan"), **told)


@pytest.mark.slow
def test_a_feature_has_examples_and_is_pushed_along(ids: dict[str, str]) -> None:
    page = opened("representations.py", kind="features", dose="3.0", prompt=PROMPT)
    feature = int(str(box(page, "Feature").value))
    assert f"along feature {feature}" in texts(page).replace("\\", "")
    with Store.open() as store:
        result: Any = store.result(ids["sparse-dictionary"], "sparse-dictionary").result
    assert feature == int(result.values.shown_feature.values[0])
    shown = next(one.value for one in page.dataframe if "strongest examples" in one.proto.alt)
    assert shown["text"].tolist() == [text for text in result.values.example.values[0] if text]
    assert not page.error
    with pytest.raises(BadValue, match="one of those shown"):
        representations.examples_of(result, -1)


def test_one_is_asked_for_in_a_process_of_its_own(ids: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[dict[str, Any]] = []

    def start(target: str, arguments: dict[str, Any], folder: Path, **rest: Any) -> None:
        assert target == representations.TARGET
        folder.mkdir(parents=True)
        (folder / "status.jsonl").write_text("")
        began.append(arguments)

    monkeypatch.setattr(jobs, "start", start)
    page = opened("representations.py", kind="features")
    page.text_input(key="settings").set_value("k=0 steps=5").run()
    page.button(key="begin").click().run()
    assert "k" in settled(page).error[0].value
    assert not began, "what cannot be meant starts nothing"
    page.text_input(key="settings").set_value("dictionary=/etc").run()
    page.button(key="begin").click().run()
    assert "inside a folder that the dashboard may open" in "".join(one.value for one in settled(page).error).replace("\\", "")
    page.text_input(key="settings").set_value("k=2 steps=5").run()
    page.button(key="begin").click().run()
    assert began[0] | {"address": ""} == {
        "address": "", "instrument": "sparse-dictionary", "ref": ids["ref"], "settings": ["k=2", "steps=5"],
    }  # fmt: skip
    assert page.button(key="begin").disabled, "a second press would begin another"
