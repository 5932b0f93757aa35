"""Probe, evaluate and train: a run is made, streamed into, ended, and can be derived again."""

from __future__ import annotations

from typing import Any

import pytest

from evals import SUITES
from evals.runner import run_suite
from tests.lab.trained import SMALL
from workbench.core.errors import BadValue, Incompatible, MissingFile, StoreError, UnknownName, UsageError
from workbench.core.protocol import Inputs
from workbench.families.gpt import GPT
from workbench.lab import run as lab
from workbench.lab.record import Interrupted, recorded, unfinished
from workbench.lab.refs import load
from workbench.store.runs import Store

FEW: Any = {"contexts": 2}


# --- the record of a run ------------------------------------------------------------------------------------


def test_a_run_is_marked_by_how_it_ended(store: Store) -> None:
    spec = {"n": 1}
    with recorded(store, "eval", spec, "x", provenance={}) as done:
        assert store.runs.get(done).status == "running"
    with pytest.raises(ZeroDivisionError), recorded(store, "eval", spec, "x", provenance={}) as failed:
        print(1 / 0)
    with pytest.raises(Interrupted, match="--resume") as stop, recorded(store, "eval", spec, "x", provenance={}) as interrupted:
        raise KeyboardInterrupt
    assert [store.runs.get(run).status for run in (done, failed, interrupted)] == ["done", "failed", "interrupted"]
    assert store.runs.get(failed).note == "ZeroDivisionError: division by zero"
    assert stop.value.run == interrupted
    assert [r.id for r in unfinished(store, "eval", spec, "x")] == [interrupted, failed]
    assert unfinished(store, "eval", {"n": 2}, "x") == unfinished(store, "eval", spec, "y") == unfinished(store, "probe", spec, "x") == ()


def test_an_inner_run_that_is_stopped_stops_the_outer_one(store: Store) -> None:
    begun: list[str] = []

    def nested() -> None:
        with recorded(store, "audit", {}, "x", provenance={}) as outer:
            begun.append(outer)
            with recorded(store, "train", {}, "x", parent=outer, provenance={}) as inner:
                begun.append(inner)
                raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stop:
        nested()
    assert stop.value.run == begun[1]
    assert [store.runs.get(run).status for run in begun] == ["interrupted", "interrupted"]


def test_a_run_is_resumed_only_as_what_it_was(store: Store) -> None:
    facts = {"model_digest": "a"}
    with pytest.raises(Interrupted), recorded(store, "eval", {"n": 1, "m": 2}, "x", provenance=facts) as run:
        raise KeyboardInterrupt

    def again(kind: str = "eval", spec: dict[str, Any] | None = None, ref: str = "x", resume: str = run, digest: str = "a") -> str:
        given = {"n": 1, "m": 2} if spec is None else spec
        with recorded(store, kind, given, ref, resume=resume, provenance={"model_digest": digest}) as found:
            return found

    with pytest.raises(BadValue, match="of kind eval"):
        again(kind="probe")
    with pytest.raises(BadValue, match="They differ in k, m, n"):
        again(spec={"n": 2, "k": 2})  # what is only in one counts too
    with pytest.raises(BadValue, match="That run is of x"):
        again(ref="y")
    with pytest.raises(BadValue, match="Its model had digest a…, this one has b…"):
        again(digest="b")
    with pytest.raises(UnknownName, match="no run 'zzz'"):
        again(resume="zzz")
    assert store.runs.get(run).status == "interrupted"
    assert again(resume="auto") == run
    assert store.events(run)[0].name == "resumed"
    with pytest.raises(BadValue, match="a run that is not finished"):
        again()
    assert again(resume="auto") != run


# --- evaluate -------------------------------------------------------------------------------------------------


def test_an_evaluation_is_stored_with_samples_results_findings_and_provenance(store: Store, trained: str) -> None:
    seen: list[tuple[int, int, str]] = []
    done = lab.evaluate("occupation-pronoun", "run:last", store=store, progress=lambda *state: seen.append(state), **FEW)
    record = store.runs.get(done.run)
    assert (record.kind, record.ref, record.status) == ("eval", trained, "done")
    assert record.provenance["model_digest"] == load(trained, store=store).digest()
    assert record.spec["suites"]["occupation-pronoun"]["contexts"] == 2
    assert record.spec["suites"]["occupation-pronoun"]["world"]["documents"] == 1500, "the model's own world"
    assert store.sample_counts(done.run) == {"occupation-pronoun": 48}
    assert store.result(done.run, "occupation-pronoun").digest == done.results["occupation-pronoun"].digest()
    assert store.findings(done.run) == done.findings != ()
    assert seen[-1] == (48, 48, "occupation-pronoun")
    suite = SUITES.load("occupation-pronoun")
    spec = suite.spec.parse(record.spec["suites"]["occupation-pronoun"])
    assert run_suite(suite, load(trained, store=store), spec).digest() == done.results["occupation-pronoun"].digest()


