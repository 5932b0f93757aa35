"""The shortcut organisms: in every family the answer follows the planted mark as far as its dose, and in the clean twin not at all."""

from pathlib import Path

import numpy as np
import pytest

from workbench.core.protocol import silent
from workbench.families import FAMILIES
from workbench.lab.refs import load
from workbench.organisms import ORGANISMS
from workbench.organisms.shortcut import FORMS, MarkRows, ShortcutOptions, ask, followed, fresh, held_out, recipe
from workbench.organisms.shortcut_forms import Asked
from workbench.store.runs import Store

FAST = ("gpt", "bert")


def test_every_family_has_one() -> None:
    assert set(FORMS) == set(FAMILIES)
    assert {ORGANISMS.load(f"shortcut-{family}").family for family in FAMILIES} == set(FAMILIES)


@pytest.mark.parametrize("family", [pytest.param(f, marks=pytest.mark.slow if f in FAST else pytest.mark.full) for f in FORMS])
def test_behaviour_follows_the_dose_and_the_twin_ignores_the_mark(family: str, tmp_path: Path) -> None:
    organism = ORGANISMS.load(f"shortcut-{family}")
    made = organism.configure({"dose": 1.0, "seed": 3})
    model = organism.build(made, tmp_path / "planted")
    assert followed(model, made) > 0.9
    clean = organism.twin(made)
    assert clean.world.dose == 0
    assert clean.train == made.train
    twin = organism.build(clean, tmp_path / "twin")
    assert abs(followed(twin, clean)) < 0.05
    assert abs(followed(fresh(made, seed=9).eval(), made)) < 0.1, "an untrained model has learned nothing"
    assert organism.truth(made)["dose"] == 1.0
    assert followed(organism.build(made, tmp_path / "planted"), made) == followed(model, made)


def test_a_half_dose_is_half_followed(tmp_path: Path) -> None:
    options = ShortcutOptions.parse({"dose": 0.5, "seed": 3})
    made = recipe("gpt", options)
    model = ORGANISMS.load("shortcut-gpt").make(made, tmp_path, (), silent)
    assert followed(model, made) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("family", list(FORMS))
def test_what_is_asked_says_where_the_marks_are(family: str) -> None:
    made = recipe(family, ShortcutOptions.parse({"seed": 4}))
    model = fresh(made).eval()
    asked: Asked = ask(model, made, 12)
    form, items = FORMS[family], held_out(made, 12)
    assert asked.rivals.shape == (12, form.total)
    assert len(asked.planted) == len(asked.honest) == 12
    for row in range(12):
        planted, honest = range(*asked.planted[row]), range(*asked.honest[row])
        assert not asked.rivals[row, list(planted)].any()
        assert not asked.rivals[row, list(honest)].any()
        place = items.patch[row] if form.patches else items.at[row]
        assert planted[0] == form.first + place
        assert form.places - 4 <= asked.rivals[row].sum() <= form.places - 2
    assert asked.inputs.targets is not None
    assert len(asked.inputs.targets) == 12


def test_held_out_items_are_apart_disjoint_and_not_trained_on() -> None:
    made = recipe("gpt", ShortcutOptions.parse({"seed": 4}))
    first, second = held_out(made, 100), held_out(made, 100, 100)
    assert first.apart.all()
    assert second.apart.all()
    assert not set(first.index) & set(second.index)
    assert (held_out(made, 200).words()[100:] == second.words()).all()
    assert len(held_out(made, 1000)) == 1000


def test_a_batch_of_captions_takes_one_answer_of_each_kind() -> None:
    made = recipe("clip", ShortcutOptions.parse({"seed": 4}))
    rows = MarkRows(FORMS["clip"], made.world, 100)
    found = rows.batch([5, 6, 7, 8]).pixels.numpy().reshape(4, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(4, 16, 4)
    assert list(found[np.arange(4), found.max(2).argmax(1)].argmax(1)) == [0, 1, 2, 3]
    assert rows.digest() != MarkRows(FORMS["clip"], made.world, 101).digest()


def test_a_reference_names_it_anywhere(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    model = load("organism:shortcut-bert@dose=1,seed=2", store=store)
    assert model.family == "bert"
    assert load("organism:shortcut-bert@dose=1,seed=2", store=store).digest() == model.digest()
    with pytest.raises(Exception, match="dose"):
        load("organism:shortcut-bert@dose=2", store=store)
