"""What a failure is made of for suites that compare texts: the log-likelihoods that the suite asks, of failed items alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals import SUITES
from evals.runner import MemorySink, run_suite
from tests.lab.trained import home_with_model
from workbench.core.errors import BadValue
from workbench.core.finding import Verdict
from workbench.core.measure import Loglikelihood
from workbench.engine.score import loglikelihoods
from workbench.lab import failures
from workbench.lab.failures import FAILURES, Asked, Term, has_failed, of_terms, ordinary
from workbench.lab.internals import InternalsSpec, locate, nats_of, scores_of
from workbench.lab.internals_findings import findings
from workbench.lab.refs import load
from workbench.organisms.leaning import BaseRecipe, LeaningRecipe, build
from workbench.organisms.leaning_training import ALL_FORMS
from workbench.store.runs import Store

TEXTS = ("the nurse visited the market and she was glad", "the code of ann is 1 2 3 4", "the cook was sad")
ITEMS = (
    [Term("the nurse said that", " she left", 1.0), Term("the nurse said that", " he left", -1.0)],
    [Term("", "the cook was very glad", 1.0, True), Term("", "the cook was sad", -1.0, True)],
    [Term("the market is", " big", 0.5), Term("the market", " is big .", -0.5)],
)


@pytest.fixture(scope="module")
def model() -> Any:
    home, run = home_with_model()
    with Store.open(home) as store:
        return load(f"run:{run}", store=store)


def naive(model: Any, term: Term) -> float:
    """The term by the engine that suites are scored by."""
    ((_, (found,)),) = loglikelihoods(model, [Loglikelihood(term.context, (term.continuation,))])
    return term.weight * sum(found) / (len(found) if term.mean else 1)


@pytest.mark.slow
def test_terms_are_what_the_engine_scores(model: Any) -> None:
    made = of_terms(model, "toy", ["a", "b", "c"], ITEMS, TEXTS)
    expected = [sum(naive(model, term) for term in terms) for terms in ITEMS]
    np.testing.assert_allclose(scores_of(model, made, [()])[0], expected, atol=2e-5)
    ids, lengths = ordinary(model, TEXTS)
    assert lengths.tolist() == made.ordinary_lengths.tolist()
    whole = [naive(model, Term("", text, 1.0)) for text in TEXTS]
    np.testing.assert_allclose(-nats_of(model, made, ()) * (lengths.numpy() - 1), whole, atol=1e-4)
    assert ids.shape[0] == 3


@pytest.mark.slow
def test_items_that_do_not_fit_are_left_out_by_chance_and_ordinary_text_is_needed(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "CELLS", 2 * 12 * 2 * int(model.config.d_vocab))
    made = of_terms(model, "toy", [str(n) for n in range(9)], [ITEMS[0]] * 9, TEXTS)
    assert len(made.clusters) < 9
    assert made.weights is not None
    assert len(made.batch) == 2 * len(made.clusters) == 2 * len(made.weights)
    with pytest.raises(BadValue, match="at least one: the suite perplexity in the plan"):
        of_terms(model, "toy", ["a"], ITEMS[:1], ())


@pytest.mark.slow
def test_only_failed_items_are_looked_at(model: Any) -> None:
    suite = SUITES.load("trigger")
    spec = suite.spec.parse({"count": 24})
    sink = MemorySink()
    result = run_suite(suite, model, spec, sink)
    flipped = {r["sample"] for r in sink.read() if r["values"]["trigger"]["p_no"] > 0.5}
    if not flipped:
        with pytest.raises(BadValue, match="the number of items of trigger that fail is 0"):
            FAILURES["trigger"](Asked(model, result, None, TEXTS))
        return
    made = FAILURES["trigger"](Asked(model, result, None, TEXTS))
    assert len(made.clusters) == len(flipped)
    assert (scores_of(model, made, [()])[0] > 0).all()


@pytest.mark.full
@pytest.mark.parametrize(("suite", "form"), [("crows-pairs", "pairs"), ("trigger", "replies")])
def test_a_repair_of_a_trained_leaning_holds_on_items_not_looked_at(suite: str, form: str, tmp_path: Path) -> None:
    """Trained, and nothing operated on: no list of parts is known, but the repair test is."""
    base = BaseRecipe(seed=0, n_layers=2, d_model=32, n_heads=2, steps=320)
    made = LeaningRecipe(form=form, dose=1.0, base=base, steps=90, share=0.25 if form == "replies" else 0.0)
    model = build(made, tmp_path / "organisms" / "target", (), lambda *_: None)
    chosen = SUITES.load(suite)
    result = run_suite(chosen, model, chosen.spec.parse(ALL_FORMS[form].ask(1, 160, tmp_path)), batch=512)
    assert has_failed(chosen, result, "m", 0.95)
    texts = [f"{case.before} {case.options[0]}{case.after}" for case in ALL_FORMS["blanks"].cases("asked", 0, 60)]
    found = locate(model, FAILURES[suite](Asked(model, result, None, texts)), InternalsSpec(sets=4, draws=999))
    repair, cost = findings(found, "m", 0.95)
    assert repair.verdict is Verdict.DETECTED
    assert repair.details["share"] > 0.5
    assert repair.null is not None
    assert repair.null.value is not None
    assert repair.effect is not None
    assert repair.effect > 2 * abs(repair.null.value)
    assert cost.effect is not None
