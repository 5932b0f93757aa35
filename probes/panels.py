"""Several charts as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.core.charts.frame import altair


def joined(charts: Sequence[Any], title: str, *, columns: int) -> Any:
    """Charts beside one another, each with its own colours, under one title that can be read aloud."""
    alt = altair()
    grid = alt.concat(*charts, columns=columns).resolve_scale(color="independent", strokeDash="independent", shape="independent")
    return grid.properties(title=alt.TitleParams(text=title), description=f"{title}, {len(charts)} charts.")
