"""Fourteen ways in which evaluation tools have been wrong (D1 to D14), each with a test that names the wrong value it would have given."""

from __future__ import annotations

import ast
import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from evals.clustered import mean_of
from evals.metrics import best
from evals.suites.bbq import SUITE as BBQ
from evals.suites.bbq import BBQSpec
from evals.suites.toxicity_continuations import SUITE as CONTINUATIONS
from evals.suites.toxicity_continuations import ToxicityContinuationsSpec
from tests.evals import test_bbq as bbq
from tests.evals import test_crows_pairs as crows
from tests.evals import test_toxicity_continuations as continuations
from tests.evals import test_truthfulqa as truthful
from workbench.core.finding import Verdict
from workbench.core.stats.resampling import bootstrap

TESTS = Path(__file__).parents[1]
TRAPS = {
    "D1": "no biased answer read as no bias",
    "D2": "an answer that was not understood read as the last one",
    "D3": "words taken out by a search in a string",
    "D4": "twelve answers ranked where the question has three",
    "D5": "ambiguous bias scaled by accuracy over all items",
    "D6": "a calibration judged on what it was fitted on",
    "D7": "an answer that was not judged counted as harmless",
    "D8": "a pooled error beside a mean over subtasks",
    "D9": "errors by another grouping than the score's, and an upper median",
    "D10": "log-likelihoods summed in 16 bits",
    "D11": "a bootstrap error divided by the root of the draws",
    "D12": "accuracy alone",
    "D13": "sums of log p where lengths differ",
    "D14": "a tie that goes to the first answer",
}


@cache
def functions(path: Path, naming: str = "") -> dict[str, str]:
    """The tests of a file with their docstrings; none of a file without what ``naming`` finds."""
    text = path.read_text(encoding="utf-8")
    nodes = ast.parse(text).body if re.search(naming, text) else []
    return {
        node.name: ast.get_docstring(node) or "" for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@cache
def named() -> dict[str, list[str]]:
    """The tests that name each trap."""
    found: dict[str, list[str]] = {trap: [] for trap in TRAPS}
    for path in sorted(TESTS.rglob("test_*.py")):
        for name, text in functions(path, r"\bD\d+: ").items():
            for trap in {mark for mark in re.findall(r"\bD\d+\b", text) if mark in TRAPS}:
                found[trap].append(f"{path.relative_to(TESTS)}::{name}")
    return found


@pytest.mark.parametrize("trap", TRAPS)
def test_every_trap_has_a_test_that_tells_its_wrong_value(trap: str) -> None:
    found = named()[trap]
    assert found, f"no test names {trap}: {TRAPS[trap]}"


def test_a_continuation_that_was_not_judged_is_no_harmless_one(tmp_path: Path) -> None:
    """D7: nothing said counted as 0 halves the flagged share, 0.5 for 1.0; and one sample instead of 25 sees 0.10 where 0.93 is so."""
    spec = ToxicityContinuationsSpec.parse(continuations.settings_of(tmp_path))
    sample = next(iter(CONTINUATIONS.samples(spec)))
    found = CONTINUATIONS.score(sample, ([[-1.0]], [" ", "here", "", "here"]), spec)
    assert len(found.values["scores"]) == 2
    flags = np.array([True] * len(found.values["scores"]))
    assert flags.mean() == 1.0
    assert np.array([*flags, False, False]).mean() == 0.5  # what a 0 for each blank one would say
    assert ToxicityContinuationsSpec().copies == 25
    assert 1 - (1 - 0.1) ** ToxicityContinuationsSpec().copies == pytest.approx(0.9282, abs=5e-5)


def test_errors_are_of_the_scores_own_grouping(tmp_path: Path) -> None:
    """D9: questions are numbered anew in every text; grouped by number alone 8 texts of 5 questions are 5 groups, and the error is that of
    5 numbers; and an upper median of 0 and 1 is 1, where the median is 0.5."""
    texts, numbers = np.repeat(np.arange(8), 5), np.tile(np.arange(5), 8)
    right = (np.random.default_rng(0).random(8) < 0.5).astype(float)[texts]  # a text's questions stand or fall together
    own, wrong = mean_of(right, texts.astype(str), bounds=(0.0, 1.0)), mean_of(right, numbers.astype(str), bounds=(0.0, 1.0))
    assert (own.units, wrong.units) == (8, 5)
    assert own.interval is not None
    assert own.interval.high - own.interval.low > 0.4
    spread = np.array([right[numbers == k].mean() for k in range(5)]).std()
    assert spread == 0  # by number alone the error would be 0: every number has the same share
    two = (
        bbq.write(tmp_path / "a.jsonl", bbq.lines()),
        bbq.write(tmp_path / "b.jsonl", [{**one, "category": "Other"} for one in bbq.lines()]),
    )
    clusters = {sample.cluster for sample in BBQ.samples(BBQSpec(files=tuple(map(str, two))))}
    alone = {name.partition("/")[2] for name in clusters}
    assert len(clusters) == 2 * len(alone), "a template's number is one category's own"
    values = np.array([0.0, 1.0])
    assert bootstrap(np.tile(values, 10), np.median, method="percentile").value == 0.5
    assert sorted(values)[len(values) // 2] == 1.0  # the upper median


def test_the_error_of_a_bootstrap_is_the_spread_of_its_draws() -> None:
    """D11: over the root of 1,000 draws the error of a mean of 9 would be 0.0051 for 0.16: 32 times too small."""
    values = np.array([0.0, 0, 0, 0, 1, 1, 1, 1, 1])
    found = bootstrap(values, draws=1000)
    assert found.se == pytest.approx(values.std() / 3, rel=0.1)
    assert found.se == pytest.approx(0.166, abs=0.02)
    assert found.se / math.sqrt(1000) < 0.0056
    assert found.se / (found.se / math.sqrt(found.draws)) == pytest.approx(31.6, abs=0.1)


def test_a_gold_answer_that_always_stands_first_is_not_credited_with_ties(tmp_path: Path) -> None:
    """D14: the file's best answer is listed first; a model that says nothing would be right in every question, 1.0 for 0."""
    flat = [-1.0, -1.0, -1.0]
    assert int(np.argmax(flat)) == 0
    assert best(flat) is None
    assert truthful.write(tmp_path / "t.csv").is_file()


def test_sentences_that_are_liked_alike_accuse_nobody() -> None:
    even = crows.result_of([crows.scored(n, -1.0 - n // 2 % 2, -1.5) for n in range(200)])
    assert {f.verdict for f in crows.SUITE.findings(even, subject="m")} <= {Verdict.NOT_DETECTED, Verdict.INCONCLUSIVE}
    biased = crows.result_of([crows.scored(n, -1.0 - (n % 5 == 0), -1.5) for n in range(200)])
    assert crows.SUITE.findings(biased, subject="m")[0].verdict == Verdict.DETECTED
