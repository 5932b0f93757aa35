"""HolisticBias: sentences made as published, planted differences found, the uncontrolled share's false alarms shown; files refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from evals.runner import run_suite
from evals.suites.holisticbias import SUITE, HolisticBiasSpec, aggregate, different
from tests.engine.models import wordy
from workbench.core.errors import BadValue, CorruptFile, EmptySelection, MissingFile
from workbench.core.finding import Verdict
from workbench.core.measure import Score
from workbench.core.result import Result
from workbench.core.stats.multiplicity import holm
from workbench.core.stats.pairs import different_pairs
from workbench.data import sources

TEMPLATES = [
    "I am {noun_phrase}.",
    "here sat {noun_phrase} on the mat",
    *[f"the cat sat on {{plural_noun_phrase}} {k} here" for k in range(5)],
]
DESCRIPTORS = {
    "age": {"old": ["old", {"descriptor": "aged", "article": "a very"}], "young": ["young", {"descriptor": "new", "gender": "female"}]},
    "nonce": {"all": ["blicket", "stad", "mell"]},
}
NOUNS = {"female": [["woman", "women"], ["lady", "ladies"]], "neutral": [["person", "people"], ["adult", "adults"]]}


def write(folder: Path, **changed: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name, found in {"descriptors": DESCRIPTORS, "nouns": NOUNS, "sentence_templates": {t: {} for t in TEMPLATES}, **changed}.items():
        (folder / f"{name}.json").write_text(json.dumps(found))
    return folder


def test_sentences_are_made_with_article_noun_and_number(tmp_path: Path) -> None:
    spec = HolisticBiasSpec.parse({"folder": str(write(tmp_path / "h")), "axes": ("age",), "nouns": 1})
    samples = list(SUITE.samples(spec))
    assert len(samples) == 4 * len(TEMPLATES)
    texts = [s.facts["before"] + s.facts["after"] for s in samples]
    assert texts[0] == "I am an old person."
    assert texts[len(TEMPLATES)] == "I am a very aged person."
    assert texts[3 * len(TEMPLATES)] == "I am a new woman."
    assert texts[2] == "the cat sat on old people 0 here"
    requests = [SUITE.request(s, spec) for s in samples[:2]]
    assert [len(r) for r in requests] == [1, 2]  # after the first nothing is said
    assert requests[1][1].context == "here sat an old person"
    assert requests[1][1].continuations == (" on the mat",)


def result(shift: float, n: int = 16, t: int = 26, seed: int = 0, bits: float = 1.0) -> Result:
    """An axis whose second half of descriptors is more surprising by ``shift`` times the noise."""
    by = np.random.default_rng(seed)
    out = []
    for k in range(n):
        for number in range(t):
            value = 3 + by.normal(0, 1) + shift * (k >= n // 2)
            values = {"whole": value, "rest": 2 + by.normal(0, 1), "nats": bits * np.log(2) * 10, "bytes": 10}
            out.append(Score(f"age/{k:03d}/{number:02d}", values, cluster=f"age/{k:03d}", group="age"))
    return aggregate(out, 4.0)


def test_a_planted_difference_is_found_and_none_is_not() -> None:
    found = {f.measure.rpartition(", ")[2]: f for f in SUITE.findings(result(2.0), subject="m")}
    assert found["whole"].verdict == Verdict.DETECTED
    assert found["whole"].effect == pytest.approx(64 / 120, abs=0.05)  # the pairs of one half with the other
    assert found["rest"].effect == 0
    assert found["rest"].verdict == Verdict.NOT_DETECTED
    worse = SUITE.findings(result(2.0), subject="m", reference=result(0.0, seed=1))
    assert next(f for f in worse if f.measure == "difference in pairs that differ, age, whole").verdict == Verdict.WORSE
    blind = SUITE.findings(result(2.0, bits=5.0), subject="m")[0]
    assert blind.verdict == Verdict.NOT_APPLICABLE


def test_without_control_one_pair_in_twenty_differs_where_nothing_does() -> None:
    """The published share counts every test at 0.05: about 5 % of 120 pairs for none."""
    shares = [different(result(0.0, seed=seed), "age", "whole") for seed in range(12)]
    assert all(one is not None for one in shares)
    unadjusted = np.mean([one.unadjusted for one in shares if one is not None])
    assert 0.02 < unadjusted < 0.09
    assert np.mean([one.share > 0 for one in shares if one is not None]) <= 0.25


def test_pairs_are_those_of_a_slow_count() -> None:
    table = np.random.default_rng(0).normal(0, 1, (7, 9)).round(1)
    table[3:] += 1.2
    p = [stats.mannwhitneyu(table[i], table[j], method="asymptotic").pvalue for i in range(7) for j in range(i + 1, 7)]
    found = different_pairs(table)
    assert found.share == pytest.approx(np.mean(holm(p) <= 0.05))
    assert found.unadjusted == pytest.approx(np.mean(np.array(p) <= 0.05))
    assert found.pairs == 21
    same = different_pairs(np.ones((8, 5)))
    assert same.share == 0
    assert same.interval is not None
    assert same.interval.high > 0.3  # eight rows alike say little of a ninth
    for bad, says in ((np.ones((1, 9)), "at least 2 rows"), (np.ones((3, 4)), "at least 2 rows of 5"), (np.full((3, 6), np.nan), "NaN")):
        with pytest.raises(BadValue, match=says):
            different_pairs(bad)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"sentence_templates": {"no place": {}}}, "once in a template"),
        ({"descriptors": {"age": ["old"]}}, "'age' has none"),
        ({"descriptors": {"age": {"old": [3]}}}, "'age', 'old' has another"),
        ({"nouns": {"neutral": []}}, "'neutral' has none"),
        ({"nouns": []}, "it is not, or it is empty"),
    ],
)
def test_a_bad_file_is_refused(changed: dict[str, Any], says: str, tmp_path: Path) -> None:
    spec = HolisticBiasSpec.parse({"folder": str(write(tmp_path / "h", **changed))})
    with pytest.raises(CorruptFile, match=says):
        list(SUITE.samples(spec))


def test_other_bad_input_and_what_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="No HolisticBias file"):
        list(SUITE.samples(HolisticBiasSpec.parse({"folder": str(tmp_path)})))
    folder = str(write(tmp_path / "h"))
    with pytest.raises(EmptySelection, match="matches no axis"):
        list(SUITE.samples(HolisticBiasSpec.parse({"folder": folder, "axes": ("height",)})))
    found = run_suite(SUITE, wordy(), HolisticBiasSpec.parse({"folder": folder}))
    assert "blicket" not in found.to_json()
    assert "aged" not in found.to_json()


@pytest.mark.skipif(not sources.mirror_folder() or not sources.available("holisticbias"), reason="holisticbias is not mirrored")
def test_the_registered_files_are_read() -> None:
    samples = list(SUITE.samples(HolisticBiasSpec.parse({"most": 0})))
    assert len({s.group for s in samples}) == 13
    assert len({s.cluster for s in samples}) == 583
    assert len(samples) == 583 * 26 * 2
