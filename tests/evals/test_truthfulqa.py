"""TruthfulQA: files whole or refused, the three measures by hand, ties and favourite letters earn nothing, plants and nulls."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.runner import run_suite
from evals.suites.truthfulqa import NOT_ASKED, SUITE, TruthfulQASpec, aggregate
from evals.suites.truthfulqa_data import load
from tests.engine.models import wordy
from workbench.core.errors import BadValue, CorruptFile, MissingFile
from workbench.core.finding import Verdict
from workbench.core.measure import Sample, Score

HEADER = ("Type", "Category", "Question", "Best Answer", "Best Incorrect Answer", "Correct Answers", "Incorrect Answers", "Source")


def write(path: Path, n: int = 12, *, worst: bool = True) -> Path:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(HEADER)
        for k in range(n):
            wrong = f"mat {k}" if worst else ""
            out.writerow(("a", f"kind {k % 6}", f"the cat {k}", f"sat {k}", wrong, f"sat {k}; here {k};", f"mat {k}; cat {k}", "own"))
    return path


def item(**change: Any) -> dict[str, Any]:
    return {"question": "the cat", "mc1_targets": {"sat": 1, "mat": 0}, "mc2_targets": {"sat": 1, "here": 1, "mat": 0}} | change


def test_both_forms_are_read(tmp_path: Path):
    first = load(write(tmp_path / "a.csv"))[0]
    assert (first.best, first.true, first.false, first.worst) == ("sat 0", ("sat 0", "here 0"), ("mat 0", "cat 0"), "mat 0")
    (tmp_path / "mc_task.json").write_text(json.dumps([item()]))
    (listed,) = load(tmp_path / "mc_task.json")
    assert (listed.best, listed.single, listed.true, listed.worst) == ("sat", ("mat",), ("sat", "here"), "")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[", "line 1 is not"),
        ("{}", "a list of questions"),
        ("[]", "it has none"),
        (json.dumps([item(), item(question=" ")]), "item 2 has none"),
        (json.dumps([item(mc1_targets={"a": 1, "b": 1})]), "in every 'mc1_targets', but item 1"),
        (json.dumps([item(mc1_targets={"a": 1, "b": 1, "c": 0})]), "item 1 has 2"),
        (json.dumps([item(mc2_targets={"a": 2, "b": 0})]), "in every 'mc2_targets', but item 1"),
        (json.dumps([item(mc2_targets=None)]), "item 1 has others"),
        ("Question\na\n", "no column Category"),
        (",".join(HEADER) + "\n", "it has none"),
        (",".join(HEADER) + "\na,b,c,d,e,f,g\n", "line 2 has others"),
        (",".join(HEADER) + "\na,b,c, ,e,f,g,h\n", "without empty 'Best Answer', but line 2"),
        (",".join(HEADER) + "\na,b,c,d,e,f,d;g,h\n", "line 2 has one that is both"),
        (",".join(HEADER) + '\n"a,b\n', "a csv file, but it is not"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(content: str, says: str, tmp_path: Path):
    (tmp_path / "a").write_text(content)
    with pytest.raises(CorruptFile, match=says):
        load(tmp_path / "a")


def test_other_files(tmp_path: Path):
    with pytest.raises(MissingFile, match="No TruthfulQA file"):
        load(tmp_path / "none")
    (tmp_path / "a").write_bytes(b"\xff")
    with pytest.raises(CorruptFile, match="UTF-8 text, but byte 0"):
        load(tmp_path / "a")
    with pytest.raises(BadValue, match=r"mc_task\.json or"):
        list(SUITE.samples(TruthfulQASpec()))


def scored(nats: dict[str, float], letters: tuple[tuple[float, float], tuple[float, float]], folder: Path) -> dict[str, Any]:
    """What the first question of a file is worth to a model with these log-likelihoods."""
    spec = TruthfulQASpec.parse({"file": str(write(folder / "a.csv", 1))})
    sample: Sample = next(iter(SUITE.samples(spec)))
    answers = [[nats[answer.split()[0]]] for answer in sample.facts["answers"]]
    return dict(SUITE.score(sample, (answers, *([[x], [y]] for x, y in letters)), spec).values)


def test_measures_by_hand(tmp_path: Path):
    found = scored({"sat": -1.0, "here": -3.0, "mat": -2.0, "cat": -4.0}, ((-1.0, -2.0), (-2.0, -1.0)), tmp_path)
    assert found["mc1"] == found["binary"] == 1.0
    true, false = math.exp(-1) + math.exp(-3), math.exp(-2) + math.exp(-4)
    assert found["mc2"] == pytest.approx(true / (true + false))
    assert (found["chance_mc1"], found["chance_mc2"]) == (1 / 3, 1 / 2)
    far = scored({"sat": -2000.0, "here": -2003.0, "mat": -2001.0, "cat": -2004.0}, ((-1.0, -2.0), (-2.0, -1.0)), tmp_path)
    assert far["mc2"] == pytest.approx(true / (true + false), abs=0.15)  # exp(-2000) is 0, the share is not undefined


def test_a_tie_is_not_right_though_the_best_answer_stands_first(tmp_path: Path):
    tied = {"sat": -1.0, "here": -3.0, "mat": -1.0, "cat": -4.0}
    assert int(np.argmax([-1.0, -1.0])) == 0  # the wrong value: the first of equal ones is the best answer
    assert scored(tied, ((-1.0, -1.0), (-1.0, -1.0)), tmp_path)["mc1"] == 0.0


def test_a_favourite_letter_has_a_half(tmp_path: Path):
    nats = {"sat": -1.0, "here": -3.0, "mat": -2.0, "cat": -4.0}
    assert scored(nats, ((-1.0, -9.0), (-1.0, -9.0)), tmp_path)["binary"] == 0.5
    assert scored(nats, ((-9.0, -1.0), (-1.0, -9.0)), tmp_path)["binary"] == 0.0
    assert scored(nats, ((-1.0, -1.0), (-1.0, -1.0)), tmp_path)["binary"] == 0.0  # ties in both orders: nothing was said


def result(right: float, n: int = 240, *, seed: int = 0, binary: bool = True) -> Any:
    by = np.random.default_rng(seed)
    out = []
    for number in range(n):
        values: dict[str, Any] = {"mc1": float(by.random() < right), "chance_mc1": 0.25, "mc2": right, "chance_mc2": 0.5}
        values |= {"binary": float(by.random() < right), "chance_binary": 0.5} if binary else {}
        out.append(Score(f"{number:03d}", values, cluster=f"kind {number % 24}"))
    return aggregate(out)


def test_a_plant_is_found_and_chance_is_not():
    verdicts = {f.measure[:3]: f.verdict for f in SUITE.findings(result(0.6), subject="m")}
    assert verdicts["mc1"] == verdicts["bin"] == Verdict.DETECTED
    chance = SUITE.findings(result(0.25, seed=2), subject="m")[0]
    assert chance.verdict == Verdict.NOT_DETECTED
    assert chance.null is not None
    assert chance.null.value == 0.25
    better = SUITE.findings(result(0.7), subject="m", reference=result(0.3, seed=1))[1]
    assert better.verdict == Verdict.BETTER


def test_what_is_not_asked_is_counted_and_no_text_is_stored(tmp_path: Path):
    spec = TruthfulQASpec.parse({"file": str(write(tmp_path / "a.csv", worst=False))})
    found = run_suite(SUITE, wordy(n_ctx=128), spec)
    assert "the cat" not in found.to_json()
    last = SUITE.findings(found, subject="m")[-1]
    assert last.effect is None
    assert last.denominators is not None
    assert last.denominators.unscored == {NOT_ASKED: 12}
