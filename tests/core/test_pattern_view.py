"""A pattern as plain values: what is read off it is the weight, and of a long text the strongest of each row are kept."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from workbench.core.charts import palette, patterns
from workbench.core.charts.multiples import picture_of
from workbench.core.charts.patterns import MOST, UNIT, counted, pattern_view
from workbench.core.charts.picture import indexed_png
from workbench.core.errors import BadValue


def read(packed: str, columns: int) -> np.ndarray:
    """The numbers as a browser reads them: two bytes each, the low one first."""
    raw = base64.b64decode(packed)
    return np.array([raw[i] | raw[i + 1] << 8 for i in range(0, len(raw), 2)]).reshape(-1, columns)


def softmax(rows: int, columns: int) -> np.ndarray:
    scores = np.random.default_rng(0).normal(size=(rows, columns)) * 3
    shares = np.exp(scores)
    return shares / shares.sum(-1, keepdims=True)


def test_every_weight_of_a_short_text_travels() -> None:
    weights = softmax(5, 7)
    found = pattern_view(counted(weights), list("abcde"), [" a", "b ", "\n", "d", "e", "f", "g"], title="Layer 0, head 1")
    assert found["whole"]
    np.testing.assert_allclose(read(found["weights"], 7) / UNIT, weights, atol=0.5001 / UNIT)
    assert found["keys"][:3] == ["·a", "b·", "↵"], "as tokens are shown everywhere"
    assert found["note"] == "5 by 7 weights."
    assert len(found["shades"]) == 33


def test_of_a_long_text_the_strongest_of_each_row_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "WHOLE", 20)
    weights = softmax(30, 30)
    weights[3] = 1 / 30  # all alike: the first come first
    found = pattern_view(counted(weights), ["t"] * 30, ["t"] * 30, title="x")
    assert not found["whole"]
    assert "weights" not in found
    keys = read(found["top_key"], MOST)
    slow = [sorted(range(30), key=lambda key: (-round(row[key] * UNIT), key))[:MOST] for row in weights.tolist()]
    assert keys.tolist() == slow
    np.testing.assert_allclose(read(found["top_weight"], MOST) / UNIT, np.take_along_axis(weights, keys, 1), atol=0.5001 / UNIT)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.zeros((2, 3)), "the shape of the weights"),
        (np.array([[0.5, np.nan], [0, 1]]), "outside 0 … 1 or not finite"),
        (np.array([[0.5, -0.5], [0, 1]]), "outside 0 … 1 or not finite"),
        (np.array([[0.5, 1.5], [0, 1]]), "outside 0 … 1 or not finite"),
    ],
)
def test_what_is_no_pattern_is_refused(weights: Any, words: str) -> None:
    with pytest.raises(BadValue, match=words):
        pattern_view(counted(weights), ["a", "b"], ["a", "b"], title="x")


def test_a_picture_holds_the_colour_of_every_weight() -> None:
    weights = softmax(7, 9)
    picture = Image.open(io.BytesIO(base64.b64decode(picture_of(weights).removeprefix("data:image/png;base64,")))).convert("RGB")
    slow = [[palette.blend(palette.SEQUENTIAL, round(float(one) * 255) / 255) for one in row] for row in weights]
    shown = np.asarray(picture).tolist()
    assert [[f"#{r:02x}{g:02x}{b:02x}" for r, g, b in row] for row in shown] == slow
    with pytest.raises(BadValue, match=r"uint8 \[row, column\]"):
        indexed_png(weights, np.zeros((256, 3), dtype=np.uint8))
