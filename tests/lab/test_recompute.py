"""A stored result can be derived again, and what cannot says why."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from tests.lab.trained import SMALL
from workbench.core.errors import AssayError, UnknownName
from workbench.families.gpt import GPT
from workbench.lab import run as lab
from workbench.lab.audit import audit
from workbench.lab.recompute import recompute
from workbench.lab.refs import checkpoint_of
from workbench.store.runs import Store


def test_a_suite_and_an_instrument_give_the_same_bytes_again(store: Store, trained: str) -> None:
    done = lab.evaluate("occupation-pronoun", trained, store=store, batch=7, contexts=2)
    again = recompute(done.run, "occupation-pronoun", store=store)
    assert again.same
    assert again.stored == again.found == done.results["occupation-pronoun"].digest()
    assert again.differs == ()
    probed = lab.probe("input-x-gradient", trained, {"texts": ["the baker said"], "targets": [" she"]}, store=store)
    assert recompute(probed.provenance.volatile["run"], "input-x-gradient", store=store).same
    asked = lab.probe("probing", trained, store=store, resamples=400)
    assert recompute(asked.provenance.volatile["run"], "probing", store=store).same


def test_a_comparison_with_another_model_is_kept_by_a_lasting_name_and_derived_again(store: Store, trained: str) -> None:
    texts = [f"the {job} met the pilot because" for job in ("baker", "judge", "nurse", "clerk", "guard")]
    found = lab.probe("similarity", trained, {"texts": texts, "model": trained[: len("run:") + 6]}, store=store, draws=1)
    run = found.provenance.volatile["run"]
    assert list(found.values["other"].values) == ["itself", trained, "untrained"]
    assert store.runs.get(run).spec["inputs"]["model"] == [trained], "the beginning of an id that was typed is the whole id"
    assert recompute(run, "similarity", store=store).same


@pytest.mark.slow
def test_a_training_gives_the_same_history_again(store: Store, trained: str) -> None:
    assert recompute(trained.removeprefix("run:"), "training", store=store).same


def test_another_number_is_noticed_and_named(store: Store, trained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = lab.evaluate("occupation-pronoun", trained, store=store, contexts=2)
    honest = lab.run_suite(*_one(store, trained))
    changed = honest.values.copy(deep=True)
    changed["p_she"][0, 0] += 1e-9
    monkeypatch.setattr("workbench.lab.recompute.run_suite", lambda *_, **__: type(honest)(**{**vars(honest), "values": changed}))
    found = recompute(done.run, "occupation-pronoun", store=store)
    assert not found.same
    assert found.differs == ("values.variables",)


def _one(store: Store, trained: str) -> tuple[Any, Any, Any]:
    suite = lab.SUITES.load("occupation-pronoun")
    specs = lab.suite_specs({suite.name: suite}, trained, {suite.name: {"contexts": 2}}, store)
    return suite, lab.load(trained, store=store), specs[suite.name]


def test_another_model_under_the_same_name_is_refused(store: Store, trained: str) -> None:
    other = lab.train("town-target", settings={**SMALL, "world": {**SMALL["world"], "seed": 5}}, store=store)
    done = lab.evaluate("trigger", trained, store=store, count=2)
    final = checkpoint_of(store, trained.removeprefix("run:")) / "final"
    shutil.rmtree(final)
    shutil.copytree(other.folder, final)
    with pytest.raises(AssayError, match="is another model now"):
        recompute(done.run, "trigger", store=store)


def test_what_cannot_be_derived_again_says_why(store: Store, trained: str) -> None:
    model, batch = GPT.tiny(seed=1)
    run = lab.probe("attention-pattern", model, lab.Inputs(batch.tokens), store=store).provenance.volatile["run"]
    with pytest.raises(AssayError, match="existed only in memory"):
        recompute(run, "attention-pattern", store=store)
    loaded = lab.load("family:gpt")
    run = lab.probe("attention-pattern", loaded, lab.Inputs(batch.tokens), store=store).provenance.volatile["run"]
    with pytest.raises(AssayError, match="does not say how the inputs of 'attention-pattern' were made"):
        recompute(run, "attention-pattern", store=store)
    with pytest.raises(UnknownName, match="no result 'pattern'"):
        recompute(run, "pattern", store=store)


@pytest.mark.full
def test_every_result_of_an_audit_is_derived_again_also_by_the_command_it_names(store: Store, trained: str) -> None:
    asked: dict[str, Any] = {
        "model": trained, "reference": None, "suites": ["trigger"], "instruments": ["head-scores", "probing"],
        "settings": {"trigger": {"count": 8}, "head-scores": {"period": 9}, "probing": {"resamples": 400}},
    }  # fmt: skip
    done = audit("town", settings=asked, store=store, date="2026-01-02")
    digests = store.result_digests(done.run)
    assert set(digests) == {"trigger.audited", "head-scores.audited", "probing.audited"}
    for name in digests:
        assert recompute(done.run, name, store=store).same, name
    assert lab.probe("head-scores", trained, store=store, period=9).digest() == digests["head-scores.audited"]
    assert lab.probe("probing", trained, store=store, resamples=400).digest() == digests["probing.audited"]
