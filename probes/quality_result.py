"""The result of explanation-quality: what each measure says of the method, beside what it says of random attributions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from probes.panels import joined
from workbench.core.charts.lines import curve_with_band, forest
from workbench.core.result import Result

MEASURES: dict[str, tuple[str, int]] = {
    "comprehensiveness": ("what the answer loses without what comes first", 1),
    "sufficiency": ("what the answer loses with only what comes first", -1),
    "deletion_area": ("the answer while what comes first is taken away", -1),
    "insertion_area": ("the answer while what comes first is put back", 1),
    "infidelity": ("squared error of what taking away should do", -1),
    "infidelity_scaled": ("the same at the best scale, as a share", -1),
    "pointing": ("what comes first lies inside the mask", 1),
    "mass": ("share of positive attribution inside the mask", 1),
    "overlap": ("share of as many first as the mask holds inside it", 1),
    "average_precision": ("area under precision over recall of the mask", 1),
    "sensitivity_max": ("relative change when the input hardly changes", 0),
    "randomised": ("rank correlation left on random weights", 0),
}
"""Every measure: in words, and whether high (1) or low (-1) is better; 0: not compared, since random attributions are no rival there."""


@dataclass(frozen=True)
class ExplanationQualityResult(Result):
    """One column a measure, one row an item and what was scored: ``method``, then the random attributions.

    Aside: ``deletion`` and ``insertion`` ``[scored, share]`` (means over items), ``left`` ``[batch, stage]`` (rank correlation after each
    group of weights made random) and the ``attribution`` ``[batch, pos]`` itself.
    """

    measures: ClassVar[tuple[str, ...]] = tuple(MEASURES)
    columns: ClassVar[tuple[str, ...]] = ("batch", "scored", *MEASURES, "value", "candidates")
    aside: ClassVar[tuple[str, ...]] = ("share", "stage", "pos")

    def verdicts(self) -> pd.DataFrame:
        """One row a measure that has a number: the method's mean over items, the random attributions' mean, lowest and highest mean, and
        ``p``, (1 + the number of random attributions at least as good) / (1 + all); NaN where they are no rival."""
        rows = []
        for name, (_, better) in MEASURES.items():
            values = self.values[name].values
            known = np.isfinite(values).all(1)
            if not known.any():
                continue
            mean = values[known].mean(0)
            random = mean[1:]
            p = (1 + int((better * random >= better * mean[0]).sum())) / (1 + len(random)) if better else np.nan
            rows.append((name, float(mean[0]), float(random.mean()), float(random.min()), float(random.max()), p, int(known.sum())))
        return pd.DataFrame(rows, columns=["measure", "method", "random", "low", "high", "p", "items"])

    def summary(self) -> str:
        """Each measure of the method, beside the random attributions."""
        lines = [f"{self.kind} of {self.spec['method']}, {len(self.values.batch)} items:"]
        for row in self.verdicts().to_dict("records"):
            words, better = MEASURES[row["measure"]]
            wanted = {1: "high is better", -1: "low is better", 0: "low is better, if the others hold"}[better]
            p = f", p {row['p']:.2g}" if better else ""
            items = "" if row["items"] == len(self.values.batch) else f", {row['items']} items"
            lines.append(
                f"  {row['measure']}: {row['method']:.3g} ({words}; {wanted}); random {row['random']:.3g} "
                f"[{row['low']:.3g}, {row['high']:.3g}]{p}{items}"
            )
        return "\n".join([*lines, *self.notes])

    def plot(self) -> Any:
        """The two curves beside those of random attributions, and how far each measure stands from them."""
        panels = [self._curve("deletion", "taken away"), self._curve("insertion", "put back")]
        if (table := self._distances()) is not None:
            said = {"title": "Better than random attributions, in their own standard deviations", "distance": "standard deviations"}
            panels.append(forest(table, "measure", "distance", "low", "high", null=0.0, titles={**said, "null": "random"}))
        return joined(panels, f"Quality of {self.spec['method']}, {len(self.values.batch)} items", columns=1)

    def _curve(self, name: str, done: str) -> Any:
        curve, share = self.values[name].values, self.values.share.values
        random = curve[1:]
        frame = pd.concat(
            [
                pd.DataFrame({"share": share, "answer": curve[0], "low": np.nan, "high": np.nan, "order": str(self.spec["method"])}),
                pd.DataFrame({"share": share, "answer": random.mean(0), "low": random.min(0), "high": random.max(0), "order": "random"}),
            ]
        )
        titles = {
            "title": f"The answer while what comes first is {done}", "share": f"share of the candidates {done}",
            "answer": f"answer ({self.spec['quantity']})", "order": "order",
        }  # fmt: skip
        return curve_with_band(frame, "share", "answer", "low", "high", "order", titles=titles)

    def _distances(self) -> pd.DataFrame | None:
        """(method - random mean) / random standard deviation of every compared measure, turned so that right is better."""
        rows = []
        for name, (_, better) in MEASURES.items():
            values = self.values[name].values
            mean = values[np.isfinite(values).all(1)].mean(0) if np.isfinite(values).all(1).any() else np.full(2, np.nan)
            spread = mean[1:].std(ddof=1) if len(mean) > 2 else 0.0
            if better and spread > 0:
                rows.append((name, better * (mean[0] - mean[1:].mean()) / spread, np.nan, np.nan))
        return pd.DataFrame(rows, columns=["measure", "distance", "low", "high"]) if rows else None
