"""What a gate decided, as values: one decision a rule and measure, and what they come to together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from workbench.core.errors import EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, EXIT_OK

State = Literal["pass", "fail", "inconclusive"]
_CODES: Mapping[State, int] = {"pass": EXIT_OK, "fail": EXIT_GATE_FAILED, "inconclusive": EXIT_INCONCLUSIVE}


@dataclass(frozen=True)
class Decision:
    """One rule on one measure of the audited model.

    ``low`` and ``high`` are the one-sided bounds at the policy's alpha, ``allowed`` what they are held against, in words. ``needed``: how
    many ``unit`` would decide with 80 % power if the effect is what was seen; None where that is no matter of numbers. ``line``: where
    the rule stands in its file.
    """

    rule: str
    source: str
    measure: str
    state: State
    because: str
    allowed: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    alpha: float = 0.05
    n: int | None = None
    unit: str = "samples"
    needed: int | None = None
    card: str = ""
    line: int = 1

    def text(self) -> str:
        """One sentence for people."""
        seen = "nothing to measure" if self.effect is None else f"{self.effect:.4g}"
        between = "" if self.low is None or self.high is None else f" [{self.low:.4g}, {self.high:.4g}]"
        more = f"; about {self.needed:,} {self.unit} would decide (now {self.n:,})" if self.needed and self.n else ""
        return f"{self.rule}: {self.source}, {self.measure}: {seen}{between}, allowed {self.allowed}: {self.because}{more}"


@dataclass(frozen=True)
class Gate:
    """All decisions of a policy on a run. ``policy`` and ``digest`` name the policy, ``model`` and ``model_digest`` what was audited."""

    policy: str
    digest: str
    file: str
    run: str
    model: str
    model_digest: str
    decisions: tuple[Decision, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """Passed only when every rule is; failed when one is."""
        states = {one.state for one in self.decisions}
        return "fail" if "fail" in states else "inconclusive" if "inconclusive" in states or not states else "pass"

    @property
    def exit_code(self) -> int:
        return _CODES[self.state]

    def document(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "state": self.state, "exit_code": self.exit_code, "decisions": [asdict(one) for one in self.decisions]}

    def lines(self) -> list[str]:
        mark = {"pass": "pass", "fail": "FAIL", "inconclusive": "?"}
        return [*(f"{mark[one.state]:<5} {one.text()}" for one in self.decisions), f"{self.policy}: {self.state}"]
