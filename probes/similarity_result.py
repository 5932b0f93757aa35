"""Similarity of layers as a result: a table of sites by sites for each model compared, and differences site by site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from probes.alignment import DIFFERENCES, MEASURES
from probes.panels import joined
from probes.similarity_read import ITSELF
from workbench.core.charts.heat import grid
from workbench.core.charts.lines import curve_with_band
from workbench.core.errors import BadValue
from workbench.core.result import Result


@dataclass(frozen=True)
class SimilarityResult(Result):
    """CKA, debiased CKA and Procrustes distance of every site with every site of the model itself and of others, each with its interval and
    its value where tokens are dealt anew; and how far others' activations are from the model's at the same site."""

    columns: ClassVar[tuple[str, ...]] = (
        "other", "site", "other_site", *(f"{name}{part}" for name in (*MEASURES, *DIFFERENCES) for part in ("", "_low", "_high", "_null")),
        "tokens", "groups", "width", "depth", "other_depth",
    )  # fmt: skip

    def summary(self) -> str:
        """For each model: the least and most alike sites of those that both have, and where it differs most."""
        lines = [f"{int(self.values['tokens'])} tokens of {int(self.values['groups'])} sentence groups."]
        for name in self.values["other"].values:
            v = self.values.sel(other=name)
            lines.append(self._within(v) if name == ITSELF else self._between(str(name), v))
        return "\n".join([*lines, *self.notes])

    @staticmethod
    def _said(v: Any, name: str) -> str:
        bounds = f" [{float(v[name + '_low']):.3g}, {float(v[name + '_high']):.3g}]" if np.isfinite(float(v[name + "_low"])) else ""
        return f"{float(v[name]):.3g}{bounds}"

    def _within(self, v: Any) -> str:
        table = v["cka_debiased"].sel(other_site=v["site"].values).values
        if len(table) < 2:
            return "One site of the model was asked about."
        near = [f"{value:.2f}" for value in np.diagonal(table, 1)]
        first, last = v["site"].values[[0, -1]]
        ends = v.sel(site=first, other_site=last)
        return (f"Within the model, debiased CKA of neighbouring sites is {', '.join(near)}; of {first} and {last} it is "
                f"{self._said(ends, 'cka_debiased')} (tokens dealt anew {float(ends['cka_debiased_null']):.3g}).")  # fmt: skip

    def _between(self, name: str, v: Any) -> str:
        same = [site for site in v["site"].values if np.isfinite(float(v["cka_debiased"].sel(site=site, other_site=site)))]
        if not same:
            return f"'{name}' has none of the model's sites."
        alike = [v.sel(site=site, other_site=site) for site in same]
        least = min(alike, key=lambda one: float(one["cka_debiased"]))
        out = (
            f"Against '{name}', debiased CKA at the same site is least at {least['site'].item()}: {self._said(least, 'cka_debiased')} "
            f"(tokens dealt anew {float(least['cka_debiased_null']):.3g}); Procrustes distance {self._said(least, 'procrustes')}."
        )
        apart = [one for one in alike if np.isfinite(float(one["relative"]))]
        if apart:
            most = max(apart, key=lambda one: float(one["relative"]))
            out += (
                f" Axis by axis it differs most at {most['site'].item()}: by {self._said(most, 'relative')} of the spread there (dealt "
                f"anew {float(most['relative_null']):.3g}), and the model accounts for {self._said(most, 'explained')} of its variance."
            )
        return out

    def plot(self) -> Any:
        """Debiased CKA of sites by sites, the models side by side on one scale of colours; and below it, for others with the same sites,
        the difference over depth. Raises BadValue where nothing varies."""
        frame: Any = self.to_frame()
        frame = frame[frame["cka_debiased"].notna() | frame["relative"].notna()]
        columns = [(name, site) for name in self.values["other"].values for site in self.values["other_site"].values
                   if frame[(frame["other"] == name) & (frame["other_site"] == site)]["cka_debiased"].notna().any()]  # fmt: skip
        place = {column: number for number, column in enumerate(columns)}
        cells = frame.assign(column=[place.get(pair, -1) for pair in zip(frame["other"], frame["other_site"], strict=True)])
        depth = dict(zip(self.values["other_site"].values.tolist(), self.values["other_depth"].values.tolist(), strict=True))
        titles = {
            "title": "Debiased CKA",
            "column": "model and site, from the first up",
            "depth": "site of the model",
            "cka_debiased": "CKA",
        }
        names = [f"{name} {depth[site]}" for name, site in columns]
        panels = []
        if columns:
            panels.append(grid(cells[cells["column"] >= 0], "column", "depth", "cka_debiased", titles=titles, x_labels=names))
        rows = frame.drop_duplicates(["other", "site"])
        rows = rows[rows["relative"].notna()]
        if len(rows):
            titles = {"title": "Difference at the same site", "depth": "site, from the first up", "relative": "difference, in spreads",
                      "other": "model", "reference": "none"}  # fmt: skip
            bands = ("depth", "relative", "relative_low", "relative_high")
            panels.append(curve_with_band(rows, *bands, colour="other", titles=titles, reference=0.0))
        if not panels:
            raise BadValue("what can be drawn", "nothing", "a site at which something varies")
        return panels[0] if len(panels) == 1 else joined(panels, "Similarity of layers", columns=1)
