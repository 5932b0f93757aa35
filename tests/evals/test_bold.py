"""BOLD: files whole or refused; a planted gap between groups found behind a judge's errors, none where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.judges.correction import Errors, between, difference
from evals.runner import run_suite
from evals.suites.bold import BLANK, SUITE, BoldSpec, aggregate
from evals.suites.bold_data import load
from tests.engine.models import wordy
from tests.evals.test_toxicity_continuations import KNOWN, judge
from workbench.core.errors import BadValue, CorruptFile, EmptySelection, MissingFile
from workbench.core.finding import Verdict
from workbench.core.measure import Score
from workbench.core.result import Result
from workbench.data import sources

GROUPS = ("cooks", "bakers", "drivers")


def write(folder: Path, n: int = 8) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "trade_prompt.json"
    path.write_text(json.dumps({group: {f"Name {k}": [f"the cat sat on mat {k} ", ""] for k in range(n)} for group in GROUPS}))
    return path


def settings_of(folder: Path) -> dict[str, Any]:
    """What the suite is asked in the tests of every suite."""
    return {"files": (str(write(folder / "bold")),), "judge": str(judge(folder / "bold"))}


def simulated(shares: dict[str, float], n: int = 60, k: int = 5, seed: int = 0) -> Result:
    """People of whose continuations a share is toxic, seen through a judge of known errors."""
    by = np.random.default_rng(seed)
    out = []
    for group, share in shares.items():
        for number in range(n):
            true = by.random(k) < share
            flagged = np.where(true, by.random(k) < 0.85, by.random(k) < 0.08).sum()
            values = {"flagged": int(flagged), "scored": k, "nats": 7.0, "bytes": 10}
            out.append(Score(f"trade/{group}/{number:05d}", values, cluster="trade", group=group))
    return aggregate(out, KNOWN, 4.0, judge="made")


def test_a_planted_gap_is_found_and_equal_groups_are_not_accused() -> None:
    planted = {f.measure.rpartition(", ")[2]: f for f in SUITE.findings(simulated({"a": 0.4, "b": 0.1, "c": 0.1}), subject="m")}
    assert planted["a"].verdict == Verdict.DETECTED
    assert planted["a"].effect == pytest.approx(0.3, abs=0.1)
    assert planted["a"].details["share"]["corrected"] == pytest.approx(0.4, abs=0.1)
    even = [f for seed in range(2) for f in SUITE.findings(simulated({"a": 0.2, "b": 0.2, "c": 0.2}, seed=seed), subject="m")]
    assert [f.verdict for f in even].count(Verdict.DETECTED) <= 1  # families of three at 0.05, twice
    against = SUITE.findings(
        simulated({"a": 0.4, "b": 0.1, "c": 0.1}), subject="m", reference=simulated({"a": 0.1, "b": 0.1, "c": 0.1}, seed=9)
    )
    assert against[1].verdict == Verdict.WORSE


def test_the_gap_of_unpaired_groups_is_wider_than_that_of_pairs() -> None:
    by = np.random.default_rng(0)
    base = by.binomial(5, 0.3, 200)
    more = np.minimum(5, base + (by.random(200) < 0.3))
    of = np.full(200, 5)
    apart, paired = between(more, of, base, of, KNOWN), difference(more, base, of, KNOWN)
    assert apart.value == pytest.approx(paired.value)
    assert apart.interval.high - apart.interval.low > paired.interval.high - paired.interval.low
    with pytest.raises(BadValue, match="better than chance"):
        between(more, of, base, of, Errors(1, 9, 5, 5))


def written(bits: dict[str, float], n: int = 40, seed: int = 0) -> Result:
    """People whose prompts are so surprising on average, each by its own; a person's own part is the same at every seed."""
    fixed, by, out = np.random.default_rng(99), np.random.default_rng(seed), []
    for group, mean in bits.items():
        for number in range(n):
            own = mean + fixed.normal(scale=0.5) + by.normal(scale=0.1)
            values = {"flagged": 1, "scored": 5, "nats": own * np.log(2) * 10, "bytes": 10}
            out.append(Score(f"trade/{group}/{number:05d}", values, cluster="trade", group=group))
    return aggregate(out, KNOWN, 8.0, judge="made")


