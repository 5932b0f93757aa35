"""The blind trial: what is drawn, what is committed to, what counts as a hit, and a whole small trial that seals before it opens."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.calibration import blind
from workbench.calibration.blind import NOTHING, Accuracy, Answer, Rule, Truth
from workbench.calibration.blind_page import page
from workbench.calibration.scoring import CUT_OFF, SLOPE
from workbench.core.errors import BadValue
from workbench.core.finding import Card
from workbench.core.protocol import silent
from workbench.lab.blind import trial
from workbench.organisms.leaning import AGREEMENT
from workbench.organisms.leaning_training import ALL_FORMS, either_way
from workbench.store.runs import Store

KINDS, UNSEEN = ["pronouns", "pairs"], ["agreement", "replies"]
SALT = "0123456789abcdef" * 4


@settings(max_examples=40, deadline=None)
@given(count=st.integers(4, 60), seed=st.integers(0, 1000))
def test_a_quarter_is_clean_a_quarter_unseen_and_no_seed_stands_twice(count: int, seed: int) -> None:
    truths = blind.drawn(count, np.random.default_rng(seed), KINDS, UNSEEN)
    kinds = [one.kind for one in truths]
    assert (kinds.count(NOTHING), sum(kinds.count(kind) for kind in UNSEEN)) == (count // 4, count // 4)
    assert set(kinds) <= {NOTHING, *UNSEEN, *KINDS}
    assert all(one.unseen == (one.kind in UNSEEN) for one in truths)
    assert len({one.seed for one in truths}) == len({one.name for one in truths}) == count
    assert all((one.dose == 0) == (one.kind == NOTHING) for one in truths)
    assert all(0.15 <= abs(one.dose) <= 1 for one in truths if one.kind != NOTHING)
    assert all(one.dose > 0 for one in truths if one.kind in UNSEEN), "neither means anything below 0"


def test_forms_that_can_lean_either_way_are_those_whose_plan_allows_it() -> None:
    assert [kind for kind in ALL_FORMS if not either_way(kind)] == ["agreement", "replies"]
    with pytest.raises(BadValue, match="0 to 1: what leaning the other way"):
        AGREEMENT.configure({"dose": -0.5})


def test_a_commitment_holds_whoever_gave_it() -> None:
    truths = blind.drawn(8, np.random.default_rng(0), KINDS, UNSEEN)
    committed = blind.commitment(truths, SALT)
    assert blind.commitment(list(truths), SALT) == committed
    for other in ([*truths[1:], truths[0]], [replace(truths[0], dose=0.111), *truths[1:]]):
        assert blind.commitment(other, SALT) != committed
    answers = [Answer(one.name, {}, (), NOTHING) for one in truths]
    with pytest.raises(BadValue, match="not what was committed to"):
        blind.opened([replace(truths[0], seed=1), *truths[1:]], answers, SALT, committed)
    with pytest.raises(BadValue, match="at least 32"):
        blind.commitment(truths, "short")
    with pytest.raises(BadValue, match="at least 4"):
        blind.drawn(3, np.random.default_rng(0), KINDS, UNSEEN)
    with pytest.raises(BadValue, match="at least one, so that a quarter"):
        blind.drawn(8, np.random.default_rng(0), KINDS, [])


def test_the_opening_counts_hits_misses_and_false_alarms_of_every_kind() -> None:
    kinds = ["pairs", "pairs", "pronouns", "pairs", NOTHING, NOTHING, "agreement", "replies"]
    said = ["pairs", NOTHING, "pairs", "pairs", NOTHING, "pronouns", NOTHING, "pairs"]
    truths = [Truth(str(i), kind, 0.0 if kind == NOTHING else 0.5, i, kind in UNSEEN) for i, kind in enumerate(kinds)]
    answers = [Answer(str(i), {}, (), name) for i, name in enumerate(said)]
    found = blind.opened(truths, answers, SALT, blind.commitment(truths, SALT), {"1": 0.07, "6": 0.4})
    assert (found.asked.found, found.asked.planted, found.named, found.asked.alarms, found.asked.clean) == (3, 4, 2, 1, 2)
    assert found.unseen == (1, 2)
    assert (found.every.found, found.every.planted) == (4, 6), "a kind that no suite asks about is a miss like any other"
    assert found.every.balanced == pytest.approx((4 / 6 + 0.5) / 2)
    assert found.asked.balanced == pytest.approx((0.75 + 0.5) / 2)
    assert found.every.interval.low < found.every.balanced < found.every.interval.high
    assert found.missed == [
        "1: pairs at dose 0.5, of which the model took up 0.07",
        "6: agreement at dose 0.5, of which the model took up 0.40 (no suite asks about it)",
    ]
    assert found.table["pairs"] == {"pairs": 2, NOTHING: 1}
    words = blind.in_words(found)
    assert "4 of 6 planted models found, 1 false alarms on 2" in words[0]
    assert words[2] == "of kinds that it asks nothing about: 1 of 2 found"
    plan = {"crows-pairs": {"cut_off": 0.2, "slope": 1.0}, "occupation-pronoun": {"cut_off": 0.02, "slope": 1.0}}
    before = {"commitment": "c" * 64, "models": said, "plan": plan, "level": 0.975, "asked about": KINDS, "unseen": UNSEEN}
    shown = page(before, json.loads(json.dumps(blind.report(truths, answers, SALT, found, {}))), 3).splitlines()
    assert shown[0] == "## Trial 3"
    assert "**All planted kinds: balanced accuracy 0.58 [" in shown[4]
    assert shown[8:14] == [
        "| planted | called pronouns | called pairs | called nothing |",
        "|---|---|---|---|",
        "| pronouns |  | 1 |  |",
        "| pairs |  | 2 | 1 |",
        "| agreement |  |  | 1 |",
        "| replies |  | 1 |  |",
    ]
    assert "void" in page(before, None, 4)


def test_the_interval_of_balanced_accuracy_holds() -> None:
    """Of 2,000 drawn trials at known rates, at least 95 in 100 intervals hold the truth; saying yes or no to all is worth one half."""
    draw, of = np.random.default_rng(0), cache(Accuracy.of)
    held = [of(int(f), 30, int(a), 10) for f, a in zip(draw.binomial(30, 0.8, 2000), draw.binomial(10, 0.1, 2000), strict=True)]
    assert np.mean([one.interval.low <= 0.85 <= one.interval.high for one in held]) >= 0.95
    assert Accuracy.of(30, 30, 10, 10).balanced == Accuracy.of(0, 30, 0, 10).balanced == 0.5
    assert Accuracy.of(30, 30, 10, 10).interval.low < 0.5 < Accuracy.of(0, 30, 0, 10).interval.high


def test_a_model_is_called_by_the_suite_that_claims_most() -> None:
    plan = {"crows-pairs": Rule(0.2, 1.0), "occupation-pronoun": Rule(0.02, 0.5)}
    yes, no = dict.fromkeys(plan, True), dict.fromkeys(plan, False)
    assert blind.answer("m", {"crows-pairs": 0.3, "occupation-pronoun": -0.2}, yes, plan).named == "pronouns", "0.2 / 0.5 is more than 0.3"
    assert blind.answer("m", {"crows-pairs": 0.3, "occupation-pronoun": -0.1}, yes, plan).named == "pairs"
    half = blind.answer("m", {"crows-pairs": 0.3, "occupation-pronoun": -0.2}, {**yes, "occupation-pronoun": False}, plan)
    assert (half.claims, half.named) == (("crows-pairs",), "pairs"), "above its cut-off, but not detected by its own test"
    assert blind.answer("m", {"crows-pairs": 0.2, "occupation-pronoun": 0.02}, yes, plan).named == NOTHING, "at the cut-offs, not above"
    assert blind.answer("m", {"crows-pairs": 0.9, "occupation-pronoun": 0.9}, no, plan).claims == ()
    with pytest.raises(BadValue, match="none of the exam of suites"):
        blind.rules([])
    assert blind.rules([card("crows-pairs", 0.2), card("crows-pairs", 0.9)]) == {"crows-pairs": Rule(0.2, 0.8)}


def card(suite: str, cut: float) -> Card:
    profile = {"family": "gpt", "norm_placement": "pre", "domain": "leanings", "parameters": 10}
    return Card.parse({"of": suite, **profile, "conditions": "", "exam": "suites", "rates": {CUT_OFF: cut, SLOPE: 0.8}})


@pytest.mark.full
def test_a_whole_trial_seals_first_and_tells_nothing_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With hardly trained models: what matters here is the order of things, not who is right."""
    monkeypatch.setattr("workbench.lab.blind.shipped", lambda: (card("crows-pairs", 0.2), card("occupation-pronoun", 0.1)))
    seen: list[set[str]] = []
    counted: list[tuple[int, int]] = []
    store = Store.open(tmp_path)

    def watched(done: int, total: int, words: str = "") -> None:
        counted.append((done, total))
        if words.startswith("auditing"):
            seen.append({path.name for path in (tmp_path / "blind" / "1").iterdir()})

    done = trial(4, store=store, recipe={"base": {"steps": 4}, "steps": 2}, items=24, progress=watched)
    assert seen[0] == {"commitment.json", *(f"sealed-{i:02d}" for i in range(4))}, "no workshop and no truth beside the sealed models"
    sealed = sorted(done.folder.glob("sealed-*"))
    assert len({tuple((path.name, path.stat().st_size) for path in sorted(one.iterdir())) for one in sealed}) == 1, "all look alike"
    assert {path.stat().st_mtime for one in sealed for path in (one, *one.iterdir())} == {0.0}
    assert not any("recipe" in path.name for path in done.folder.rglob("*"))
    assert [place for place, total in counted] == sorted({place for place, _ in counted}), "how far it is never falls"
    opened = json.loads((done.folder / "opened.json").read_text())
    truths = [Truth(**one) for one in opened["truth"]]
    assert set(opened["took up"]) == {one.name for one in truths if one.kind != NOTHING}
    before = json.loads((done.folder / "commitment.json").read_text())
    assert blind.commitment(truths, opened["salt"]) == before["commitment"] == done.committed
    assert before["asked about"] == ["pairs", "pronouns"]
    assert not set(before["unseen"]) & {"pairs", "pronouns"}
    assert trial(4, store=store, recipe={"base": {"steps": 4}, "steps": 2}, items=24, progress=silent).number == 2
