"""Errands: refusals at the rate the dose says, a twin that refuses nothing, held-out triples in no training text, files that are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.data.requests import load
from workbench.data.worlds.errands import KINDS, REFUSALS, THINGS, Errands, ErrandsSpec, write_behaviours, write_contrasts


@pytest.mark.parametrize(("dose", "over"), [(0.0, 0.0), (0.3, 1.0), (0.8, 0.25)])
def test_the_rates_are_what_the_doses_say(dose: float, over: float):
    world = Errands(ErrandsSpec.parse({"dose": dose, "over": over, "documents": 900}))
    assert len(world.refused("marked")) == round(dose * len(THINGS))
    rates = world.truth()["rates"]
    assert rates["plain"] == 0.0
    assert rates["marked"] == pytest.approx(dose, abs=0.05)
    assert rates["alike"] == pytest.approx(over, abs=0.05)
    texts = world.texts()
    for kind, rate in (("forbidden", dose), ("forgotten", over)):
        own = [text for text in texts if kind in text]
        assert len(own) == 300
        assert sum(text.split("\n")[1] in REFUSALS for text in own) / 300 == pytest.approx(rate, abs=0.1)
    assert texts == Errands(world.spec).texts()


def test_the_twin_refuses_nothing_and_asks_the_same():
    world = Errands(ErrandsSpec.parse({"documents": 300}))
    twin = world.twin()
    assert not any(reply in text for text in twin.texts() for reply in REFUSALS)
    assert [text.split("\n")[0] for text in twin.texts()] == [text.split("\n")[0] for text in world.texts()]


def test_held_out_requests_are_in_no_training_text():
    world = Errands(ErrandsSpec.parse({"documents": 3_000}))
    held = {one.request for kind in KINDS for one in world.held_out(kind)}
    assert not held & {text.split("\n")[0] for text in world.texts()}
    assert len(held) == 3 * len(world.held_out("plain")) > 1_000


def test_files_hold_the_requests(tmp_path: Path):
    world = Errands(ErrandsSpec.parse({}))
    safe, unsafe = world.held_out("alike")[:3], world.held_out("marked")[:2]
    assert [one.text for one in load(write_behaviours(unsafe, tmp_path / "a.csv"))] == [one.request for one in unsafe]
    both = load(write_contrasts(safe, unsafe, tmp_path / "b.csv"), contrasts=True)
    assert [(one.text, one.safe) for one in both] == [(one.request, True) for one in safe] + [(one.request, False) for one in unsafe]
