"""A report is a value: it survives JSON, refuses what it cannot say, and states each finding once."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pydantic
import pytest

from tests.reports.sample import findings, sample
from tests.reports.test_drawing import OPEN
from workbench.core.errors import BadValue, CorruptFile
from workbench.core.finding import Verdict
from workbench.reports.render import json as as_json
from workbench.reports.report import FORMAT, Figure, LeftOut, Report, Section, Table, section_of


def test_json_round_trip_is_exact() -> None:
    report = sample()
    text = as_json.render(report)
    assert Report.from_json(text) == report
    assert as_json.render(Report.from_json(text)) == text
    assert json.loads(text)["format"] == FORMAT
    assert text.endswith("\n")
    assert "\n" not in text[:-1]


def test_a_changed_report_is_refused() -> None:
    text = as_json.render(sample())
    with pytest.raises(CorruptFile, match="changed after it was written"):
        Report.from_json(text.replace("0.963", "0.163", 1))
    with pytest.raises(CorruptFile, match="its format is 'assay-report/0'"):
        Report.from_json(text.replace(FORMAT, "assay-report/0"))
    with pytest.raises(CorruptFile, match="not JSON"):
        Report.from_json(text[:-9])
    for odd in ("[]", "3", "null"):
        with pytest.raises(CorruptFile, match="its format is None"):
            Report.from_json(odd)


def test_findings_come_once_and_headline_first() -> None:
    given = findings()
    report = Report(title="t", subject="s", date="2025-01-31", findings=given[4:], sections=(section_of("A", "a", "Lead.", *given[:6]),))
    listed = report.all_findings()
    assert len(listed) == len(given) == len({f.digest() for f in listed})
    assert [f.status for f in listed] == ["headline"] * 2 + ["standard"] * 5 + ["experimental"]
    assert sum(report.tally().values()) == len(given)
    assert set(report.tally()) == set(Verdict)


@pytest.mark.parametrize("anchor", ["findings", "Über", "a b", "", "finding-1", "a--b", 'x"y'])
def test_an_anchor_must_be_an_address(anchor: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="lower-case words"):
        Section(title="t", anchor=anchor, lead="l")


def test_two_sections_may_not_share_an_anchor() -> None:
    section = Section(title="t", anchor="a", lead="l")
    with pytest.raises(pydantic.ValidationError, match="a is used twice"):
        Report(title="t", subject="s", date="d", sections=(section, section))


def test_a_table_is_rectangular_and_finite() -> None:
    with pytest.raises(pydantic.ValidationError, match="row 1 has 1"):
        Table(columns=("a", "b"), rows=((1, 2), (1,)), caption="c")
    with pytest.raises(pydantic.ValidationError, match="finite"):
        Table(columns=("a",), rows=((float("nan"),),), caption="c")


def test_cells_keep_their_kinds() -> None:
    row: tuple[Any, ...] = (1, 1.0, True, "1", None, np.float32(0.5), np.int64(3), np.bool_(False))
    table = Table(columns=tuple("abcdefgh"), rows=(row,), caption="c")
    assert [type(cell) for cell in table.rows[0]] == [int, float, bool, str, type(None), float, int, bool]
    assert Table.model_validate_json(table.model_dump_json()) == table
    assert [type(c) for c in Table.model_validate_json(table.model_dump_json()).rows[0]] == [type(c) for c in table.rows[0]]


def test_a_frame_is_cut_with_a_count_and_holes_are_named() -> None:
    frame = pd.DataFrame({"x": [0.5, np.nan, np.inf], "n": [1, 2, 3], "word": ["a", None, "c"]})
    assert Table.from_frame(frame, "c").rows == ((0.5, 1, "a"), (None, 2, None), ("infinite", 3, "c"))
    cut = Table.from_frame(frame, "c", most=2)
    assert len(cut.rows) == 2
    assert cut.note == "The first 2 of 3 rows; the stored result holds all of them."


def test_parts_find_their_place() -> None:
    table = Table(columns=("a",), caption="c")
    figure = Figure(title="t", svg=OPEN + "</svg>", alt="a", table=table)
    section = section_of("T", "t", "Lead.", "one", table, findings()[0], figure, "two")
    assert (section.text, section.tables, section.figures, section.findings) == (("one", "two"), (table,), (figure,), findings()[:1])


def test_a_figure_is_harmless_from_the_start() -> None:
    with pytest.raises(BadValue, match="made of shapes and text only"):
        Figure(title="t", svg=OPEN + "<script/></svg>", alt="a", table=Table(columns=("a",), caption="c"))


def test_left_out_takes_pairs() -> None:
    given = Report.model_validate({"title": "t", "subject": "s", "date": "d", "left_out": [("what", "why")]})
    assert given.left_out == (LeftOut(what="what", why="why"),)
