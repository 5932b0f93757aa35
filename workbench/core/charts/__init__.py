"""Charts: one grammar (Altair) for dashboard and report, one palette, SVG without a browser. Altair is imported when a chart is drawn."""

from workbench.core.charts.frame import theme, themed
from workbench.core.charts.heat import attention_map, grid, token_heat
from workbench.core.charts.lines import bars_with_interval, curve_with_band, forest
from workbench.core.charts.palette import DIVERGING, PALETTE, SEQUENTIAL, contrast
from workbench.core.charts.svg import to_png, to_svg

__all__ = [
    "DIVERGING",
    "PALETTE",
    "SEQUENTIAL",
    "attention_map",
    "bars_with_interval",
    "contrast",
    "curve_with_band",
    "forest",
    "grid",
    "theme",
    "themed",
    "to_png",
    "to_svg",
    "token_heat",
]
