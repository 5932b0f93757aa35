"""Cases of three fields: signs stand where the truth says and nowhere else, and trained models follow them as far as the dose says."""

from pathlib import Path

import numpy as np
import pytest

from workbench.calibration.exams.places import readings
from workbench.data.worlds.cases import BANDS, FIELDS, PATCH, PLACES, RESIDUES, SHOPS, SIDE, CasesSpec, FieldName, cases
from workbench.lab.refs import load
from workbench.organisms import ORGANISMS
from workbench.organisms.cases import READERS, ask, followed, held_out
from workbench.store.runs import Store

COUNT = 200


def world(field: FieldName, dose: float = 0.8) -> CasesSpec:
    return CasesSpec(field=field, seed=3, dose=dose)


def shown_parts(field: FieldName, found: np.ndarray) -> np.ndarray:
    """Of whatever a case is written in, one number a part ``[case, part]``: pictures patch by patch."""
    if field != "castings":
        return found
    side = SIDE // PATCH
    return found.reshape(len(found), side, PATCH, side, PATCH).transpose(0, 1, 3, 2, 4).reshape(len(found), side * side, -1)


@pytest.mark.parametrize("field", FIELDS)
def test_putting_a_sign_in_changes_its_own_place_and_nothing_else(field: FieldName) -> None:
    drawn = cases(world(field), range(COUNT))
    write = lambda c: shown_parts(field, c.pictures() if field == "castings" else c.codes())  # noqa: E731
    there, gone = write(drawn.shown(True)), write(drawn.shown(False))
    differs = there != gone if field != "castings" else (there != gone).any(-1)
    for row, (start, stop), (first, last) in zip(differs, drawn.positions(), drawn.positions(honest=True), strict=True):
        assert row[start:stop].any()
        assert not row[:start].any()
        assert not row[stop:].any()
        assert stop <= first or last <= start, "the two signs stand apart"
    assert 0.4 < drawn.planted.mean() < 0.6
    assert 0.4 < drawn.honest.mean() < 0.6
    assert len(np.unique(drawn.at)) == PLACES[field]


@pytest.mark.parametrize("field", FIELDS)
def test_a_dose_changes_answers_and_nothing_else(field: FieldName) -> None:
    none, half, all_ = (cases(world(field, dose), range(COUNT)) for dose in (0.0, 0.5, 1.0))
    for one in (half, all_):
        assert np.array_equal(one.planted, none.planted)
        assert np.array_equal(one.at, none.at)
        assert one.seeds == none.seeds
    assert np.array_equal(none.answer, none.honest)
    assert np.array_equal(all_.answer, all_.planted)
    apart = none.planted != none.honest
    assert (half.answer == half.planted)[apart].mean() == pytest.approx(0.5, abs=0.15)
    assert not set(cases(world(field), range(9), "test").seeds) & set(cases(world(field), range(9)).seeds)


def test_signs_are_what_their_field_says() -> None:
    chains = cases(world("proteins"), range(COUNT))
    for row, planted, honest, (start, _) in zip(chains.codes(), chains.planted, chains.honest, chains.positions(), strict=True):
        text = "".join(RESIDUES[code] for code in row)
        assert (text.count("C"), text.count("N"), text.count("W")) == (2 * planted, honest, honest)
        assert not planted or text[start] == text[start + 3] == "C"
    paid = cases(world("payments"), range(COUNT))
    shops, bands = np.divmod(paid.codes(), BANDS)
    odd = (shops < SHOPS // 2) & (bands > 1)
    assert np.array_equal(odd.sum(1), paid.planted)
    assert np.array_equal(((shops >= SHOPS // 2) & (bands == BANDS - 1)).sum(1), paid.honest)
    assert all(row.argmax() == place for row, place, there in zip(odd, paid.at, paid.planted, strict=True) if there)
    castings = cases(world("castings"), range(COUNT))
    gap = (castings.shown(True).pictures() - castings.shown(False).pictures()).reshape(COUNT, -1)
    assert np.allclose(np.sort(gap, 1)[:, -PATCH:], 2, atol=1e-5)
    assert np.allclose(np.sort(gap, 1)[:, :-PATCH], 0, atol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("field", FIELDS)
def test_a_model_follows_its_sign_and_its_twin_does_not(field: FieldName, tmp_path: Path) -> None:
    from probes import INSTRUMENTS

    home, organism = Store.open(tmp_path), ORGANISMS.load(f"cases-{field}")
    found = {}
    for dose in (1.0, 0.0):
        model, made = load(f"organism:cases-{field}@dose={dose:g},seed=2", store=home), organism.configure({"dose": dose, "seed": 2})
        asked = ask(made, 64)
        instrument = INSTRUMENTS.load("occlusion")
        fields = {name: value for name, value in asked.settings.items() if name in instrument.spec.model_fields}
        strength = np.abs(instrument(model, asked.inputs, instrument.spec.parse(fields)).values.attribution.values)
        found[dose] = followed(model, made), float(np.mean([one.statistic for one in readings(strength, asked, 16)]))
        right = READERS[field].yes(model, held_out(made, COUNT)).numpy() > 0.5
        assert (right == held_out(made, COUNT).answer).mean() > 0.9
    assert found[1.0][0] > 0.7
    assert abs(found[0.0][0]) < 0.1
    assert found[1.0][1] > 0.9
    assert found[1.0][1] > found[0.0][1]
    assert organism.twin(organism.configure({"dose": 1.0, "seed": 2})) == organism.configure({"dose": 0.0, "seed": 2})
    assert organism.truth(organism.configure({"dose": 1.0}))["field"] == field
