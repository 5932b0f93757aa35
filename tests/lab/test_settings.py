"""``--set`` as values."""

from __future__ import annotations

import pytest

from workbench.core.errors import BadValue, UnknownName
from workbench.lab.settings import by_name, overlay, read_settings


def test_values_are_yaml_and_dots_nest() -> None:
    given = ["a=1", "b.c=0.5", "b.d=text", "e=[1, 2]", 'f="3"', "g=null", "h=true", "i=x=y", "j=1.0e-3"]
    assert read_settings(given) == {
        "a": 1, "b": {"c": 0.5, "d": "text"}, "e": [1, 2], "f": "3", "g": None, "h": True, "i": "x=y", "j": 0.001,
    }  # fmt: skip
    assert read_settings([]) == {}


@pytest.mark.parametrize("setting", ["steps", "=3", "a..b=3", ".a=3", "a.=3", "", "a={"])
def test_a_setting_that_cannot_be_read_is_refused(setting: str) -> None:
    with pytest.raises(BadValue, match="name=value"):
        read_settings([setting])


@pytest.mark.parametrize("pair", [["a=1", "a=2"], ["a=1", "a.b=2"], ["a.b=1", "a=2"]])
def test_a_setting_given_twice_is_refused(pair: list[str]) -> None:
    with pytest.raises(BadValue, match="set once"):
        read_settings(pair)


def test_overlay_goes_down_and_changes_neither() -> None:
    below, above = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}, "e": 4}
    assert overlay(below, above) == {"a": {"b": 9, "c": 2}, "d": 3, "e": 4}
    assert below == {"a": {"b": 1, "c": 2}, "d": 3}


def test_settings_by_name() -> None:
    assert by_name(["x"], {"seed": 1}, "suite") == {"x": {"seed": 1}}
    assert by_name(["x"], {"x": {"seed": 1}}, "suite") == {"x": {"seed": 1}}
    assert by_name(["x"], {}, "suite") == {"x": {}}
    assert by_name(["x", "y"], {"y": {"seed": 1}}, "suite") == {"x": {}, "y": {"seed": 1}}
    with pytest.raises(UnknownName, match=r"no suite 'seed' in this call.*suite\.field=value"):
        by_name(["x", "y"], {"seed": 1}, "suite")
    with pytest.raises(BadValue, match=r"such as x\.seed=1"):
        by_name(["x", "y"], {"x": 1}, "suite")
