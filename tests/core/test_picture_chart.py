"""Values over a picture: the pixels are the picture's, the boxes lie where they should, and a chart can enter a report."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import numpy as np
import pytest

from workbench.core.charts.picture import Extent, grey, laid_over, plain, png
from workbench.core.charts.svg import to_svg
from workbench.core.errors import BadValue
from workbench.reports.drawing import clean

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (4, 6, 3)).astype(np.uint8)
BOXES = np.array([[0, 0, 0, 0], [0, 2, 0, 3], [0, 2, 3, 6], [2, 4, 0, 3], [2, 4, 3, 6]])
NAMES = ["class", "0,0", "0,1", "1,0", "1,1"]


def cells_of(whole: dict[str, Any], panel: int | None = None) -> list[dict[str, Any]]:
    """The boxes of a chart's spec, or of one of its panels: altair keeps all data beside one another, by name."""
    named = json.dumps(whole if panel is None else whole["concat"][panel])
    found = [rows for name, rows in whole["datasets"].items() if f'"name": "{name}"' in named and "strength" in rows[0]]
    return found[0]


def rows_of(chart: Any) -> list[dict[str, Any]]:
    return cells_of(chart.to_dict())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_is_read_back_by_others(channels: int) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = COLOUR[:, :, :channels]
    read = np.asarray(image.open(io.BytesIO(png(pixels))))
    assert np.array_equal(read.reshape(pixels.shape), pixels)
    assert png(pixels) == png(pixels.copy())
    with pytest.raises(BadValue, match="uint8"):
        png(pixels.astype(float))


def test_boxes_lie_where_they_are_in_the_picture() -> None:
    chart = laid_over(COLOUR, Extent(4, 6), BOXES, np.array([0.9, 0.1, -0.4, 0.2, np.nan]), NAMES, title="t", signed=True)
    assert (chart.width, chart.height) == (240, 160)
    rows = rows_of(chart)
    assert [(r["name"], r["x"], r["x2"], r["y"], r["y2"]) for r in rows] == [
        ("0,0", 0, 120, 0, 80), ("0,1", 120, 240, 0, 80), ("1,0", 0, 120, 80, 160),
    ]  # fmt: skip
    assert [r["written"] for r in rows] == ["+.10", "−.40", "+.20"]
    assert rows[1]["strength"] == pytest.approx(0.8)  # the strongest of those in the picture
    assert rows[0]["strength"] == pytest.approx(0.1 + 0.7 / 4)
    said = " ".join(chart.title.subtitle)
    assert said.startswith("First: 0,1 (−0.4), 1,0 (+0.2)")
    assert "Not in the picture: class (+0.9)" in said
    dashed = [one for one in chart.to_dict()["layer"] if one["mark"].get("strokeDash")]
    assert dashed[0]["transform"] == [{"filter": "isValid(datum.value) && datum.value < 0"}]


def test_a_spectrogram_fills_its_place_and_narrow_frames_have_no_numbers() -> None:
    frames = np.array([[0, 4, i, i + 1] for i in range(40)])
    chart = laid_over(COLOUR[:, :, :1], Extent(4, 40, square=False), frames, np.arange(40.0), [str(i) for i in range(40)], title="t")
    assert (chart.width, chart.height) == (480, 140)
    assert rows_of(chart)[-1]["x2"] == pytest.approx(480)
    assert [one["mark"]["type"] for one in chart.to_dict()["layer"]] == ["image", "rect"]


def test_small_numbers_are_written_with_a_digit() -> None:
    chart = laid_over(COLOUR, Extent(4, 6), BOXES[1:], np.array([0.002, 0.004, 0.0, 0.001]), NAMES[1:], title="t")
    assert [r["written"] for r in rows_of(chart)] == ["0.002", "0.004", "0", "0.001"]


def test_it_may_enter_a_report() -> None:
    pytest.importorskip("vl_convert")
    for chart in (
        plain(COLOUR, Extent(4, 6), title="The picture"),
        laid_over(COLOUR, Extent(4, 6), BOXES, np.arange(5.0), NAMES, title="Values"),
    ):
        kept = clean(to_svg(chart))
        found = re.search(r'href="data:image/png;base64,([^"]+)"', kept)
        assert found is not None
        held = base64.b64decode(found[1])
        assert held == png(COLOUR if chart.title.text == ["The picture"] else grey(COLOUR))
        assert to_svg(chart) == to_svg(chart)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(BadValue, match="equally many"):
        laid_over(COLOUR, Extent(4, 6), BOXES, np.arange(4.0), NAMES, title="t")
    with pytest.raises(BadValue, match="boxes with a value"):
        laid_over(COLOUR, Extent(4, 6), BOXES[:1], np.arange(1.0), NAMES[:1], title="t")
    with pytest.raises(BadValue, match="infinite"):
        laid_over(COLOUR, Extent(4, 6), BOXES, np.array([0, 1, np.inf, 0, 0]), NAMES, title="t")
