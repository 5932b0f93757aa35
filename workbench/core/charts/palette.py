"""The colours of every chart, in one place, and how far they stand apart.

Marks reach a contrast of 3:1 and text 4.5:1 on both backgrounds (WCAG 2.2, criteria 1.4.11 and 1.4.3). Contrast is
not hue safety, and no two of these hues are safe for every eye: so colour never stands alone, but with a number, a
dash, a shape or a border.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from workbench.core.errors import BadValue

LIGHT, DARK = "#ffffff", "#0e1117"  # the two backgrounds; the dark one is Streamlit's
INK = {LIGHT: "#1b1f27", DARK: "#f1f3f7"}  # text
QUIET = {LIGHT: "#59616e", DARK: "#a8b0bd"}  # axis labels, notes, null lines
GRID = {LIGHT: "#e4e7ec", DARK: "#2a303b"}  # decoration: carries nothing, so it may be faint
EDGE = "#6b7280"  # borders of cells, on either background

PALETTE = ("#2b7bba", "#d1670b", "#2e8b57", "#c2498f", "#7d7f1e", "#9467bd")
DASHES: tuple[tuple[int, ...], ...] = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (4, 1), (10, 4))
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")

DIVERGING = ("#2166ac", "#6ea3cf", "#bcd4e8", "#f6f6f4", "#f7d3ae", "#e59b52", "#b35806")  # below the null: blue; above: orange
SEQUENTIAL = ("#f3f7fb", "#cfe0ef", "#9fc2e0", "#5f98c8", "#2166ac")

VERDICTS: Mapping[str, tuple[str, str]] = {  # colour and shape of a finding's verdict
    "detected": ("#d1670b", "diamond"),
    "worse": ("#d1670b", "triangle-up"),
    "better": ("#2b7bba", "triangle-down"),
    "equivalent": ("#2e8b57", "square"),
    "not detected": ("#6b7280", "circle"),
    "inconclusive": ("#6b7280", "cross"),
    "not applicable": ("#6b7280", "stroke"),
    "not calibrated here": ("#9467bd", "circle"),
}
FONT = "Helvetica, Arial, sans-serif"


def _channels(colour: str) -> tuple[int, int, int]:
    if len(colour) != 7 or colour[0] != "#" or any(c not in "0123456789abcdefABCDEF" for c in colour[1:]):
        raise BadValue("colour", colour, "of the form #rrggbb")
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb``, 0 (black) to 1 (white), as WCAG 2.2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _channels(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours, 1 (none) to 21 (black on white), as WCAG 2.2 defines it."""
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def blend(scale: Sequence[str], share: float) -> str:
    """The colour at ``share`` (0 to 1, cut there) of a scale, interpolated in RGB between its evenly spaced stops."""
    place = min(max(share, 0.0), 1.0) * (len(scale) - 1)
    left = min(int(place), len(scale) - 2)
    mixed = [round(a + (b - a) * (place - left)) for a, b in zip(_channels(scale[left]), _channels(scale[left + 1]), strict=True)]
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on ``colour``: always at least 4.58:1."""
    return "#000000" if contrast(colour, "#000000") >= contrast(colour, "#ffffff") else "#ffffff"


def monotone(scale: Sequence[str]) -> bool:
    """Whether a scale only ever gets darker: a single-hue scale must, to be read without its legend."""
    return all(luminance(a) > luminance(b) for a, b in pairwise(scale))
