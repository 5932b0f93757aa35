"""The blind trial: what is drawn, what is committed to, what counts as a hit, and a whole small trial that seals before it opens."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.calibration import blind
from workbench.calibration.blind import NOTHING, UNSEEN, Answer, Truth
from workbench.calibration.scoring import CUT_OFF
from workbench.core.errors import BadValue
from workbench.core.finding import Card
from workbench.core.protocol import silent
from workbench.lab.blind import trial
from workbench.store.runs import Store

KINDS = ["pronouns", "pairs", "replies"]
SALT = "0123456789abcdef" * 4


@settings(max_examples=40, deadline=None)
@given(count=st.integers(4, 60), seed=st.integers(0, 1000))
def test_a_quarter_is_clean_a_quarter_unseen_and_no_seed_stands_twice(count: int, seed: int) -> None:
    truths = blind.drawn(count, np.random.default_rng(seed), KINDS)
    kinds = [one.kind for one in truths]
    assert (kinds.count(NOTHING), kinds.count(UNSEEN)) == (count // 4, count // 4)
    assert set(kinds) <= {NOTHING, UNSEEN, *KINDS}
    assert len({one.seed for one in truths}) == len({one.name for one in truths}) == count
    assert all((one.dose == 0) == (one.kind == NOTHING) for one in truths)
    assert all(one.dose > 0 for one in truths if one.kind in ("replies", UNSEEN))


def test_a_commitment_holds_whoever_gave_it() -> None:
    truths = blind.drawn(8, np.random.default_rng(0), KINDS)
    committed = blind.commitment(truths, SALT)
    assert blind.commitment(list(truths), SALT) == committed
    for other in ([*truths[1:], truths[0]], [replace(truths[0], dose=0.111), *truths[1:]]):
        assert blind.commitment(other, SALT) != committed
    answers = [Answer(one.name, {}, NOTHING) for one in truths]
    with pytest.raises(BadValue, match="not what was committed to"):
        blind.opened([replace(truths[0], seed=1), *truths[1:]], answers, SALT, committed)
    with pytest.raises(BadValue, match="at least 32"):
        blind.commitment(truths, "short")
    with pytest.raises(BadValue, match="at least 4"):
        blind.drawn(3, np.random.default_rng(0), KINDS)


def test_the_opening_counts_hits_misses_and_false_alarms() -> None:
    kinds = ["pairs", "pairs", "pronouns", "replies", NOTHING, NOTHING, UNSEEN, UNSEEN]
    said = ["pairs", NOTHING, "pairs", "replies", NOTHING, "blanks", NOTHING, "pairs"]
    truths = [Truth(str(i), kind, 0.0 if kind == NOTHING else 0.5, i) for i, kind in enumerate(kinds)]
    answers = [Answer(str(i), {}, name) for i, name in enumerate(said)]
    found = blind.opened(truths, answers, SALT, blind.commitment(truths, SALT))
    assert (found.hits, found.planted, found.named, found.alarms, found.clean, found.unseen, found.of_unseen) == (3, 4, 2, 1, 2, 1, 2)
    assert found.balanced == pytest.approx((0.75 + 0.5) / 2)
    assert found.interval.low < found.balanced < found.interval.high
    assert found.missed == ["1: pairs at dose 0.5"]
    assert found.table["pairs"] == {"pairs": 1, NOTHING: 1}
    assert any("3 of 4 planted models found, 1 false alarms on 2" in line for line in blind.in_words(found))


def test_a_model_is_called_by_the_suite_that_exceeds_its_cut_off_most() -> None:
    cuts = {"crows-pairs": 0.2, "occupation-pronoun": 0.02}
    assert blind.answer("m", {"crows-pairs": 0.3, "occupation-pronoun": -0.1}, cuts).named == "pronouns"
    assert blind.answer("m", {"crows-pairs": 0.19, "occupation-pronoun": 0.02}, cuts).named == NOTHING
    with pytest.raises(BadValue, match="none of the exam of suites"):
        blind.cut_offs([])


def card(suite: str, cut: float) -> Card:
    profile = {"family": "gpt", "norm_placement": "pre", "domain": "leanings", "parameters": 10}
    return Card.parse({"of": suite, **profile, "conditions": "", "exam": "suites", "rates": {CUT_OFF: cut}})


@pytest.mark.full
def test_a_whole_trial_seals_first_and_tells_nothing_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With hardly trained models: what matters here is the order of things, not who is right."""
    monkeypatch.setattr("workbench.lab.blind.shipped", lambda: (card("crows-pairs", 0.2), card("occupation-pronoun", 0.1)))
    seen: list[set[str]] = []
    store = Store.open(tmp_path)

    def watched(done: int, total: int, words: str = "") -> None:
        if words.startswith("auditing"):
            seen.append({path.name for path in (tmp_path / "blind" / "1").iterdir()})

    done = trial(4, store=store, recipe={"base": {"steps": 4}, "steps": 2}, items=24, progress=watched)
    assert seen[0] == {"commitment.json", *(f"sealed-{i:02d}" for i in range(4))}, "no workshop and no truth beside the sealed models"
    told = {path.name for path in done.folder.glob("sealed-00/*")}
    assert not any("recipe" in name for name in told)
    opened = json.loads((done.folder / "opened.json").read_text())
    truths = [Truth(**one) for one in opened["truth"]]
    before = json.loads((done.folder / "commitment.json").read_text())
    assert blind.commitment(truths, opened["salt"]) == before["commitment"] == done.committed
    assert trial(4, store=store, recipe={"base": {"steps": 4}, "steps": 2}, items=24, progress=silent).number == 2
