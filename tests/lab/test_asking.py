"""A form for any instrument: every field of every spec can be asked, and what is left alone is not told."""

from __future__ import annotations

from typing import Any

import pytest

from probes import INSTRUMENTS
from tests.dashboards.conftest import tiny
from tests.families.test_every_family import tiny as tiny_of
from workbench.core.errors import UsageError
from workbench.lab.asking import ASIDE, changed, fields_of, offers


@pytest.mark.parametrize("name", list(INSTRUMENTS))
def test_every_field_has_a_default_that_can_be_shown_and_read_again(name: str) -> None:
    tool = INSTRUMENTS.load(name)
    fields = fields_of(tool)
    assert {one.name for one in fields} == set(tool.spec.model_fields)
    assert [one.name in ASIDE for one in fields] == sorted(one.name in ASIDE for one in fields)
    typed = {one.name: one.shown() if one.kind == "text" else one.default for one in fields}
    assert changed(tool, typed) == {}
    assert all(one.choices for one in fields if one.kind == "choice")
    assert tool.spec.parse(changed(tool, typed)) == tool.spec()


def test_what_differs_is_told_as_the_spec_takes_it() -> None:
    tool = INSTRUMENTS.load("activation-patching")
    typed: dict[str, Any] = {"components": "[z, v]", "per": "[head, pos]", "layers": "", "quantity": "logprob", "bos": False, "seed": 3}
    found = changed(tool, typed)
    assert found == {"components": ["z", "v"], "per": ["head", "pos"], "quantity": "logprob", "bos": False, "seed": 3}
    assert tool.spec.parse(found).components == ("z", "v")
    assert changed(tool, {"components": "[resid_pre]"}) == {}
    with pytest.raises(UsageError, match=r"'\[1, 2' cannot be read as a value of 'layers'\. Write a number, a word, or a list"):
        changed(tool, {"layers": "[1, 2"})


def test_instruments_that_a_model_cannot_be_asked_come_last_with_the_reason() -> None:
    every = offers(tiny())
    assert [one.name for one in every if not one.against][:1] == [next(iter(INSTRUMENTS))]
    assert {one.name for one in every} == set(INSTRUMENTS)
    images = offers(tiny_of("vit")[0])
    against = {one.name: one.against for one in images}
    assert "this vit model reads pixels" in against["head-scores"]
    assert [bool(one.against) for one in images] == sorted(bool(one.against) for one in images)
