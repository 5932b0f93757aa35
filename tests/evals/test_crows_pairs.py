"""CrowS-Pairs: the file whole or refused, the shared suffix by its definition, three scorings by hand. Sentences are not printed."""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evals.runner import run_suite
from evals.suites import crows_pairs
from evals.suites.crows_pairs import SAME, SCORINGS, SUITE, CrowsPairsSpec, aggregate, differences, preferences
from evals.suites.crows_pairs_data import BIAS_TYPES, load, shared_suffix
from tests.engine.models import words, wordy
from tests.reference.scoring import logprobs
from workbench.core.errors import CorruptFile, MissingFile
from workbench.core.finding import Verdict
from workbench.core.measure import Score
from workbench.core.result import Result
from workbench.core.stats.intervals import wilson
from workbench.data import sources

HEADER = ["", "sent_more", "sent_less", "stereo_antistereo", "bias_type", "annotations", "anon_writer", "anon_annotators"]
PAIRS = [
    ("the cat sat on the mat", "the dog sat on the mat", "stereo", "age"),
    ("a cat sat here", "a big old dog sat here", "stereo", "gender"),
    ("the mat is unbelievable", "the mat is here", "antistereo", "age"),
    ("the cat sat", "the cat sat", "stereo", "gender"),
    ("here sat the cat", "unbelievable  sat the cat", "antistereo", "religion"),
]


def write(path: Path, rows, header=HEADER) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        out = csv.writer(handle)
        out.writerow(header)
        out.writerows([[n, *row, "[]", f"w{n % 2}", "[]"] for n, row in enumerate(rows)])
    return path


# --- the file -----------------------------------------------------------------------------------------------


def test_a_file_of_the_right_form(tmp_path):
    pairs = load(write(tmp_path / "a.csv", PAIRS))
    assert [p.row for p in pairs] == list(range(5))
    assert (pairs[0].stereo, pairs[2].stereo, pairs[1].bias_type, pairs[1].writer) == (True, False, "gender", "w1")


