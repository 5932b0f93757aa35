"""A specification curve: estimates in their order, and under each what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from workbench.core.charts import palette
from workbench.core.charts.frame import Titles, altair, checked, data, estimate, headline, number, title_of, titled
from workbench.core.errors import BadValue

MOST, _WIDTH = 400, 620


def specification_chart(
    frame: pd.DataFrame, value: str, low: str, high: str, choices: Sequence[str], *, null: float, titles: Titles
) -> Any:  # fmt: skip
    """Estimates with their intervals from the smallest to the largest, a line at ``null``, and a mark a column in the row of each option
    chosen. Raises BadValue for no choices, and for more than ``MOST`` specifications."""
    alt = altair()
    rows = checked(frame, list(choices), [value, low, high])
    if not choices or len(rows) > MOST:
        raise BadValue("the choices and specifications", (len(choices), len(rows)), f"at least 1 choice and at most {MOST} specifications")
    rows = rows.sort_values([value, *choices], kind="stable").reset_index(drop=True)
    rows["at"] = range(1, len(rows) + 1)
    rows["words"] = [estimate(*row) for row in zip(rows[value], rows[low], rows[high], strict=True)]
    across = alt.X("at:Q", title=None, axis=None, scale=alt.Scale(domain=[0, len(rows) + 1], nice=False))
    up: dict[str, Any] = {"title": titled(titles, value), "scale": alt.Scale(zero=False)}
    points = pd.DataFrame({"at": rows["at"], "value": rows[value], "low": rows[low], "high": rows[high], "words": rows["words"]})
    base = alt.Chart(data(points)).encode(x=across)
    line = alt.Chart(alt.InlineData(values=[{"at": null}])).mark_rule(strokeDash=[5, 4], strokeWidth=1.5, style="quiet").encode(y="at:Q")
    curve = alt.layer(
        line,
        base.mark_rule(strokeWidth=1, opacity=0.5, color=palette.PALETTE[0]).encode(y=alt.Y("low:Q", **up), y2="high:Q"),
        base.mark_point(filled=True, size=22, opacity=1, color=palette.PALETTE[0]).encode(y=alt.Y("value:Q", **up), tooltip=["words:N"]),
    ).properties(width=_WIDTH, height=200)
    options = [f"{name}: {option}" for name in choices for option in dict.fromkeys(sorted(map(str, rows[name])))]
    chosen = pd.DataFrame(
        [{"at": at, "option": f"{name}: {option}"} for name in choices for at, option in zip(rows["at"], rows[name], strict=True)]
    )
    rows_of = alt.Y("option:N", sort=options, title=None, axis=alt.Axis(grid=True, ticks=False, domain=False, labelLimit=260))
    marks = alt.Chart(data(chosen)).mark_tick(thickness=2, size=9, orient="vertical", opacity=1, style="ink")
    below = marks.encode(x=across, y=rows_of).properties(width=_WIDTH, height=alt.Step(14))
    said = f"{titled(titles, value)}, {len(rows)} specifications from {number(rows[value].iloc[0])} to {number(rows[value].iloc[-1])}."
    whole = alt.vconcat(curve, below, spacing=6).resolve_scale(x="shared")
    return whole.properties(title=headline(alt, title_of(titles)), description=said)
