"""What erasing a concept leaves: probes, answers and losses, by what was erased."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from probes.panels import joined
from workbench.core.charts.lines import curve_with_band, forest
from workbench.core.result import Result

WHO = ("erased", "random")
NOTHING, EVERY = "nothing", "every site"
BY_ERASED = ("answer", "gap", "loss_change")


@dataclass(frozen=True)
class ErasureResult(Result):
    """Accuracy of probes at every site after erasing at each (or ``nothing``, or ``every site``), and answers, the gap between classes,
    and the change of the loss; of the erasers, and of random projections of the same ranks (means with their spread)."""

    columns: ClassVar[tuple[str, ...]] = (
        "who", "erased", "site", *(f"{name}{bound}" for name in ("accuracy", *BY_ERASED) for bound in ("", "_low", "_high")),
        "gap_null", "gap_p", "rank", "shuffled", "majority", "loss", "n_fit", "n_probe", "n_test", "depth",
    )  # fmt: skip

    @property
    def best_alone(self) -> str:
        """The site that, erased alone, leaves the best probe of any site with the least."""
        v = self.values["accuracy"].sel(who="erased")
        alone = [str(name) for name in v["erased"].values if name not in (NOTHING, EVERY)]
        return min(alone, key=lambda name: float(v.sel(erased=name).max()))

    def summary(self) -> str:
        """What probes find, the gap and the price: as it is, with the one site that hides most erased, and with all scrubbed."""
        v = self.values
        lines = [f"The most frequent class is right on {float(v['majority']):.3f} of {int(v['n_test'])} tested tokens."]
        best = self.best_alone
        for erased, words in (
            (NOTHING, "As it is"), (best, f"Erased at {best} alone, the best single site"), (EVERY, "Scrubbed at every site"),
        ):  # fmt: skip
            lines.append(f"{words}: {self._said(erased)}.")
        random = v.sel(who="random", erased=EVERY)
        last = f"Random projections of the same ranks at every site leave probes right on up to {float(random['accuracy'].max()):.3g}"
        if np.isfinite(float(random["gap"])):
            last += f", and a gap of {float(random['gap']):.3g}"
        if np.isfinite(float(random["loss_change"])):
            last += f", and change the loss by {float(random['loss_change']):.3g} nats"
        return "\n".join([*lines, f"{last}.", *self.notes])

    def _said(self, erased: str) -> str:
        at = self.values.sel(who="erased", erased=erased)
        say = lambda d, name: f"{float(d[name]):.3g} [{float(d[name + '_low']):.3g}, {float(d[name + '_high']):.3g}]"  # noqa: E731
        top = at.isel(site=int(at["accuracy"].values.argmax()))
        out = [f"probes are right on at most {say(top, 'accuracy')} (at {top['site'].item()}, of {at.sizes['site']} sites)"]
        if np.isfinite(float(at["gap"])):
            out.append(f"the gap of the answer is {say(at, 'gap')}, where dealt classes give up to {float(at['gap_null']):.3g}")
        if erased != NOTHING and np.isfinite(float(at["loss_change"])):
            out.append(f"the loss changes by {say(at, 'loss_change')} nats")
        return "; ".join(out)

    def plot(self) -> Any:
        """Probe accuracy over depth as it is, erased at the first site and at the best one alone, scrubbed, and at random; below it the gap
        and the price by what was erased, where there are such."""
        frame: Any = self.to_frame()
        own, random = frame[frame["who"] == "erased"], frame[(frame["who"] == "random") & (frame["erased"] == EVERY)]
        first = str(self.values["site"].values[0])
        shown = own[own["erased"].isin([NOTHING, first, self.best_alone, EVERY])]
        titles = {"title": "What probes still find", "depth": "site, from the first up", "accuracy": "accuracy on held-out sentences",
                  "erased": "erased", "reference": "most frequent class"}  # fmt: skip
        lines: Any = pd.concat([shown, random.assign(erased="random, every site")])
        bands = ("depth", "accuracy", "accuracy_low", "accuracy_high")
        panels = [curve_with_band(lines, *bands, colour="erased", titles=titles, reference=float(self.values["majority"]))]
        rows = own.drop_duplicates("erased")
        for what, words in (("gap", "gap of the answer"), ("loss_change", "change of next-token loss, nats")):
            if rows[what].notna().all():
                named = {"title": words, what: words, "null": "none"}
                panels.append(forest(rows, "erased", what, f"{what}_low", f"{what}_high", null=0.0, titles=named))
        return panels[0] if len(panels) == 1 else joined(panels, "Erasure", columns=1)
