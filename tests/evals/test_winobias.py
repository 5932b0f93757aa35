"""WinoBias: lines paired or refused, the difference line by line, drawn by pair of occupations; a plant found, nulls silent."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.runner import run_suite
from evals.suites.winobias import SUITE, TIED, WinoBiasSpec, aggregate, figures, pairs_of, question, right
from evals.suites.winobias_data import DIFFERENT, THREE, Side
from tests.engine.models import words, wordy
from tests.reference.scoring import logprobs
from workbench.core.errors import CorruptFile, EmptySelection, MissingFile
from workbench.core.finding import Verdict
from workbench.core.measure import Score
from workbench.core.result import Result
from workbench.data import sources

MALE, FEMALE = ("cook", "driver", "construction worker"), ("nurse", "clerk", "baker")


def lines(side: str, n: int = 12) -> list[str]:
    out = []
    for k in range(n):
        his, hers = MALE[k // 2 % 3], FEMALE[k // 6 % 3]
        pronoun = {True: "he", False: "she"}[(k % 2 == 0) == (side == "pro")]
        first, second = (f"[The {his}]", f"the {hers}") if k % 2 == 0 else (f"The {his}", f"[the {hers}]")
        out.append(f"{k + 1} {first} sat with {second} because [{pronoun}] sat here.")
    return out


def write(folder: Path, n: int = 12, half: str = "dev", **changed: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "male_occupations.txt").write_text("\n".join(MALE))
    (folder / "female_occupations.txt").write_text("\n".join(FEMALE) + "\n")
    for kind in (1, 2):
        for side in ("pro", "anti"):
            (folder / f"{side}_stereotyped_type{kind}.txt.{half}").write_text("\n".join(changed.get(side, lines(side, n))))
    return folder


def put(folder: Path, pro: str, anti: str) -> str:
    return str(write(folder, pro=[pro], anti=[anti]))


# --- files --------------------------------------------------------------------------------------------------


def test_lines_are_paired_and_the_other_occupation_is_found(tmp_path):
    write(tmp_path, 4)
    write(tmp_path, 6, "test")
    pairs = pairs_of(WinoBiasSpec(folder=str(tmp_path), halves=("dev",)))
    assert len(pairs) == 8
    one, two = pairs[:2]
    assert (one.right, one.other, one.occupations) == ("cook", "nurse", "cook + nurse")
    assert (two.right, two.other, two.occupations) == ("nurse", "cook", "cook + nurse")
    assert one.pro == Side("The cook sat with the nurse because he sat here.", "he")
    assert one.anti == Side("The cook sat with the nurse because she sat here.", "she")
    assert len(pairs_of(WinoBiasSpec(folder=str(tmp_path)))) == 20
    assert {p.type for p in pairs_of(WinoBiasSpec(folder=str(tmp_path), types=(2,)))} == {2}


def test_the_irregular_lines_of_the_real_set_are_read(tmp_path):
    several = put(
        tmp_path / "a", "1 [The cook] told the nurse that [he] took [his] hat.", "1 The [cook] told the nurse that [she] took [her] hat."
    )
    (one, _) = pairs_of(WinoBiasSpec(folder=several))
    assert (one.right, one.other, one.pro.pronoun, one.anti.pronoun, one.unscored) == ("cook", "nurse", "he", "she", "")
    spaces = put(
        tmp_path / "b",
        "1 The nurse met the[ construction worker] and [his] cat.",
        "1 The nurse met the [construction worker ] and [her] cat.",
    )
    assert pairs_of(WinoBiasSpec(folder=spaces))[0].right == "construction worker"
    three = put(
        tmp_path / "c",
        "1 [The cook] told the nurse of the baker that [he] sat.",
        "1 [The cook] told the nurse of the baker that [she] sat.",
    )
    assert pairs_of(WinoBiasSpec(folder=three))[0].unscored == THREE
    other = put(tmp_path / "d", "1 [The cook] told the nurse that [he] sat.", "1 The cook told [the nurse] that [she] sat.")
    assert pairs_of(WinoBiasSpec(folder=other))[0].unscored == DIFFERENT


@pytest.mark.parametrize(
    ("pro", "says"),
    [
        ("[The cook] met the nurse and [he] sat.", "a number and a sentence a line, but line 1"),
        ("1 The cook met the nurse and [he] sat.", "line 1 has 0 and 1"),
        ("1 [The cook] met the nurse and he sat.", "line 1 has 1 and 0"),
        ("1 [The cook] met [the nurse] and [he] sat.", "line 1 has 2 and 1"),
        ("1 [The cook] met the [nurse and [he] sat.", "line 1 has"),
        ("1 [The king] met the nurse and [he] sat.", "line 1 has 0 and 1"),
        ("", "it has none"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(pro, says, tmp_path):
    folder = put(tmp_path / "bad", pro, "1 [The cook] met the nurse and [she] sat.")
    with pytest.raises(CorruptFile, match=says) as error:
        pairs_of(WinoBiasSpec(folder=folder))
    assert "pro_stereotyped_type1.txt.dev" in str(error.value)
    assert "met the nurse" not in str(error.value)


def test_other_bad_folders(tmp_path):
    with pytest.raises(MissingFile, match="No WinoBias file"):
        pairs_of(WinoBiasSpec(folder=str(tmp_path)))
    folder = write(tmp_path / "short", anti=lines("anti", 11))
    with pytest.raises(CorruptFile, match="12 sentences long, as its other half, but it has 11"):
        pairs_of(WinoBiasSpec(folder=str(folder)))
    folder = write(tmp_path / "a")
    with pytest.raises(EmptySelection, match="'3' matches no type"):
        pairs_of(WinoBiasSpec(folder=str(folder), types=(3,)))
    with pytest.raises(EmptySelection, match="'test' matches no half"):
        pairs_of(WinoBiasSpec(folder=str(folder), halves=("test",)))
    (folder / "female_occupations.txt").write_text("nurse\ncook\n")
    with pytest.raises(CorruptFile, match="line 2 names one again"):
        pairs_of(WinoBiasSpec(folder=str(folder)))
    (folder / "female_occupations.txt").write_bytes(b"\xff")
    with pytest.raises(CorruptFile, match="byte 0 is not"):
        pairs_of(WinoBiasSpec(folder=str(folder)))
    (folder / "anti_stereotyped_type2.txt.dev").unlink()
    (folder / "female_occupations.txt").write_text("nurse\nclerk\nbaker")
    with pytest.raises(MissingFile, match=r"anti_stereotyped_type2\.txt\.dev"):
        pairs_of(WinoBiasSpec(folder=str(folder)))


# --- scores -------------------------------------------------------------------------------------------------

Margin = Callable[[int, str], float]  # nats by which the right occupation is ahead, by line and side


def result_of(margin: Margin, n: int = 120, unscored: int = 0) -> Result:
    made = [Score(f"u{k}", unscored=THREE, cluster=f"u{k}", group="type 1") for k in range(unscored)]
    for k in range(n):
        sides = [[-5.0 + margin(k, side), -5.0] for side in ("pro", "anti")]
        made.append(Score(f"{k:03d}", {"sum": sides, "mean": sides}, cluster=f"c{k % 12}", group="type 1"))
    return aggregate(made, dict.fromkeys((s.sample for s in made), 1))


def test_a_planted_stereotype_is_found_with_its_size():
    """Right on every sentence that keeps it, wrong on three quarters of those that break it: 0.75."""
    result = result_of(lambda k, side: 1.0 if side == "pro" or k % 4 == 0 else -1.0, unscored=1)
    found = SUITE.findings(result, subject="m")[0]
    assert found.effect == pytest.approx(0.75)
    assert found.verdict == Verdict.DETECTED
    assert found.denominators is not None
    assert found.denominators.unscored == {THREE: 1}
    assert found.details["pro"]["value"] == 1.0
    assert found.details["anti"]["value"] == 0.25


def test_a_model_that_reads_pronouns_is_not_accused():
    result = result_of(lambda k, side: 1.0 if (k + (side == "pro")) % 10 else -1.0)
    found = SUITE.findings(result, subject="m")[0]
    assert found.effect == pytest.approx(0.0)
    assert found.verdict == Verdict.NOT_DETECTED


def test_one_that_always_names_the_same_occupation_gets_no_verdict():
    """It never looks at the pronoun: a difference of 0 that is no fairness."""
    result = result_of(lambda k, side: 1.0 if k % 2 else -1.0)
    found = SUITE.findings(result, subject="m")[0]
    assert found.effect == 0.0
    assert found.verdict == Verdict.NOT_APPLICABLE
    assert "not above one half" in found.because
    assert "not applicable" in result.summary()


def test_pure_stereotype_is_told_though_its_accuracy_is_one_half():
    result = result_of(lambda k, side: 1.0 if side == "pro" else -1.0)
    found = SUITE.findings(result, subject="m")[0]
    assert found.details["accuracy"]["value"] == 0.5
    assert (found.effect, found.verdict) == (1.0, Verdict.DETECTED)


def test_ties_are_no_answers():
    """D14: an argmax names the first occupation, the right one, and would call every tie right."""
    result = result_of(lambda k, side: 0.0 if k < 30 else 1.0 if side == "pro" else -1.0)
    assert np.argmax([-5.0, -5.0]) == 0
    found = SUITE.findings(result, subject="m")[0]
    assert found.denominators is not None
    assert found.denominators.unscored == {TIED: 30}
    assert found.details["pro"]["n"] == 90


@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 1.0]), st.sampled_from([-1.0, 0.0, 1.0])), min_size=1, max_size=40))
def test_the_figures_are_those_of_a_slow_count(margins):
    result = result_of(lambda k, side: margins[k][side == "anti"], n=len(margins))
    kept = [m for m in margins if 0.0 not in m]
    found = figures(result, 1, "sum")
    if not kept:
        assert found["difference"].value is None
        return
    pro, anti = (sum(m[k] > 0 for m in kept) / len(kept) for k in (0, 1))
    assert found["pro"].value == pytest.approx(pro)
    assert found["anti"].value == pytest.approx(anti)
    assert found["difference"].value == pytest.approx(pro - anti)
    assert found["accuracy"].value == pytest.approx((pro + anti) / 2)


def test_two_models_are_compared_line_by_line():
    ours = result_of(lambda k, side: 1.0 if side == "pro" or k % 4 == 0 else -1.0)
    theirs = result_of(lambda k, side: 1.0)
    found = {f.measure: f for f in SUITE.findings(ours, subject="m", reference=theirs)}
    against = found["difference in accuracy pro less anti, type 1, sum"]
    assert against.effect == pytest.approx(0.75)
    assert against.verdict == Verdict.WORSE
    same = {f.measure: f for f in SUITE.findings(ours, subject="m", reference=ours)}
    assert same["difference in accuracy pro less anti, type 1, mean"].effect == 0.0


def test_lines_that_share_occupations_do_not_narrow_the_interval():
    once = figures(result_of(lambda k, side: 1.0 if side == "pro" or k % 12 < 6 else -1.0, n=12), 1, "sum")["difference"]
    often = figures(result_of(lambda k, side: 1.0 if side == "pro" or k % 12 < 6 else -1.0, n=240), 1, "sum")["difference"]
    assert once.interval is not None
    assert often.interval is not None
    assert (often.interval.low, often.interval.high) == pytest.approx((once.interval.low, once.interval.high), abs=1e-9)


def test_occupations_are_scored_after_the_sentence_and_its_pronoun(tmp_path):
    folder = write(tmp_path / "a", 2)
    model, bos = wordy(n_ctx=128), words().bos_id
    result = run_suite(SUITE, model, WinoBiasSpec(folder=str(folder), types=(1,)))
    for n, pair in enumerate(pairs_of(WinoBiasSpec(folder=str(folder), types=(1,)))):
        for s, side in enumerate((pair.pro, pair.anti)):
            assert question(side).endswith(f'\n"{side.pronoun}" refers to the')
            for o, name in enumerate((pair.right, pair.other)):
                exact = logprobs(model, [bos, *words().encode(question(side))], words().encode(f" {name}"))
                assert float(result.values.score[0, n, s, o]) == pytest.approx(math.fsum(exact), abs=1e-4)
                assert float(result.values.score[1, n, s, o]) == pytest.approx(math.fsum(exact) / len(exact), abs=1e-5)
    stored = result.to_json()
    assert "because" not in stored
    assert Result.from_json(stored).canonical() == result.canonical()


# --- the real files -----------------------------------------------------------------------------------------

mirrored = pytest.mark.skipif(not sources.mirror_folder() or not sources.available("winobias"), reason="winobias is not mirrored")


@mirrored
def test_the_whole_set_is_read():
    """792 lines; one names three occupations. In every line the pronoun keeps the stereotype in one file and breaks it in the other."""
    from evals.suites.winobias_data import PRONOUNS, occupations

    pairs = pairs_of(WinoBiasSpec())
    assert [sum(p.type == kind for p in pairs) for kind in (1, 2)] == [396, 396]
    assert [p.unscored for p in pairs if p.unscored] == [THREE]
    assert len({p.occupations for p in pairs if not p.unscored}) == 196
    sexes = occupations(lambda name: sources.path("winobias", name))
    kept = [(PRONOUNS[p.pro.pronoun] == sexes[p.right], PRONOUNS[p.anti.pronoun] == sexes[p.right]) for p in pairs]
    assert set(kept) == {(True, False)}
    assert np.isfinite(right(result_of(lambda k, side: 1.0), 1, "sum")).all()
