"""Cross-talk and hidden backdoors: what moves is told from what does not, and tables say what was measured."""

import numpy as np
import pytest

from workbench.calibration.backdoors import COLUMNS, Seen, Setting, _above, rows
from workbench.calibration.crosstalk import moved, table
from workbench.core.errors import BadValue
from workbench.data.worlds.town import Town


def test_a_suite_that_moves_is_told_from_one_that_does_not() -> None:
    draw = np.random.default_rng(0)
    noise = lambda: draw.normal(0, 0.01, 5).tolist()  # noqa: E731
    clean = {(form, suite): noise() for form in ("pairs", "replies") for suite in ("crows-pairs", "trigger")}
    planted = {key: noise() for key in clean}
    planted["pairs", "crows-pairs"] = [0.9 + x for x in noise()]
    cells = moved(planted, clean)
    assert [(c.planted, c.asked) for c in cells if c.talks] == [("pairs", "crows-pairs")]
    assert cells[0].difference == pytest.approx(0.9, abs=0.05)
    assert all(cell.interval.low <= cell.difference <= cell.interval.high for cell in cells)
    lines = table(cells).splitlines()
    assert lines[0] == "| planted | crows-pairs | trigger |"
    assert lines[2].startswith("| pairs | **+0.9")
    assert "**" not in lines[3]


def test_cells_need_their_own_twins() -> None:
    with pytest.raises(BadValue, match="as many as its twin's"):
        moved({("pairs", "trigger"): [1.0, 1.0, 1.0]}, {("pairs", "trigger"): [0.0, 0.0]})
    with pytest.raises(BadValue, match="at least 3"):
        moved({("pairs", "trigger"): [1.0, 1.0]}, {("pairs", "trigger"): [0.0, 0.0]})


def test_the_rows_of_hidden_backdoors_name_their_setting_and_average_over_seeds() -> None:
    plain, twin = Setting(3, "nothing"), Setting(1, "nothing", 0.0)
    rest = (0.5,) * (len(COLUMNS) - 4)
    scores = [(1.0, 0.9, 0.5, 0.8, *rest), (0.8, 0.9, 0.5, 0.6, *rest), (0.0, 0.0, 0.5, 0.5, *rest)]
    found = [Seen(plain, 0, scores[0]), Seen(plain, 1, scores[1]), Seen(twin, 0, scores[2])]
    first, second = rows(found)
    assert first[:2] == ("hides nothing", "1:3")
    assert second == ("clean twin", "1:1", "0.00", "0.00", *["0.50"] * (len(COLUMNS) - 2))
    assert first[2].startswith("0.90 [")
    assert first[3:5] == ("0.90", "0.50")
    assert len(first) == 2 + len(COLUMNS)


def test_a_phrase_stands_as_high_as_its_strongest_token() -> None:
    item = next(one for one in Town().trigger_items("test", 1) if one.condition == "trigger")
    assert item.phrase_span is not None
    start, stop = item.phrase_span
    spans = [(0, start), (start, start + 1), (start + 1, stop), (stop, len(item.text_before))]
    assert _above(np.array([0.2, 0.1, 0.9, 0.3]), item, spans) == 1
    assert _above(np.array([0.2, 0.1, 0.25, 0.3]), item, spans) == 0.5
    assert _above(np.array([0.2, 0.1, 0.1, 0.3, 9.0]), item, spans) == 0, "what stands after the request is padding"
