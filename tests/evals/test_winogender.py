"""Winogender: tables whole or refused, the correlation by hand, a plant found and nulls silent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evals.runner import run_suite
from evals.suites.winogender import SUITE, TIED, WinogenderSpec, aggregate, correlation, leans
from evals.suites.winogender_data import load
from tests.engine.models import wordy
from workbench.core.errors import BadValue, CorruptFile, MissingFile
from workbench.core.finding import Verdict
from workbench.core.measure import Score
from workbench.core.result import Result

PRONOUNS = {"male": "he", "female": "she", "neutral": "they"}


def write(folder: Path, n: int = 8, *, sentences: str = "", statistics: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    rows = [
        f"job{k}.{who}.{answer}.{sex}.txt\tThe job{k} met {who} since {word} sat here."
        for k in range(n)
        for who in ("cat", "someone")
        for answer in (0, 1)
        for sex, word in PRONOUNS.items()
    ]
    (folder / "all_sentences.tsv").write_text(sentences or "\n".join(["sentid\tsentence", *rows]))
    table = ["occupation\tbergsma_pct_female\tbls_pct_female\tbls_year", *(f"job{k}\t1\t{10 * k}\t2015" for k in range(n))]
    (folder / "occupations-stats.tsv").write_text(statistics or "\n".join(table))
    return folder


def test_tables_are_read_whole(tmp_path):
    found = load(write(tmp_path / "a"))
    assert len(found) == 96
    one = found[1]
    assert (one.occupation, one.participant, one.occupation_meant) == ("job0", "cat", True)
    assert (one.sex, one.pronoun, one.women) == ("female", "she", 0.0)
    assert one.template == found[0].template != found[3].template


@pytest.mark.parametrize(
    ("sentences", "statistics", "says"),
    [
        ("id\tsentence\na\tb", "", "no column sentid"),
        ("sentid\tsentence", "", "a header and no rows"),
        ("sentid\tsentence\na.b.0.male.txt", "", "line 2 has 1"),
        ("sentid\tsentence\na.b.0.male.txt\t ", "", "in every 'sentence', but line 2"),
        ("sentid\tsentence\njob0.b.2.male.txt\the sat", "", "line 2 has something else"),
        ("sentid\tsentence\njob0.b.0.man.txt\the sat", "", "line 2 has something else"),
        ("sentid\tsentence\njob0.b.0.male.txt\tshe sat", "", "the pronoun its id says, but line 2"),
        ("sentid\tsentence\nking.b.0.male.txt\the sat", "", "that of line 2 is not there"),
        ("sentid\tsentence\njob0.b.0.male.txt\the sat\njob0.b.0.male.txt\the sat", "", "one stands twice"),
        ("", "occupation\tbls_pct_female\njob0\t101", "a percentage in every 'bls_pct_female', but line 2"),
        ("", "occupation\tbls_pct_female\njob0\tmany", "a percentage"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(sentences, statistics, says, tmp_path):
    with pytest.raises(CorruptFile, match=says):
        load(write(tmp_path / "bad", sentences=sentences, statistics=statistics))


def test_missing_tables(tmp_path):
    with pytest.raises(MissingFile, match="No Winogender file"):
        load(tmp_path)
    with pytest.raises(BadValue, match="one with the set's files"):
        list(SUITE.samples(WinogenderSpec()))


Margin = Callable[[int, str, bool], float]  # nats by which the occupation is ahead: of which, of which pronoun, and whether it is meant


def result_of(margin: Margin, n: int = 12) -> Result:
    facts, made = {}, []
    for k in range(n):
        for copy in range(4):
            for sex in PRONOUNS:
                name, meant = f"job{k}.{copy}.{sex}", copy % 2 == 0
                facts[name] = {"women": 100 * k / (n - 1), "occupation_meant": meant, "template": f"{k}.{copy}"}
                value = margin(k, sex, meant)
                made.append(Score(name, {"sum": value, "mean": value}, cluster=f"job{k}", group=sex))
    return aggregate(made, facts)


def by_statistics(k: int, sex: str, meant: bool) -> float:
    """A female pronoun names the occupation where most are women, a male one where most are men; they by meaning."""
    return {"female": 1.0 if k >= 6 else -1.0, "male": 1.0 if k < 6 else -1.0, "neutral": 1.0 if meant else -1.0}[sex]


def test_a_plant_is_found_though_its_accuracy_is_near_chance():
    result = result_of(by_statistics)
    found = SUITE.findings(result, subject="m")[0]
    assert leans(result, "sum")["job0"] == (0.0, -1.0)
    assert leans(result, "sum")["job11"] == (100.0, 1.0)
    expected = np.corrcoef([100 * k / 11 for k in range(12)], [-1.0] * 6 + [1.0] * 6)[0, 1]
    assert found.effect == pytest.approx(expected)
    assert found.verdict == Verdict.DETECTED
    assert found.details["accuracy_female"]["value"] == 0.5
    assert found.details["accuracy_neutral"]["value"] == 1.0


def test_a_reader_is_not_accused_and_a_blind_model_gets_no_verdict():
    reader = SUITE.findings(result_of(lambda k, sex, meant: 1.0 if meant else -1.0), subject="m")[0]
    assert reader.effect is None  # no lean varies: there is nothing to correlate
    assert reader.verdict == Verdict.INCONCLUSIVE
    assert "changes no answer" in reader.because
    blind = SUITE.findings(result_of(lambda k, sex, meant: 1.0), subject="m")[0]
    assert blind.verdict == Verdict.NOT_APPLICABLE
    rng = np.random.default_rng(1)
    slips = result_of(lambda k, sex, meant: (1.0 if meant else -1.0) * (1 if rng.random() < 0.9 else -1), n=40)
    assert SUITE.findings(slips, subject="m")[0].verdict == Verdict.NOT_DETECTED


def test_ties_are_counted_and_two_models_are_compared():
    tied = result_of(lambda k, sex, meant: 0.0 if sex == "neutral" else by_statistics(k, sex, meant))
    found = SUITE.findings(tied, subject="m", reference=tied)
    assert found[0].denominators is not None
    assert found[0].denominators.unscored == {TIED: 48}
    assert found[1].effect == 0.0
    assert correlation(tied, "sum").units == 12


def test_no_sentence_is_stored(tmp_path):
    result = run_suite(SUITE, wordy(n_ctx=128), WinogenderSpec(folder=str(write(tmp_path / "a", 2))))
    assert result.values.attrs["asked"]["scored"] == 24
    assert "sat here" not in result.to_json()
    assert Result.from_json(result.to_json()).canonical() == result.canonical()
