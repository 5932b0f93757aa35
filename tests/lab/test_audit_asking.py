"""What an audit asks with instruments: one that cannot be asked of a model is left out and named, and findings speak in the right unit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import xarray as xr

from workbench.core.errors import UnknownName
from workbench.core.finding import Plan, Verdict
from workbench.core.protocol import silent
from workbench.families import FAMILIES
from workbench.lab import audit_measures
from workbench.lab.audit_measures import ATTRIBUTION, About, draw
from workbench.lab.audit_subject import Subject, _Asker
from workbench.lab.refs import checkpoint_of
from workbench.organisms import ORGANISMS
from workbench.organisms.organism import Spot
from workbench.store.runs import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


def asker(store: Store, spec: dict[str, Any], **settings: Any) -> _Asker:
    """Who asks a small decoder that a training of this ``spec`` is said to have made."""
    run = store.runs.create("train", spec, "recipe:a")
    checkpoint_of(store, run).mkdir(parents=True)
    instruments = ["attention-rollout", "data-attribution"]
    plan = Plan.parse({"name": "own", "model": f"run:{run}", "instruments": instruments, "settings": settings})
    model = FAMILIES.load("gpt").tiny(seed=0)[0].eval()
    model.name = plan.model
    return _Asker(plan, Subject("audited", plan.model, model, None), store, store.runs.create("audit", plan), silent)


def test_an_instrument_with_nothing_to_ask_of_a_task_is_left_out_and_named(store: Store) -> None:
    of = asker(store, {"task": "own-rows", "data": {}})
    for number, name in enumerate(of.plan.instruments):
        of.ask(name, number)
    assert [what for what, _ in of.left_out] == [f"{name} on {of.plan.model}" for name in of.plan.instruments]
    assert all("comes from no generated world" in why for _, why in of.left_out)


def test_a_slip_in_the_settings_of_a_plan_is_not_left_out_but_told(store: Store) -> None:
    of = asker(store, {"task": "own-rows", "data": {}}, **{"attention-rollout": {"lairs": 3}})
    with pytest.raises(UnknownName, match="no field 'lairs'"):
        of.ask("attention-rollout", 0)


def test_an_organism_without_a_question_is_not_said_to_have_no_world(store: Store) -> None:
    assert ORGANISMS.load("refusing").question is None
    made = ORGANISMS.load("refusing").configure({}).model_dump(mode="json")
    of = asker(store, {"organism": "refusing", "made": made})
    of.ask("attention-rollout", 0)
    ((what, why),) = of.left_out
    assert what.startswith("attention-rollout on run:")
    assert "no generated town, no organism with a question of its own and no task" in why


@pytest.mark.parametrize(
    ("quantity", "unit"), [("logit-difference", "log-odds"), ("logprob", "nats of log-probability"), ("logit", "logits")]
)
def test_a_part_that_moves_nothing_is_told_in_the_unit_of_what_was_explained(
    quantity: str, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_measures, "first_hit", lambda *_: SimpleNamespace(hits=40, n=40, rate=1.0, chance=0.1))
    same = xr.DataArray([0.5] * 40, dims="item")
    values = xr.Dataset({"gap": same, "value": same + 0.04, "baseline_value": same, "converged": same > 0, "steps": same})
    result: Any = SimpleNamespace(values=values, spec={"quantity": quantity})
    about = About("organism:a", 0.95, True, Spot(((1, 2),) * 40, "the stamp", "the class", "images", "patches"))
    (found,) = draw(ATTRIBUTION, {f"{ATTRIBUTION}.zero": result}, about)
    assert found.verdict is Verdict.NOT_DETECTED
    assert found.because == f"the images hardly move the class (median 0.04 {unit}): a ranking of nothing finds nothing"
