"""Plans are checked before anything is computed."""

from pathlib import Path
from typing import Any

import pytest

from workbench.core.errors import BadValue, CorruptFile, MissingFile, UnknownName
from workbench.lab.plan import names, read_plan


def test_every_shipped_plan_reads() -> None:
    assert "town" in names()
    for name in names():
        assert read_plan(name).name == name


def test_settings_lie_over_a_plan() -> None:
    plan = read_plan("town", {"model": "run:last", "reference": None, "settings": {"trigger": {"count": 5}}})
    assert (plan.model, plan.reference, dict(plan.settings["trigger"])) == ("run:last", None, {"count": 5})


@pytest.mark.parametrize(
    ("plan", "settings", "error", "words"),
    [
        ("twon", {}, UnknownName, "no plan 'twon'.*'town'"),
        ("no/such.yaml", {}, MissingFile, "No plan file at 'no/such.yaml'.*town"),
        ("town", {"suites": ["triger"]}, UnknownName, "no suite 'triger' in plan 'town'.*'trigger'"),
        ("town", {"instruments": ["probin"]}, UnknownName, "no instrument 'probin'.*'probing'"),
        ("town", {"sweets": []}, UnknownName, "no field 'sweets' in the plan.*'suites'"),
        ("town", {"settings": {"bbq": {}}}, UnknownName, "no suite or instrument of this plan 'bbq'"),
        ("town", {"reference": "organism:town@dose=0.8,seed=0"}, BadValue, "another model than the audited one"),
        ("town", {"level": 1.5}, BadValue, "level is 1.5"),
    ],
)
def test_wrong_plans_name_what_is_wrong(plan: str, settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        read_plan(plan, settings)


@pytest.mark.parametrize(
    ("text", "words"), [("a: [", "a YAML file"), ("- 1", "it holds a list"), ("", "it is empty"), ("7", "it holds a number")]
)
def test_files_that_are_no_plans(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(CorruptFile, match=words):
        read_plan(tmp_path / "plan.yaml")
