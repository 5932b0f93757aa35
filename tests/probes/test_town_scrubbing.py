"""The pronoun bias of a small decoder that was tuned to lean, scrubbed: probes at chance everywhere, and nothing of the bias is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evals.runner import run_suite
from evals.suites.occupation_pronoun import SUITE, OccupationPronounSpec
from probes.erasure import INSTRUMENT, ErasureSpec, erasers_of
from probes.erasure_result import EVERY, NOTHING
from tests.scripts import script
from workbench.data.worlds.town import Town
from workbench.lab.refs import load
from workbench.store.runs import Store


@pytest.mark.full
def test_a_trained_in_bias_is_scrubbed_and_a_single_layer_leaves_it_readable(tmp_path: Path) -> None:
    book = script("town_scrubbing")
    model = load("organism:leaning-pronouns@dose=1,seed=0", store=Store.open(tmp_path / "home"))
    spec = ErasureSpec.parse({**book.ASKED, "where": "each", "randoms": 3, "resamples": 400})
    fitted = book.alike(model, Town().pronoun_items("validation", per_occupation=500))
    inputs = book.leaning(model, fitted)
    v, plans = INSTRUMENT(model, inputs, spec).values, erasers_of(model, inputs, spec)
    of = lambda name, erased, who="erased": v[name].sel(who=who, erased=erased)  # noqa: E731
    assert float(of("accuracy", NOTHING).max()) > 0.95
    assert float(of("gap", NOTHING)) > 3 * float(v.gap_null.sel(erased=NOTHING))
    assert float(of("accuracy", EVERY).max()) < 0.65
    assert abs(float(of("gap", EVERY))) <= float(v.gap_null.sel(erased=EVERY))
    assert float(of("accuracy", EVERY, "random").max()) > 0.9
    for site in (book.FIRST, str(v.site.values[-1])):
        assert float(of("accuracy", site).max()) > 0.8, "erased at one site, it is read at another"

    items = book.alike(model, Town().pronoun_items("test", per_occupation=500), inputs.batch.shape[1])
    as_it_is, scrubbed = (book.dose(model, items, plans[name]) for name in (NOTHING, EVERY))
    assert as_it_is.dose > 0.5
    assert as_it_is.p == 0.001
    assert abs(scrubbed.dose) < 0.25 * as_it_is.dose
    places = {name: np.array(list(book.read(model, items, plans[name]).values())) for name in (NOTHING, EVERY)}
    assert (places[NOTHING][[0, -1], 0] > 0.9).all()
    assert (places[EVERY][:, 0] < 0.75).all()
    whole = Town().pronoun_items("test", per_occupation=20)
    suite = run_suite(SUITE, model, OccupationPronounSpec(contexts=20)).values
    assert book.dose(model, whole, {}).dose == pytest.approx(float(suite.dose), abs=1e-4), "the suite's own measure"