@pytest.mark.parametrize(
    ("content", "words_"),
    [
        (b"", "it is empty"),
        (b"sent_more,sent_less,bias_type\na,b,c\n", "no column stereo_antistereo"),
        (",".join(HEADER).encode(), "a header and no rows"),
        (b"sent_more,sent_less,stereo_antistereo,bias_type\n\xff\xfe,b,stereo,age\n", "UTF-8 text, but byte 48 is not"),
        ("sent_more,sent_less,stereo_antistereo,bias_type\na,b,stereo,age".encode("utf-16"), "UTF-8 text"),
        (b"sent_more,sent_less,stereo_antistereo,bias_type\na,b,stereo\n", "4 fields a row, but row 0"),
        (
            b"sent_more,sent_less,stereo_antistereo,bias_type\na,b,stereo,age\nsecret words, ,stereo,age\n",
            "without empty 'sent_less', but row 1",
        ),
        (b"sent_more,sent_less,stereo_antistereo,bias_type\na,b,both,age\n", "'stereo or antistereo'"),
        (b'sent_more,sent_less,stereo_antistereo,bias_type\n"a,b,stereo,age\n', "a csv file, but it is not"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(content, words_, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match=words_) as error:
        load(path)
    assert "workbench data fetch crows-pairs" in str(error.value)
    assert "secret words" not in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(MissingFile, match="No CrowS-Pairs file"):
        load(tmp_path / "none.csv")


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    path = tmp_path / "bom.csv"
    path.write_bytes(b"\xef\xbb\xbfsent_more,sent_less,stereo_antistereo,bias_type\na b,c b,stereo,age\n")
    assert load(path)[0].more == "a b"
    assert load(path)[0].writer == "row 0"


mirrored = pytest.mark.skipif(not sources.mirror_folder() or not sources.available("crows-pairs"), reason="crows-pairs is not mirrored")


@mirrored
def test_the_whole_set():
    pairs = load(sources.path("crows-pairs", "crows_pairs_anonymized.csv"))
    assert len(pairs) == 1508
    assert Counter(p.bias_type for p in pairs) == dict(zip(BIAS_TYPES, (516, 262, 172, 159, 105, 87, 84, 63, 60), strict=True))
    assert sum(p.stereo for p in pairs) == 1290
    assert sum(len(p.more.split()) != len(p.less.split()) for p in pairs) == 213  # D13: 14.1 % differ in length
    assert sum(shared_suffix(p.more, p.less) is None for p in pairs) == 203


# --- the suffix ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "less", "expected"),
    [
        ("a b c", "x b c", ("a", "x", " b c")),
        ("a b c", "a b x", None),
        ("she took her hat home", "he took his hat home", ("she took her", "he took his", " hat home")),
        ("the old men were calm", "men were calm", ("the old", None, None)),
        ("one two", "one  two", None),
        ("a. b.", "c. b.", ("a.", "c.", " b.")),
        ("x rich.", "x poor.", None),
        ("  a  b  c ", "d b c", ("a", "d", " b c")),
    ],
)
def test_the_shared_suffix(more, less, expected):
    found = shared_suffix(more, less)
    if expected is None:
        assert found is None
    elif expected[1] is None:  # one sentence is the end of the other: a word of each stays in front
        assert found is not None
        assert (found.more, found.less, found.suffix) == ("the old men", "men", " were calm")
    else:
        assert found is not None
        assert (found.more, found.less, found.suffix) == expected


# --- scores -------------------------------------------------------------------------------------------------


def ids(text: str) -> list[int]:
    return words().encode(text)


@pytest.fixture
def file(tmp_path) -> str:
    return str(write(tmp_path / "pairs.csv", PAIRS))


def test_three_scorings_by_hand(file):
    model, bos = wordy(), words().bos_id
    result = run_suite(SUITE, model, CrowsPairsSpec(file=file))
    v = result.values
    for n, (more, less, _, _) in enumerate(PAIRS):
        if more == less:
            assert np.isnan(v.more.values[:, n]).all()
            continue
        for column, text in ((v.more, more), (v.less, less)):
            exact = logprobs(model, [bos], ids(text))
            assert float(column.sel(scoring="sum")[n]) == pytest.approx(math.fsum(exact), abs=1e-4)
            assert float(column.sel(scoring="geometric_mean")[n]) == pytest.approx(math.fsum(exact) / len(exact), abs=1e-5)
        suffix = shared_suffix(more, less)
        if suffix is None:
            assert np.isnan(v.more.sel(scoring="shared_suffix")[n])
        else:
            for column, before in ((v.more, suffix.more), (v.less, suffix.less)):
                exact = logprobs(model, [bos, *ids(before)], ids(suffix.suffix))
                assert float(column.sel(scoring="shared_suffix")[n]) == pytest.approx(math.fsum(exact), abs=1e-4)


def test_the_scorings_differ_where_lengths_do():
    """D13: the sum penalises the longer sentence; a mean does not."""
    longer, shorter = [-1.0] * 10, [-1.5] * 5
    values = {"sum": [sum(longer), sum(shorter)], "geometric_mean": [-1.0, -1.5], "shared_suffix": [], "bytes": 50, "stereo": True}
    result = aggregate([Score("0", values, group="age", cluster="w")], 9.0)
    assert differences(result, "sum")[0] < 0 < differences(result, "geometric_mean")[0]
    assert np.isnan(differences(result, "shared_suffix")[0])


def scored(n: int, more: float, less: float, *, group: str = "age", stereo: bool = True) -> Score:
    pair = [more, less]
    values = {"sum": pair, "geometric_mean": pair, "shared_suffix": pair if n % 2 else [], "bytes": 1000, "stereo": stereo}
    return Score(f"{n:04d}", values, group=group, cluster=f"w{n % 7}")


def result_of(scores, unigram: float = 4.0) -> Result:
    return replace(aggregate(scores, unigram), spec=CrowsPairsSpec().model_dump(mode="json"))


def test_ties_favour_neither_and_stay_in_n():
    """D14: no tie is broken by the order of the sentences."""
    scores = [scored(n, -1.0, -2.0) for n in range(20)] + [scored(20 + n, -1.0, -1.0) for n in range(10)]
    scores += [scored(30 + n, -2.0, -1.0) for n in range(10)]
    result = result_of(scores)
    assert Counter(preferences(result, "sum").tolist()) == {1.0: 20, 0.5: 10, 0.0: 10}
    finding = SUITE.findings(result, subject="m")[0]
    assert finding.effect == 0.5
    assert finding.null is not None
    assert finding.null.value == pytest.approx(0.375)
    assert finding.interval == wilson(20, 40)
    assert finding.details["ties"] == 10
    assert finding.denominators is not None
    assert (finding.denominators.run, finding.denominators.scored) == (40, 40)


def test_findings_name_their_denominators_and_subgroups():
    kinds = ["age", "gender"]
    scores = [scored(n, -1.0 - (n % 3 == 0), -1.5, group=kinds[n % 2], stereo=n % 4 > 0) for n in range(120)]
    scores.append(Score("9999", unscored=SAME, group="age", cluster="w0"))
    found = {f.measure.rpartition(", ")[2]: f for f in SUITE.findings(result_of(scores), subject="m")}
    assert list(found) == list(SCORINGS)
    assert found["sum"].effect == pytest.approx(80 / 120)
    assert found["sum"].verdict == Verdict.DETECTED
    details = found["sum"].details
    assert {k: v["n"] for k, v in details["by_bias_type"].items()} == {"age": 60, "gender": 60}
    assert details["stereo"]["n"] + details["antistereo"]["n"] == 120
    assert details["mean_difference"] == pytest.approx(np.mean([0.5 - (n % 3 == 0) for n in range(120)]))
    low, high = details["mean_difference_interval"]
    assert low < details["mean_difference"] < high
    suffix = found["shared_suffix"].denominators
    assert suffix is not None
    assert suffix.unscored == {SAME: 1, crows_pairs.NO_SUFFIX: 60}
    assert found["sum"].detectable is not None
    assert 0.12 < found["sum"].detectable < 0.14


def test_a_reference_is_compared_pair_by_pair():
    ours = result_of([scored(n, -1.0, -2.0) for n in range(60)])
    theirs = result_of([scored(n, -1.0 - 2 * (n % 2), -2.0) for n in range(60)])
    found = next(f for f in SUITE.findings(ours, subject="m", reference=theirs) if f.measure == "difference in the share of pairs, sum")
    assert found.effect == pytest.approx(0.5)
    assert found.verdict == Verdict.WORSE
    assert found.details["p_mcnemar"] < 1e-6
    same = next(f for f in SUITE.findings(ours, subject="m", reference=ours) if f.measure == "difference in the share of pairs, sum")
    assert same.verdict == Verdict.NOT_DETECTED


def test_a_model_that_cannot_read_the_sentences_gets_no_verdict(file):
    sure = wordy()
    for parameter in sure.parameters():
        parameter.data.mul_(20)  # certain of the wrong things
    result = run_suite(SUITE, sure, CrowsPairsSpec(file=file))
    assert "bits per byte" in result.values.attrs["floor"]
    assert {f.verdict for f in SUITE.findings(result, subject="random")} == {Verdict.NOT_APPLICABLE}


def test_no_sentence_is_stored(file):
    text = run_suite(SUITE, wordy(), CrowsPairsSpec(file=file)).to_json()
    assert "unbelievable" not in text
    assert "the cat" not in text


@mirrored
@pytest.mark.slow
def test_the_whole_set_runs_on_a_random_model():
    result = run_suite(SUITE, wordy(n_ctx=256))
    assert result.values.attrs["asked"]["scored"] == 1508
    assert int(np.isfinite(differences(result, "shared_suffix")).sum()) == 1305
    assert Result.from_json(result.to_json()).canonical() == result.canonical()
