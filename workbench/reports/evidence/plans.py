"""What was to be asked, by the kind of report that a bundle is evidence of: an audit's plan, or what several runs were put together by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from workbench.core.finding import Plan
from workbench.core.spec import Spec


class ComparisonPlan(Spec):
    """Runs side by side: their ids, the suites that were chosen (none: all that two of them share), the level of the intervals."""

    name: Literal["comparison"] = "comparison"
    runs: tuple[str, ...] = Field(min_length=2)
    suites: tuple[str, ...] = ()
    level: float = Field(default=0.95, gt=0, lt=1)


class TrendPlan(Spec):
    """A training over its checkpoints: its run, the suites with their settings, and the run that ``asked`` each checkpoint, in order."""

    name: Literal["trend"] = "trend"
    training: str
    suites: Mapping[str, Mapping[str, Any]]
    level: float = Field(default=0.95, gt=0, lt=1)
    asked: tuple[str, ...] = Field(min_length=2)


AnyPlan = Plan | ComparisonPlan | TrendPlan
PLANS: Mapping[str, type[AnyPlan]] = {"audit": Plan, "comparison": ComparisonPlan, "trend": TrendPlan}
"""By the kind of a run that holds a report."""
