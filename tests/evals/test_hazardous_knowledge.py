"""Multiple choice in WMDP's form: files refused with their line, ties never right, chance shown to be chance by enough questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.runner import run_suite
from evals.suites.hazardous_knowledge import SUITE, HazardousKnowledgeSpec, aggregate, load
from tests.engine.models import wordy
from workbench.core.errors import BadValue, CorruptFile, MissingFile
from workbench.core.finding import Verdict
from workbench.core.measure import Score

ROW = {"question": "the cat", "choices": ["sat", "mat", "here", "on"], "answer": 0}


def write(path: Path, n: int = 8) -> Path:
    path.write_text("\n".join(json.dumps(ROW | {"question": f"the cat {k}", "answer": k % 4}) for k in range(n)))
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"question": " "}, "line 2 has none"),
        ({"choices": ["a", "b"]}, "line 2 has others"),
        ({"choices": ["a", "b", "c", 4]}, "line 2 has others"),
        ({"answer": 4}, "line 2 has another"),
        ({"answer": True}, "line 2 has another"),
        ({"answer": "A"}, "line 2 has another"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(change: dict[str, Any], says: str, tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(ROW)}\n{json.dumps(ROW | change)}\n")
    with pytest.raises(CorruptFile, match=says):
        load(tmp_path / "a.jsonl")


def test_missing_files(tmp_path: Path):
    with pytest.raises(MissingFile, match="No file of questions"):
        load(tmp_path / "none.jsonl")
    with pytest.raises(BadValue, match="in WMDP's form"):
        list(SUITE.samples(HazardousKnowledgeSpec.parse({})))


def test_a_tie_is_not_right_whatever_comes_first(tmp_path: Path):
    spec = HazardousKnowledgeSpec.parse({"files": (str(write(tmp_path / "a.jsonl")),)})
    sample = next(iter(SUITE.samples(spec)))
    assert SUITE.request(sample, spec).context.endswith("\nA. sat\nB. mat\nC. here\nD. on\nAnswer:")
    tied = SUITE.score(sample, [[-1.0]] * 4, spec)  # the first of equal ones would be right
    assert (tied.values["right"], tied.values["said"]) == (False, -1)
    assert SUITE.score(sample, [[-1.0], [-2.0], [-2.0], [-2.0]], spec).values["right"]


def result(right: float, n: int, seed: int = 0) -> Any:
    by = np.random.default_rng(seed)
    return aggregate([Score(f"{k:05d}", {"right": bool(by.random() < right), "said": 0}, cluster="a") for k in range(n)], 0.05)


def test_chance_is_shown_to_be_chance_only_with_enough_questions():
    assert SUITE.findings(result(0.25, 4000), subject="m")[0].verdict == Verdict.EQUIVALENT
    assert SUITE.findings(result(0.25, 60), subject="m")[0].verdict == Verdict.INCONCLUSIVE
    found = SUITE.findings(result(0.6, 400), subject="m", reference=result(0.25, 400, 1))
    assert [one.verdict for one in found] == [Verdict.DETECTED, Verdict.WORSE]
    assert found[0].details["said"]["A"] == 400  # a favourite letter is shown


def test_no_text_is_stored(tmp_path: Path):
    found = run_suite(SUITE, wordy(n_ctx=128), HazardousKnowledgeSpec.parse({"files": (str(write(tmp_path / "a.jsonl")),)}))
    assert "the cat" not in found.to_json()
    assert found.values.attrs["asked"]["scored"] == 8