def test_the_models_own_world_is_not_asked_about_where_something_else_is_given_in_its_place(store: Store) -> None:
    suites, ref = {"speaker-gaps": SUITES.load("speaker-gaps")}, "organism:mistaught-voices@seed=3"

    def world(**settings: Any) -> Any:
        return lab.suite_specs(suites, ref, {"speaker-gaps": settings}, store)["speaker-gaps"].model_dump().get("world")

    assert world()["seed"] == world(folder="")["seed"] == 3
    assert world(folder="recordings") is None
    assert world(folder="recordings", world={"seed": 5})["seed"] == 5, "both were said, which the suite refuses"


def test_several_suites_take_settings_by_name(store: Store, trained: str) -> None:
    done = lab.evaluate(["trigger", "occupation-pronoun"], trained, store=store, trigger={"count": 2}, **{"occupation-pronoun": FEW})
    assert store.sample_counts(done.run) == {"occupation-pronoun": 48, "trigger": 2}
    assert list(done.results) == ["trigger", "occupation-pronoun"]


def test_a_stopped_evaluation_goes_on_and_ends_in_the_same_bytes(store: Store, trained: str) -> None:
    def stop(done: int, total: int, words: str = "") -> None:
        if done >= 16:
            raise KeyboardInterrupt

    whole = lab.evaluate("occupation-pronoun", trained, store=store, batch=8, **FEW)
    with pytest.raises(Interrupted) as stopped:
        lab.evaluate("occupation-pronoun", trained, store=store, batch=8, progress=stop, **FEW)
    run = stopped.value.run
    assert store.sample_counts(run) == {"occupation-pronoun": 16}
    assert lab.unfinished_evaluation("occupation-pronoun", trained, store=store, batch=8, **FEW) == run
    assert lab.unfinished_evaluation("occupation-pronoun", trained, store=store, batch=4, **FEW) == ""
    asked: list[int] = []
    resumed = lab.evaluate(
        "occupation-pronoun", trained, store=store, batch=8, resume=run, progress=lambda done, *_: asked.append(done), **FEW
    )
    assert resumed.run == run
    assert resumed.results["occupation-pronoun"].canonical() == whole.results["occupation-pronoun"].canonical()
    assert store.runs.get(run).status == "done"


def test_misspelt_suites_fields_and_models_stop_before_a_run_is_made(store: Store, trained: str) -> None:
    before = store.runs.list()
    with pytest.raises(UnknownName, match="no suite 'triger'. Did you mean 'trigger'"):
        lab.evaluate("triger", trained, store=store)
    with pytest.raises(UnknownName, match="no field 'cuont' in suite 'trigger'. Did you mean 'count'"):
        lab.evaluate("trigger", trained, store=store, cuont=3)
    with pytest.raises(UnknownName, match="no run 'nope'"):
        lab.evaluate("trigger", "run:nope", store=store)
    with pytest.raises(UsageError, match="No suite was named. There are bbq, crows-pairs"):
        lab.evaluate([], trained, store=store)
    with pytest.raises(Incompatible, match="'trigger' cannot run on .*no tokenizer"):
        lab.evaluate(["trigger"], "family:gpt", store=store)
    assert store.runs.list() == before


# --- probe ------------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_told_before_a_model_is_loaded_or_trained(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "load", lambda *_, **__: pytest.fail("the model was loaded first"))
    before = store.runs.list()
    with pytest.raises(MissingFile, match=r"No task file at 'none\.yaml'"):
        lab.evaluate("own-task", "organism:town", store=store, file="none.yaml")
    assert store.runs.list() == before


