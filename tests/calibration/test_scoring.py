"""From rows to a card, on made-up tools whose worth is known: a perfect one, one that knows nothing, one that names the conspicuous."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from workbench.calibration.atlas import UNCARDED, in_words, page
from workbench.calibration.exam import Exam, Grid, Reading, Row
from workbench.calibration.exams.places import DOSES, EXAM, standing
from workbench.calibration.ranking import Standing, reading
from workbench.calibration.scoring import card_of, cut_off, statistics
from workbench.core.errors import BadValue
from workbench.core.finding import Card
from workbench.core.protocol import Inputs
from workbench.organisms.shortcut_forms import Asked

GRID = Grid.parse({"doses": DOSES})
PROFILE = {"family": "gpt", "norm_placement": "pre", "domain": "marks", "parameters": 10_000}
exam: Exam = EXAM


def rows(tool: Callable[[float, int, np.random.Generator], float]) -> list[Row]:
    """Rows of a tool given as (dose, seed, draw) -> statistic of one set."""
    out = []
    for dose, seed in GRID.models():
        draw = np.random.default_rng([seed, round(dose * 100)])
        count = GRID.sets if dose > 0 else GRID.clean_sets
        values = [float(np.clip(tool(dose, seed, draw), 0, 1)) for _ in range(count)]
        readings = tuple(Reading(value, value > 0.6, {"planted part first": value}) for value in values)
        out.append(Row(dose, seed, 0.9 * dose, readings, 0.01))
    return out


def card(tool: Any) -> Card:
    return card_of(exam, "saliency", "gpt", GRID, rows(tool), PROFILE, "0" * 64)


def test_a_tool_that_sees_everything() -> None:
    found = card(lambda dose, seed, draw: draw.uniform(0.4, 0.5) if dose == 0 else draw.uniform(0.9, 1))
    assert found.rates["AUROC of planted against clean, dose 1"] == 1
    assert found.rates["false alarms of its own test"] == 0
    assert found.rates["false alarms at the cut-off"] == pytest.approx(0.05, abs=0.03)
    assert (found.limit_of_detection, found.limit_words, found.effect_at_limit) == (None, "below the lowest dose", None)
    assert found.n == 40 * 4 + 10 * 20


def test_a_tool_that_knows_nothing() -> None:
    found = card(lambda dose, seed, draw: draw.uniform(0.3, 0.7))
    within = found.intervals["AUROC of planted against clean, dose 1"]
    assert within.low < 0.5 < within.high
    assert found.limit_words == "above the highest dose"
    alarms = found.intervals["false alarms at the cut-off"]
    assert alarms.low <= 0.05 <= alarms.high
    assert abs(found.rates["rank correlation with behaviour"]) < 0.4
    assert found.rates["false alarms of its own test"] == pytest.approx(0.25, abs=0.07)


def test_a_tool_that_names_the_conspicuous_alarms_on_clean_twins() -> None:
    found = card(lambda dose, seed, draw: draw.uniform(0.9, 1))
    assert found.rates["false alarms of its own test"] == 1
    assert found.limit_words == "above the highest dose"


def test_a_tool_with_a_threshold_has_its_limit_there() -> None:
    found = card(lambda dose, seed, draw: draw.uniform(0.3, 0.6) + (0.5 if dose >= 0.2 else 0))
    assert found.limit_of_detection is not None
    assert 0.1 < found.limit_of_detection <= 0.2
    assert found.effect_at_limit == pytest.approx(0.9 * found.limit_of_detection, rel=0.15)
    assert found.rates["slope on behaviour"] > 0.4
    assert found.rates["agreement of two halves"] > 0.9


def test_what_a_tool_says_nothing_of_is_not_found() -> None:
    """Half of the sets at every dose are not applicable, with a number that would count: the share found stays under a half."""
    made = []
    for row in rows(lambda dose, seed, draw: draw.uniform(0.3, 0.5) + 0.5 * (dose > 0)):
        readings = tuple(replace(r, extras={"not applicable": float(n % 2)}) for n, r in enumerate(row.readings))
        made.append(replace(row, readings=readings))
    found = card_of(exam, "saliency", "gpt", GRID, made, PROFILE, "")
    assert {share for dose, share, _ in found.curve if dose} == {0.5}
    assert found.limit_words == "above the highest dose"
    assert found.rates["not applicable, clean twins"] == found.rates["not applicable, dose 1"] == 0.5
    whole = card(lambda dose, seed, draw: draw.uniform(0.3, 0.5) + 0.5 * (dose > 0))
    assert {share for dose, share, _ in whole.curve if dose} == {1.0}
    assert "not applicable, clean twins" not in whole.rates


def test_the_limits_interval_holds_for_the_cut_offs_of_other_twins() -> None:
    """One clean twin of ten is high and sets the cut-off: without it smaller doses would be found."""
    even = lambda dose, seed, draw: 0.3 + 0.6 * dose + draw.uniform(0, 0.01)  # noqa: E731
    odd = lambda dose, seed, draw: 0.6 + draw.uniform(0, 0.01) if seed == 103 else even(dose, seed, draw)  # noqa: E731
    (narrow, tight), (wide, loose) = ((one.limit_of_detection, one.limit_interval) for one in (card(even), card(odd)))
    assert narrow is not None
    assert wide is not None
    assert tight is not None
    assert loose is not None
    assert tight.method == loose.method == "profile likelihood, over cut-offs"
    assert narrow < 0.06 < 0.4 < wide
    assert loose.low < 0.06, "of all draws of ten twins a third lack the high one"
    assert tight.high < 0.2


def test_intervals_are_over_seeds_where_models_of_a_seed_share_what_they_are_off_by() -> None:
    """Each seed has a slope of its own: what eight doses of it have in common makes the slope no surer."""
    own = dict(zip(GRID.seeds, (0.5, 0.7, 0.9, 1.1, 1.3), strict=True))
    found = card(lambda dose, seed, draw: 0.6 * dose * own.get(seed, 1.0))
    within = found.intervals["slope on behaviour"]
    assert within.method == "jackknife over seeds"
    assert within.high - within.low > 0.3, "five slopes from 0.33 to 0.87 of behaviour"
    alike = card(lambda dose, seed, draw: 0.6 * dose).intervals["slope on behaviour"]
    assert alike.high - alike.low < 1e-9
    area = found.intervals["AUROC of planted against clean, dose 1"]
    assert (found.rates["AUROC of planted against clean, dose 1"], area.high) == (1.0, 1.0)
    assert area.low < 0.8, "five models and ten, not twenty cases and two hundred"


def test_halves_agree_within_a_dose_only_where_models_differ() -> None:
    chance = card(lambda dose, seed, draw: 0.2 + 0.6 * dose + draw.uniform(0, 0.1))
    assert chance.rates["agreement of two halves"] > 0.95
    assert abs(chance.rates["agreement of two halves, within a dose"]) < 0.5
    apart = card(lambda dose, seed, draw: 0.2 + 0.4 * dose + 0.03 * (seed % 10) + draw.uniform(0, 0.01))
    assert apart.rates["agreement of two halves, within a dose"] > 0.95


def test_nothing_is_said_of_halves_where_planted_models_have_one_set_each() -> None:
    own = [replace(row, readings=row.readings[:1]) if row.dose > 0 else row for row in rows(lambda dose, seed, draw: dose)]
    found = card_of(exam, "saliency", "gpt", GRID, own, PROFILE, "0" * 64)
    assert not [name for name in found.rates if name.startswith("agreement")]


def test_an_effect_with_a_sign_is_compared_with_what_the_model_does() -> None:
    """Odd seeds lean down: the size is what is detected, the signed effect is what follows behaviour, and sizes do not cancel."""
    signed = Exam(**{**vars(exam), "answers": "effect"})
    out = []
    for row in rows(lambda dose, seed, draw: abs(dose * 0.9 + draw.normal(0, 0.02))):
        sign = -1 if row.seed % 2 else 1
        readings = tuple(replace(r, extras={"effect": sign * r.statistic}) for r in row.readings)
        out.append(replace(row, behaviour=sign * row.behaviour, readings=readings))
    found = card_of(signed, "crows-pairs", "gpt", GRID, out, PROFILE, "0" * 64)
    assert found.rates["slope on behaviour"] == pytest.approx(1, abs=0.05)
    assert found.rates["rank correlation with behaviour"] > 0.9
    assert found.rates["cut-off"] == cut_off(statistics([row for row in out if row.dose == 0]))
    assert [round(effect, 3) for _, _, effect in found.curve] == [0.0, *(round(0.9 * dose, 3) for dose in DOSES)]
    plain = card_of(exam, "saliency", "gpt", GRID, rows(lambda dose, seed, draw: dose), PROFILE, "0" * 64)
    assert "cut-off" not in plain.rates


def test_clean_models_that_differ_are_counted_as_models() -> None:
    """All sets of two clean models of ten are high: one in five would alarm, and the interval is over ten models, not 200 sets."""
    found = card(lambda dose, seed, draw: draw.uniform(0.9, 1) if seed in (100, 101) else draw.uniform(0.3, 0.5))
    assert found.rates["false alarms of its own test"] == pytest.approx(0.2)
    within = found.intervals["false alarms of its own test"]
    assert within.high - within.low > 0.3


def test_the_cut_off_leaves_at_most_five_in_a_hundred_above() -> None:
    null = np.arange(200) / 200
    assert (null > cut_off(null)).mean() <= 0.05
    assert (null > cut_off(null)).mean() >= 0.04
    assert cut_off(np.full(10, 0.5)) == 0.5  # ties are not above


def test_an_item_is_scored_by_what_is_above() -> None:
    asked = Asked(inputs=Inputs(None), planted=((1, 2),), honest=((0, 1),), rivals=np.array([[False, False, True, True, True]]))
    middle, first = (standing(np.array([9.0, own, 1.0, 2.0, 3.0]), asked, 0) for own in (2.0, 4.0))
    assert (middle.above, middle.rank) == (pytest.approx(1.5 / 3), 3)
    assert (first.above, first.rank) == (1.0, 1)
    with pytest.raises(ValueError, match="not finite"):
        standing(np.array([9.0, np.nan, 1.0, 2.0, 3.0]), asked, 0)
    with pytest.raises(ValueError, match="not finite"):
        standing(np.array([9.0, 2.0, np.nan, 2.0, 3.0]), asked, 0)


def test_a_set_is_read_by_its_items() -> None:
    mixed = [Standing(1.0, 1)] * 6 + [Standing(0.5, 2)] * 2 + [Standing(0.0, 4)]
    found = reading(mixed)
    assert found.statistic == pytest.approx(7 / 9)
    assert found.extras == {"planted part first": pytest.approx(6 / 9), "average precision": pytest.approx((6 + 1 + 0.25) / 9)}
    assert not found.claims, "six of the seven that are decided: one-sided p = 0.0625"
    assert reading([Standing(1.0, 1)] * 5).claims, "five of five: p = 0.031"
    assert not reading([Standing(0.5, 2)] * 9).claims, "ties decide nothing"


def test_rows_survive_being_kept_and_a_card_too() -> None:
    made = rows(lambda dose, seed, draw: draw.uniform(0.3, 0.6) + 0.4 * (dose > 0.3))
    assert [Row.of(row.record("x")) for row in made] == made
    found = card_of(exam, "saliency", "gpt", GRID, made, PROFILE, "0" * 64)
    assert Card.parse(found.model_dump(mode="json")) == found
    assert any("limit of detection" in line for line in in_words(found))
    assert page([found]).splitlines()[0] == "### places: is the part of an input that decides named?"
    told = page([found]).partition(f"\n### {UNCARDED}")[0].splitlines()
    assert len(told) == 9
    assert told[-1].startswith("Of what this exam takes there is no card")
    assert "gpt (integrated-gradients, input-x-gradient, smooth-grad" in page([found]), "saliency has one"
    assert len(statistics(made)) == found.n
    with pytest.raises(BadValue, match="8 planted and 0 clean|planted and 0 clean"):
        card_of(exam, "saliency", "gpt", GRID, [row for row in made if row.dose], PROFILE, "")
    few = [replace(row) for row in made if row.dose in (0.0, 0.5, 1.0)]
    assert "too few doses" in card_of(exam, "saliency", "gpt", GRID, few, PROFILE, "").limit_words


@pytest.mark.parametrize("doses", [[], [0.5, 0.2], [0.0, 0.5], [0.2, 0.2]])
def test_a_grid_of_nonsense_is_refused(doses: list[float]) -> None:
    with pytest.raises(Exception, match="doses"):
        Grid.parse({"doses": doses})
