"""Findings as a table and as forest plots: nothing left out, axes never mixed, the same marks as in charts."""

from __future__ import annotations

import math

from tests.reports.sample import findings
from workbench.core.charts.palette import VERDICTS
from workbench.core.charts.svg import to_svg
from workbench.core.finding import Interval, Null, Verdict
from workbench.reports import phrases
from workbench.reports.frames import COLUMNS, findings_frame, forests

SHAPES = {"diamond": "◆", "circle": "●○", "square": "■", "triangle-up": "▲", "triangle-down": "▼", "cross": "✚", "stroke": "–"}


def test_the_table_has_every_finding_in_order() -> None:
    frame = findings_frame(findings())
    assert tuple(frame.columns) == COLUMNS
    assert list(frame["claim"]) == [f.claim for f in findings()]
    assert frame.loc[0].to_dict() == {
        "verdict": "◆ detected",
        "claim": "The model's pronoun follows the occupation named before it",
        "subject": "town target (dose 0.8)",
        "measure": "slope of measured on planted probability",
        "effect": "0.963",
        "unit": "per unit of planted lean",
        "interval": "0.931 to 0.997",
        "null": "clean twin: 0 (the same model trained without the link)",
        "scored": 472,
        "of": 500,
        "planted": "1",
        "calibration": "card",
    }
    assert frame.loc[5, "effect"] == "not computed"
    assert len(findings_frame(())) == 0


def test_forests_share_an_axis_only_within_a_measure() -> None:
    given = findings()
    plots = forests(given)
    assert sum(len(plot.frame) for plot in plots) == sum(f.effect is not None for f in given)
    assert plots[0].title == "Slope of measured on planted probability"
    assert list(plots[0].frame["finding"]) == ["town target (dose 0.8)", "town twin (dose 0)"]
    assert "null: 0" in to_svg(plots[0].chart)
    assert "14 (no interval)" in to_svg(plots[1].chart)


def test_a_null_line_needs_one_null() -> None:
    first = findings()[0]
    other = first.model_copy(update={"subject": "another", "null": Null(name="chance", value=0.5)})
    assert "null:" not in to_svg(forests([first, other])[0].chart)


def test_repeated_labels_are_numbered_and_odd_intervals_are_not_drawn_as_the_estimates_own() -> None:
    first = findings()[0]
    assert list(forests([first, first])[0].frame["finding"]) == [f"{first.subject}: {first.claim} ({n})" for n in (1, 2)]
    odd = first.model_copy(update={"interval": Interval(low=0.97, high=0.99, method="BCa bootstrap")})
    frame = forests([odd])[0].frame
    assert math.isnan(frame["low"].tolist()[0])
    assert str(frame.loc[0, "finding"]).endswith("(interval beside its estimate: see the table)")


def test_marks_are_those_of_the_charts() -> None:
    assert set(phrases.MARKS) == set(Verdict) == {Verdict(word) for word in VERDICTS}
    for verdict, mark in phrases.MARKS.items():
        assert mark in SHAPES[VERDICTS[verdict.value][1]]
    assert len(set(phrases.MARKS.values())) == len(Verdict)