def test_surprise_at_a_group_is_found_and_none_is_not() -> None:
    name = "bits per byte of prompts, trade, {}, less the others'"
    planted = {f.measure: f for f in SUITE.findings(written({"a": 3.0, "b": 2.0, "c": 2.0}), subject="m")}
    found = planted[name.format("a")]
    assert found.verdict == Verdict.DETECTED
    assert found.effect == pytest.approx(1.0, abs=0.25)
    assert "Bonferroni over 3 groups" in str(found.interval)
    even = {f.measure: f for f in SUITE.findings(written({"a": 2.0, "b": 2.0, "c": 2.0}), subject="m")}
    assert {even[name.format(group)].verdict for group in "abc"} == {Verdict.NOT_DETECTED}


def test_what_the_prompts_bring_is_no_surprise_beside_a_reference() -> None:
    """Prompts of one group are harder for both models: alone that is a difference, less the reference's it is none; and what the model adds
    is found among prompts that differ five times as much."""
    name = "bits per byte of prompts, trade, a, less the others', less the reference's"
    other = written({"a": 3.0, "b": 2.0, "c": 2.0}, seed=1)
    alike = {f.measure: f for f in SUITE.findings(written({"a": 3.0, "b": 2.0, "c": 2.0}), subject="m", reference=other)}
    assert (alike[name].verdict, alike[name].effect) == (Verdict.NOT_DETECTED, pytest.approx(0, abs=0.1))
    added = {f.measure: f for f in SUITE.findings(written({"a": 3.2, "b": 2.0, "c": 2.0}), subject="m", reference=other)}
    assert (added[name].verdict, added[name].effect) == (Verdict.DETECTED, pytest.approx(0.2, abs=0.1))


def test_few_people_have_no_interval() -> None:
    found = SUITE.findings(simulated({"a": 0.4, "b": 0.1}, n=4), subject="m")
    assert {f.verdict for f in found} == {Verdict.INCONCLUSIVE}


def test_a_blank_one_is_counted_and_no_text_is_stored(tmp_path: Path) -> None:
    spec = BoldSpec.parse({**settings_of(tmp_path), "copies": 2, "most": 3})
    sample = next(iter(SUITE.samples(spec)))
    assert SUITE.score(sample, ([[-1.0]], [" ", ""]), spec).unscored == BLANK
    assert sample.facts["prompt"] == "the cat sat on mat 0"  # without the blank at its end
    found = run_suite(SUITE, wordy(n_ctx=128), spec)
    assert "the cat" not in found.to_json()
    assert "Name" not in found.to_json()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "it is not, or it is empty"),
        ("{", "it is not"),
        ('{"a": ["b"]}', "'a' has none"),
        ('{"a": {"n": []}}', "number 1 of 'a' has none"),
        ('{"a": {"n": ["x"], "m": [3]}}', "number 2 of 'a' has none"),
    ],
)
def test_a_bad_file_is_refused(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "x_prompt.json").write_text(content)
    with pytest.raises(CorruptFile, match=says):
        list(load(tmp_path / "x_prompt.json"))


def test_other_bad_input(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="No BOLD file"):
        list(load(tmp_path / "none_prompt.json"))
    with pytest.raises(EmptySelection, match="matches no domain"):
        list(SUITE.samples(BoldSpec.parse({**settings_of(tmp_path), "domains": ("gender",)})))


@pytest.mark.skipif(not sources.mirror_folder() or not sources.available("bold"), reason="bold is not mirrored")
def test_the_registered_files_are_read() -> None:
    samples = list(SUITE.samples(BoldSpec.parse({"people": 0})))
    assert {s.cluster for s in samples} == {"gender", "profession", "race"}
    assert len({s.group for s in samples if s.cluster == "race"}) == 4
