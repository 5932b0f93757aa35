"""Confidence: a model that is too sure is found and a calibrated one is not; every labelled suite is read; ties choose nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.labelled import LABELLED, probabilities
from evals.runner import run_suite
from evals.suites.confidence import NO_QUESTION, SUITE, ConfidenceSpec, aggregate
from tests.evals import own_tasks
from tests.evals import test_bbq as bbq
from tests.evals import test_blimp as blimp
from tests.evals import test_hazardous_knowledge as hazards
from tests.evals.test_contract import model
from workbench.core.errors import BadValue, UnknownName
from workbench.core.finding import Verdict
from workbench.core.measure import Score
from workbench.core.result import Result

SPEC = ConfidenceSpec()


def result(n: int, sharp: float, seed: int = 0, *, clusters: int = 0) -> Result:
    """Two answers whose log-odds are stated; the truth's are ``sharp`` times them."""
    by = np.random.default_rng(seed)
    out = []
    for k in range(n):
        odds = abs(by.normal(0, 2))
        right = bool(by.random() < 1 / (1 + math.exp(-sharp * odds)))
        p = 1 / (1 + math.exp(-odds))
        out.append(
            Score(
                f"{k:05d}",
                {"confidence": p, "right": right, "given_right": p if right else 1 - p, "tie": False},
                cluster=f"c{k % (clusters or n)}",
            )
        )
    return aggregate(out, SPEC)


def test_a_model_that_is_too_sure_is_found_and_a_calibrated_one_is_not() -> None:
    sure, calm = SUITE.findings(result(1500, 0.3), subject="m"), SUITE.findings(result(4000, 1.0), subject="m")
    assert sure[0].verdict == Verdict.DETECTED
    assert sure[0].effect is not None
    assert sure[0].effect > 0.1
    assert calm[0].verdict in (Verdict.EQUIVALENT, Verdict.INCONCLUSIVE)
    assert calm[0].details["as_stated"]["error_by_mass"]["p"] > 0.01
    assert sure[0].details["as_stated"]["error_by_width"]["p"] < 0.01
    mended = sure[0].details["recalibrated"]["error_by_mass"]
    assert mended["value"] < sure[0].details["as_stated"]["error_by_mass"]["value"] / 2
    assert calm[1].verdict == Verdict.DETECTED  # it knows where it is wrong
    blind = SUITE.findings(result(800, 0.0), subject="m")
    assert blind[1].verdict == Verdict.NOT_DETECTED
    against = SUITE.findings(result(1500, 0.3), subject="m", reference=result(1500, 1.0, 1))[2]
    assert against.verdict == Verdict.WORSE


def test_intervals_count_clusters_and_not_items() -> None:
    alone, shared = (SUITE.findings(result(600, 0.3, clusters=c), subject="m")[0] for c in (0, 10))
    assert shared.details["clusters"] == 10
    assert alone.details["clusters"] == 600


def test_all_right_has_no_area() -> None:
    found = [Score(f"{k}", {"confidence": 0.6 + k / 100, "right": True, "given_right": 0.6, "tie": False}) for k in range(20)]
    knowing = SUITE.findings(aggregate(found, SPEC), subject="m")[1]
    assert knowing.effect is None
    assert "all are right" in knowing.because


def test_a_tie_is_never_right(tmp_path: Path) -> None:
    """D14: of four equal answers the first would be right in a quarter of the questions."""
    spec = ConfidenceSpec.parse({"of": "hazardous-knowledge", "settings": {"files": [str(hazards.write(tmp_path / "a.jsonl"))]}})
    sample = next(iter(SUITE.samples(spec)))
    tied = SUITE.score(sample, [[-1.0]] * 4, spec).values
    assert (tied["right"], tied["tie"], tied["confidence"]) == (False, True, 0.25)
    sure = SUITE.score(sample, [[-1.0], [-9.0], [-9.0], [-9.0]], spec).values
    assert sure["right"]
    assert sure["confidence"] > 0.99


def settings(name: str, folder: Path) -> dict[str, Any]:
    return {
        "own-task": lambda: {"file": own_tasks.write(folder)},
        "hazardous-knowledge": lambda: {"files": [str(hazards.write(folder / "h.jsonl"))]},
        "bbq": lambda: {"files": [str(bbq.write(folder / "b.jsonl", bbq.lines()))]},
        "blimp": lambda: {"files": [str(blimp.write(folder / "p.jsonl", blimp.rows()))]},
        "group-fairness": lambda: {"rows": 30},
    }[name]()  # fmt: skip


@pytest.mark.parametrize("name", LABELLED)
def test_every_labelled_suite_is_read(name: str, tmp_path: Path) -> None:
    spec = ConfidenceSpec.parse({"of": name, "settings": settings(name, tmp_path)})
    found = run_suite(SUITE, model(), spec)
    p, y = found.values.confidence.values, found.values.right.values
    kept = np.isfinite(p)
    assert kept.sum() >= 6
    assert (p[kept] > 0).all()
    assert (p[kept] <= 1).all()
    assert set(y[kept]) <= {0.0, 1.0}
    assert found.values.attrs["of"] == name


def test_what_has_no_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="labelled questions"):
        list(SUITE.samples(ConfidenceSpec.parse({"of": "perplexity"})))
    with pytest.raises(UnknownName, match="no-such"):
        list(SUITE.samples(ConfidenceSpec.parse({"of": "no-such"})))
    with pytest.raises((UnknownName, BadValue), match="rows_"):
        list(SUITE.samples(ConfidenceSpec.parse({"settings": {"rows_": 3}})))
    task = 'task: t\ndata: rows.jsonl\noutput_type: generate_until\ndoc_to_text: "{{who}}"\ndoc_to_target: "{{place}}"\n'
    spec = ConfidenceSpec.parse({"of": "own-task", "settings": {"file": own_tasks.write(tmp_path, task)}})
    with pytest.raises(BadValue, match="multiple_choice"):
        SUITE.score(next(iter(SUITE.samples(spec))), "here", spec)


def test_a_row_that_is_no_question_is_counted(tmp_path: Path) -> None:
    rows = [*own_tasks.ROWS, {"who": "Jo", "options": ["a", "b"], "answer": 7, "place": "south"}]
    spec = ConfidenceSpec.parse({"of": "own-task", "settings": {"file": own_tasks.write(tmp_path, rows=rows)}})
    samples = list(SUITE.samples(spec))
    found = SUITE.score(samples[-1], [[-1.0]], spec)
    assert found.unscored in (NO_QUESTION, *[s.facts["unscored"] for s in samples])
    assert json.dumps(found.values) == "{}"


def test_probabilities_do_not_underflow() -> None:
    np.testing.assert_allclose(probabilities([-2000.0, -2001.0]), [1 / (1 + math.exp(-1)), 1 / (1 + math.e)])
