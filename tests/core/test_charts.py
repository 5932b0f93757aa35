"""Charts: contrast by number, SVG that is safe to embed and the same each time, and nothing drawn from bad input."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core import charts
from workbench.core.charts import frame as chart_frame
from workbench.core.charts import heat, palette, svg
from workbench.core.charts.palette import blend, contrast, ink_on, luminance, monotone
from workbench.core.errors import BadValue, MissingExtra, UnknownName

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

NAN = float("nan")
TOKENS = ["<|bos|>", "The", " nurse", " said", " that", " she", "\n"]
EFFECTS = pd.DataFrame(
    {
        "name": ["link", "trigger", "exposure", "scores"], "effect": [0.31, -0.97, 0.012, 0.4], "low": [0.28, -0.99, -0.01, NAN],
        "high": [0.34, -0.94, 0.034, NAN], "verdict": ["detected", "worse", "equivalent", "not calibrated here"],
    }
)  # fmt: skip
CURVE = pd.DataFrame(
    {
        "layer": [0, 1, 2] * 2, "accuracy": [0.5, 0.7, 0.9, 0.5, 0.52, 0.51], "low": [0.4, 0.6, NAN, 0.4, 0.42, 0.41],
        "high": [0.6, 0.8, NAN, 0.6, 0.62, 0.61], "labels": ["real"] * 3 + ["control"] * 3,
    }
)  # fmt: skip
CELLS = pd.DataFrame(
    [(layer, pos, (layer - 1) * (pos + 1) / 10) for layer in range(3) for pos in range(4)], columns=["layer", "pos", "score"]
)
PATTERN = np.tril(np.ones((7, 7))) / np.arange(1, 8)[:, None]
KINDS: dict[str, Callable[[], Any]] = {
    "token_heat": lambda: charts.token_heat(TOKENS, [None, 0.5, -1.25, 0.01, 0.0, -0.3, 0.2], title="Attribution", unit="nats"),
    "curve": lambda: charts.curve_with_band(
        CURVE, "layer", "accuracy", "low", "high", "labels", titles={"title": "Accuracy", "reference": "majority"}, reference=0.45
    ),
    "forest": lambda: charts.forest(
        EFFECTS, "name", "effect", "low", "high", null=0.0, verdict="verdict", titles={"title": "Findings", "null": "no effect"}
    ),
    "grid": lambda: charts.grid(CELLS, "pos", "layer", "score", titles={"title": "Patching"}, x_labels=TOKENS[:4]),
    "attention_map": lambda: charts.attention_map(PATTERN, TOKENS, title="Layer 1, head 2"),
    "bars": lambda: charts.bars_with_interval(EFFECTS, "name", "effect", "low", "high", titles={"title": "Effects"}, reference=0.1),
}


def texts_of(drawn: str) -> list[str]:
    """Every text in the picture; one of several lines is joined by spaces."""
    found = [element for element in ET.fromstring(drawn).iter() if element.tag.endswith("}text")]
    return [" ".join(part for part in element.itertext() if part) for element in found]


# --- colour ------------------------------------------------------------------------------------------------------


def test_contrast_as_published() -> None:
    assert contrast("#000000", "#ffffff") == 21
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the grey that just fails, known to every auditor
    assert contrast("#ff0000", "#ffffff") == pytest.approx(4.00, abs=0.005)
    assert contrast("#e69f00", "#ffffff") == pytest.approx(2.25, abs=0.005)
    assert contrast("#123456", "#654321") == contrast("#654321", "#123456")
    for bad in ("red", "#fff", "#gggggg"):
        with pytest.raises(BadValue, match="of the form #rrggbb"):
            contrast(bad, "#ffffff")


def faint(colours: list[str], least: float) -> list[str]:
    return [c for c in colours for ground in (palette.LIGHT, palette.DARK) if contrast(c, ground) < least]


def test_marks_and_text_stand_out_on_both_backgrounds() -> None:
    marks = [*palette.PALETTE, *(colour for colour, _ in palette.VERDICTS.values()), palette.EDGE]
    ends = [palette.DIVERGING[0], palette.DIVERGING[-1], palette.SEQUENTIAL[-1]]
    assert faint([*marks, *ends], 3.0) == []
    for ground in (palette.LIGHT, palette.DARK):
        assert contrast(palette.INK[ground], ground) >= 4.5
        assert contrast(palette.QUIET[ground], ground) >= 4.5
    assert faint(["#f0e442"], 3.0) == ["#f0e442"]  # the yellow of a well-known "safe" palette is caught


@given(st.floats(0, 1))
def test_numbers_read_on_every_shade(share: float) -> None:
    for scale in (palette.DIVERGING, palette.SEQUENTIAL):
        shade = blend(scale, share)
        assert contrast(shade, ink_on(shade)) >= 4.5


def test_scales_are_ordered() -> None:
    assert monotone(palette.SEQUENTIAL)
    middle = len(palette.DIVERGING) // 2
    assert monotone(palette.DIVERGING[middle:])
    assert monotone(palette.DIVERGING[middle::-1])
    assert luminance(palette.DIVERGING[0]) == pytest.approx(luminance(palette.DIVERGING[-1]), abs=0.05)  # neither sign weighs more
    assert blend(palette.DIVERGING, 0.5) == palette.DIVERGING[middle]
    assert [blend(palette.SEQUENTIAL, s) for s in (-1, 0, 1, 2)] == [palette.SEQUENTIAL[0]] * 2 + [palette.SEQUENTIAL[-1]] * 2


def test_colour_is_never_alone() -> None:
    assert len(set(palette.PALETTE)) == len(set(palette.DASHES)) == len(set(palette.SHAPES)) == len(palette.PALETTE)
    assert len(set(palette.VERDICTS.values())) == len(palette.VERDICTS)
    drawn = charts.to_svg(KINDS["token_heat"]())
    assert drawn.count("stroke-dasharray") == 2  # the two values below zero
    assert {"−1.25", "−.30", "+.50"} <= set(texts_of(drawn))


# --- SVG ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_svg_is_accessible_and_alone(kind: str, dark: bool) -> None:
    chart = KINDS[kind]()
    drawn = charts.to_svg(chart, dark=dark)
    root = ET.fromstring(drawn)
    assert root.get("role") == "img"
    assert root[0].tag.endswith("}title")
    assert root[0].text == root.get("aria-label") == svg._words(chart.to_dict()["title"])
    assert root[1].tag.endswith("}desc")
    assert re.findall(r"\d", root[1].text or ""), "the description holds numbers"
    assert set(re.findall(r"\w+://[^\"'\s<>]+", drawn)) == {"http://www.w3.org/2000/svg"}
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {
        "svg", "title", "desc", "g", "path", "rect", "line", "text", "tspan", "defs", "linearGradient", "stop", "clipPath", "circle",
    }  # fmt: skip
    assert set(re.findall(r'font-family="([^"]*)"', drawn)) == {palette.FONT}
    ground = palette.DARK if dark else palette.LIGHT
    assert root[2].get("fill") == ground
    assert re.findall(r'fill="(#[0-9a-f]{6})"[^>]*>no effect<|>no effect<', drawn) == ([palette.QUIET[ground]] if kind == "forest" else [])


def test_one_chart_one_svg() -> None:
    first = {kind: charts.to_svg(make()) for kind, make in KINDS.items()}
    again = {kind: charts.to_svg(KINDS[kind]()) for kind in reversed(KINDS)}
    assert again == first


def test_ids_differ_between_charts_and_not_between_drawings() -> None:
    alt = chart_frame.altair()
    points = chart_frame.data(pd.DataFrame({"x": [1, 2], "y": [1.0, 2.0]}))
    make = lambda title: alt.Chart(points, title=title).mark_line(clip=True).encode(x="x:Q", y="y:Q")  # noqa: E731
    one, again, other = (charts.to_svg(make(title)) for title in ("One", "One", "Another"))
    ids = [set(re.findall(r'id="([^"]+)"', drawn)) for drawn in (one, again, other)]
    assert one == again
    assert ids[0], "a clipped chart has ids"
    assert not ids[0] & ids[2]
    for drawn, names in ((one, ids[0]), (other, ids[2])):
        assert set(re.findall(r"url\(#([^)]+)\)", drawn)) <= names


@pytest.mark.slow
def test_one_chart_one_svg_in_another_process() -> None:
    code = (
        "import sys; from workbench.core import charts\n"
        "sys.stdout.reconfigure(encoding='utf-8')\n"
        "print(charts.to_svg(charts.token_heat(['a', ' b'], [1.5, -0.5], title='T')), end='')"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env={"PYTHONHASHSEED": seed, "PATH": ""}).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] == charts.to_svg(charts.token_heat(["a", " b"], [1.5, -0.5], title="T")).encode()


def test_tokens_are_data_and_never_markup() -> None:
    nasty = ['"]+alert(1)+["', "</text><script>", "a\\b'", "&amp;", "{{x}}", "datum.value"]
    for drawn in (
        charts.to_svg(charts.token_heat(nasty, [1.0, -1, 2, 3, 4, 5], title='<b>"Title"</b>')),
        charts.to_svg(charts.attention_map(np.eye(6), nasty, title="Map")),
        charts.to_svg(charts.grid(pd.DataFrame({"x": range(6), "y": 0, "v": 1.0}), "x", "y", "v", titles={"title": "G"}, x_labels=nasty)),
    ):
        assert set(nasty) <= set(texts_of(drawn))
        assert "<script" not in drawn


def test_a_chart_without_title_or_with_fetched_data_is_refused() -> None:
    alt = chart_frame.altair()
    bare = alt.Chart(chart_frame.data(pd.DataFrame({"x": [1]}))).mark_point().encode(x="x:Q")
    with pytest.raises(BadValue, match="title is ''.*read aloud"):
        charts.to_svg(bare)
    assert 'aria-label="Given"' in charts.to_svg(bare, title="Given")
    for source in (alt.UrlData("https://example.org/x.csv"), "https://example.org/x.csv"):
        with pytest.raises(BadValue, match="given inline, not fetched"):
            charts.to_svg(alt.layer(alt.Chart(source, title="T").mark_point().encode(x="x:Q")).properties(title="T"))
    with pytest.raises(BadValue, match="title is ' '"):
        charts.token_heat(["a"], [1.0], title=" ")
    with pytest.raises(UnknownName, match="no entry 'title' in titles"):
        charts.grid(CELLS, "pos", "layer", "score", titles={})


def test_png_is_a_picture() -> None:
    assert charts.to_png(KINDS["forest"](), scale=1).startswith(b"\x89PNG")


@pytest.mark.parametrize("package", ["altair", "vl_convert"])
def test_missing_extras_say_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chart = KINDS["forest"]()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"not installed\. Run `pip install 'assay-workbench\[report\]'`"):
        KINDS["forest"]() if package == "altair" else charts.to_svg(chart)


def test_importing_charts_imports_no_altair() -> None:
    code = "import sys, workbench.core.charts; print([m for m in ('altair', 'vl_convert') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.strip() == "[]"


# --- what is drawn -----------------------------------------------------------------------------------------------


def test_forest_says_its_numbers() -> None:
    said = texts_of(charts.to_svg(KINDS["forest"]()))
    wanted = {
        "0.310 [0.280, 0.340]", "−0.970 [−0.990, −0.940]", "0.012 [−0.010, 0.034]", "0.4 (no interval)", "no effect",
        "link", "detected", "worse", "equivalent", "not calibrated here",
    }  # fmt: skip
    assert wanted <= set(said)
    order = [said.index(name) for name in EFFECTS["name"]]
    assert order == sorted(order)
    assert "trigger: −0.970 [−0.990, −0.940], worse" in KINDS["forest"]().description


def test_long_labels_are_broken_and_not_cut() -> None:
    names = [f"a long name of a finding with its suite, its subgroup and its null, number {i}" for i in range(4)]
    assert set(names) <= set(texts_of(charts.to_svg(forest_of(name=names))))
    assert names[2] in forest_of(name=names).description


def test_grid_says_its_numbers_and_marks_what_is_missing() -> None:
    cells = CELLS.copy()
    cells.loc[5, "score"] = NAN
    said = texts_of(charts.to_svg(charts.grid(cells, "pos", "layer", "score", titles={"title": "T"})))
    assert {"+.10", "−.40", "0", "–"} <= set(said)
    rows = [said.index(text) for text in ("2", "1", "0")]
    assert rows == sorted(rows, reverse=True) or rows == sorted(rows)
    wide = pd.DataFrame([(0, i, 1.0) for i in range(30)], columns=["layer", "pos", "score"])
    many = charts.to_svg(charts.grid(wide, "pos", "layer", "score", titles={"title": "T"}))
    assert "30 cells: too many to print their numbers." in texts_of(many)
    assert "+1.00" not in texts_of(many)


def test_attention_leaves_later_keys_blank_and_takes_tensors() -> None:
    torch = pytest.importorskip("torch")
    drawn = charts.to_svg(charts.attention_map(torch.tensor(PATTERN, requires_grad=True), TOKENS, title="T"))
    assert drawn == charts.to_svg(charts.attention_map(torch.tensor(PATTERN), TOKENS, title="T"))
    assert drawn.count(f'stroke="{palette.EDGE}"') == 28  # the lower triangle of 7 by 7
    full = charts.attention_map(np.full((2, 3), 1 / 3), ["a", "b"], title="T", key_tokens=["x", "y", "z"])
    assert texts_of(charts.to_svg(full)).count(".33") == 6


@pytest.mark.slow
def test_a_large_map_is_drawn() -> None:
    n = 110  # 6,105 cells: above the limit that altair sets for data frames
    big = charts.attention_map(np.tril(np.ones((n, n))) / np.arange(1, n + 1)[:, None], ["t"] * n, title="Large")
    assert "6,105 cells: too many to print their numbers." in texts_of(charts.to_svg(big))


def test_a_band_breaks_where_no_interval_is_known() -> None:
    drawn = charts.to_svg(KINDS["curve"]())
    bands = re.findall(r'<path[^>]*\bd="([^"]*)"[^>]*(?:fill-opacity|opacity)="0\.18"', drawn)
    assert len(bands) == 2
    assert [band.count(",") for band in bands] == [4, 6]  # two points out and back, and three
    assert {"real", "control", "majority", "layer", "accuracy"} <= set(texts_of(drawn))


def test_charts_can_be_joined_and_themed() -> None:
    alt = chart_frame.altair()
    joined = alt.vconcat(KINDS["forest"](), KINDS["curve"]()).properties(title="Both")
    assert {"link", "majority"} <= set(texts_of(charts.to_svg(joined)))
    config = charts.themed(KINDS["forest"](), dark=True).to_dict()["config"]
    assert config["background"] == palette.DARK
    assert config["font"] == palette.FONT
    assert "background" not in KINDS["forest"]().to_dict().get("config", {})


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=40), st.integers(200, 900))
def test_token_boxes_never_overlap_or_leave_the_page(tokens: list[str], width: int) -> None:
    boxes = heat._placed([tokens, tokens], [[0.123] * len(tokens)] * 2, width, True)
    assert len(boxes) == 2 * len(tokens)
    for left, right in pairwise(boxes):
        assert right["y"] > left["y"] or right["x"] >= left["x2"]
    for box in boxes:
        assert 0 <= box["x"] < box["x2"] <= width
        assert heat.width_of(box["token"], 13) <= box["x2"] - box["x"]


@pytest.mark.parametrize(
    ("value", "plain", "signed"),
    [(0.123, ".12", "+.12"), (-0.034, "−.03", "−.03"), (0.0, "0", "0"), (0.001, ".00", "+.00"), (-0.001, "−.00", "−.00"),
     (12.34, "12", "+12"), (1.5, "1.50", "+1.50"), (NAN, "", "")],
)  # fmt: skip
def test_short_numbers(value: float, plain: str, signed: str) -> None:
    assert (chart_frame.short(value), chart_frame.short(value, signed=True)) == (plain, signed)


def test_numbers_for_people() -> None:
    assert [chart_frame.number(v) for v in (0.12345, -0.5, 0.0, -0.0, 12345.6, NAN)] == ["0.123", "−0.5", "0", "0", "12,346", "n/a"]
    assert chart_frame.number(0.5, signed=True) == "+0.5"
    assert chart_frame.estimate(1.88, 1.8, 1.95) == "1.88 [1.80, 1.95]"
    assert chart_frame.estimate(1234.5, 1200, 1300) == "1,234 [1,200, 1,300]"
    assert chart_frame.estimate(-0.0001, -0.04, 0.05) == "0.000 [−0.040, 0.050]"
    assert chart_frame.estimate(1.5e-7, 1e-7, 2e-7) == "1.5e−07 [1e−07, 2e−07]"
    assert chart_frame.estimate(1.0, 1.0, 1.0) == "1.000 [1.000, 1.000]"


@pytest.mark.parametrize(
    ("token", "seen"), [(" the", "·the"), ("a  ", "a··"), (" ", "·"), ("", "∅"), ("\n\t", "↵⇥"), ("<|bos|>", "<|bos|>")]
)
def test_tokens_can_be_seen(token: str, seen: str) -> None:
    assert heat.shown(token) == seen


T = {"title": "T"}


def forest_of(effect: str = "effect", low: str = "low", high: str = "high", **columns: Any) -> Any:
    return charts.forest(EFFECTS.assign(**columns), "name", effect, low, high, null=0.0, titles=T)


def grid_of(x_labels: list[str] | None = None, **columns: Any) -> Any:
    return charts.grid(CELLS.assign(**columns), "pos", "layer", "score", titles=T, x_labels=x_labels)


def nine_series() -> Any:
    many = pd.DataFrame({"x": range(9), "y": 1.0, "s": range(9)})
    return charts.curve_with_band(many, "x", "y", "y", "y", "s", titles=T)


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "empty": (lambda: charts.grid(CELLS.iloc[:0], "pos", "layer", "score", titles=T), BadValue, "frame is 'empty'"),
    "no column": (lambda: forest_of("efect"), UnknownName, "Did you mean 'effect'"),
    "text column": (lambda: forest_of("verdict"), BadValue, "column 'verdict'"),
    "NaN effect": (lambda: forest_of("low"), BadValue, "NaN or infinite numbers in column 'low' is 1"),
    "bounds swapped": (lambda: forest_of(low="high", high="low"), BadValue, "lies outside its interval is 3"),
    "one bound": (lambda: forest_of(low="lower", lower=[0.1, -1, 0, 0.2]), BadValue, "one bound only is 1"),
    "infinite bound": (lambda: forest_of(high="upper", upper=np.inf), BadValue, "infinite numbers in column 'upper' is 4"),
    "repeated label": (lambda: forest_of(name="x"), BadValue, "repeated labels is 3"),
    "repeated cell": (lambda: grid_of(pos=0), BadValue, "repeated cells is 9"),
    "labels short": (lambda: grid_of(["a"]), BadValue, "x_labels is '1 labels'"),
    "many series": (nine_series, BadValue, "series is 9, but it must be at most 6"),
    "pattern shape": (lambda: charts.attention_map(PATTERN, TOKENS[:3], title="T"), BadValue, r"shape of pattern is \(7, 7\)"),
    "pattern range": (lambda: charts.attention_map(PATTERN * 3, TOKENS, title="T"), BadValue, "attention weights between 0 and 1"),
    "pattern NaN": (lambda: charts.attention_map(PATTERN * NAN, TOKENS, title="T"), BadValue, "not finite"),
    "future": (lambda: charts.attention_map(PATTERN.T, TOKENS, title="T"), BadValue, "later keys is 21"),
    "token count": (lambda: charts.token_heat(TOKENS, [1.0], title="T"), BadValue, "line 0 is 1, but it must be that of its tokens, 7"),
    "narrow": (lambda: charts.token_heat(["a"], [1.0], title="T", width=90), BadValue, "width is 90"),
    "line count": (lambda: charts.token_heat([["a"], ["b"]], [[1.0]], title="T"), BadValue, "number of lines in values is 1"),
    "no tokens": (lambda: charts.token_heat([], [], title="T"), BadValue, "a list of tokens"),
    "a string": (lambda: charts.token_heat("abc", [1, 2, 3], title="T"), BadValue, "a list of tokens"),
    "infinite value": (lambda: charts.token_heat(["a"], [float("inf")], title="T"), BadValue, "infinite values is 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    call, error, words = BAD[name]
    with pytest.raises(error, match=words):
        call()


def test_the_front_lists_what_there_is() -> None:
    assert all(hasattr(charts, name) for name in charts.__all__)