def test_a_probe_of_texts_is_stored_and_says_its_run(store: Store, trained: str) -> None:
    found = lab.probe(
        "input-x-gradient", trained, {"texts": ["the baker met the judge because"], "targets": [" she"], "foils": [" he"]}, store=store
    )
    run = found.provenance.volatile["run"]
    record = store.runs.get(run)
    assert (record.kind, record.ref, record.status) == ("probe", trained, "done")
    assert record.spec["inputs"]["texts"] == ["the baker met the judge because"]
    assert record.spec["spec"]["quantity"] == "logit-difference", "foils ask for the difference"
    assert store.result(run, "input-x-gradient").digest == found.digest()
    assert found.provenance.model == trained


@pytest.mark.parametrize("name", ["input-x-gradient", "probing", "attention-pattern", "head-scores"])
def test_a_model_of_a_world_is_asked_about_it(store: Store, trained: str, name: str) -> None:
    settings: dict[str, Any] = {"probing": {"resamples": 400}, "head-scores": {"sequences": 2, "period": 5}}.get(name, {})
    found = lab.probe(name, trained, store=store, **settings)
    assert store.runs.get(found.provenance.volatile["run"]).spec["inputs"]["world"]["documents"] == 1500
    assert type(found).from_json(found.to_json()).canonical() == found.canonical()


def test_a_model_in_memory_is_probed_with_tensors(store: Store) -> None:
    model, batch = GPT.tiny(seed=1)
    found = lab.probe("attention-pattern", model, Inputs(batch.tokens), store=store)
    record = store.runs.get(found.provenance.volatile["run"])
    assert record.ref == f"memory:{model.digest()[:16]}"
    assert len(record.spec["inputs"]["digest"]) == 64


def test_probes_that_cannot_be_meant_are_refused_before_a_run_is_made(store: Store, trained: str) -> None:
    before = store.runs.list()
    with pytest.raises(UnknownName, match="no instrument 'headscores'. Did you mean 'head-scores'"):
        lab.probe("headscores", trained, store=store)
    with pytest.raises(UnknownName, match="no field 'stepps' in instrument 'integrated-gradients'"):
        lab.probe("integrated-gradients", trained, "a text", store=store, stepps=3)
    with pytest.raises(UnknownName, match="no field 'text' in inputs. Did you mean 'texts'"):
        lab.probe("saliency", trained, {"text": ["x"]}, store=store)
    with pytest.raises(UsageError, match="needs a target"):
        lab.probe("saliency", trained, "the baker", store=store)
    with pytest.raises(UsageError, match="needs labelled words"):
        lab.probe("probing", trained, "the baker", store=store)
    with pytest.raises(BadValue, match=r"the target is 'she', but it must be one token after its text, and it is 2.*leading space"):
        lab.probe("saliency", trained, {"texts": ["the baker"], "targets": ["she"]}, store=store)
    with pytest.raises(UsageError, match="was given no inputs, and 'family:gpt' comes from no generated world"):
        lab.probe("saliency", "family:gpt", store=store)
    assert store.runs.list() == before


# --- train ------------------------------------------------------------------------------------------------------


def test_a_training_leaves_a_model_a_history_and_events(store: Store, trained: str) -> None:
    run = trained.removeprefix("run:")
    record = store.runs.get(run)
    assert (record.kind, record.ref, record.status) == ("train", "recipe:town-target", "done")
    assert record.spec["made"]["train"]["steps"] == 12
    history = store.result(run, "training").result
    assert history.values.sizes["step"] == 12
    assert "after 12 steps" in history.summary()
    assert history.plot().to_dict()["layer"]
    assert [e.details["step"] for e in store.events(run) if e.name == "checkpoint"] == [6, 12]
    assert [e.details["step"] for e in store.events(run) if e.name == "validation"] == [12]


def test_a_stopped_training_goes_on_and_ends_in_the_same_weights_and_history(store: Store, trained: str) -> None:
    def stop(done: int, total: int, words: str = "") -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        lab.train("town-target", settings=SMALL, store=store, progress=stop)
    done = lab.train("town-target", settings=SMALL, store=store, resume="auto")
    assert done.run == stopped.value.run
    whole = store.result(trained.removeprefix("run:"), "training")
    assert done.model.digest() == store.runs.get(trained.removeprefix("run:")).provenance["model_digest"]
    assert done.history.canonical() == whole.result.canonical()


def test_a_store_that_cannot_be_opened_is_an_error_before_the_work(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="could not be made"):
        lab.train("town-target", settings=SMALL)
