"""The result every input attribution shares, and the question asked of it: does the planted token come first?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import xarray as xr
from torch import Tensor

from probes.panels import joined
from probes.pictures import AXES, over_picture, picture_alone, shows_picture, words_of
from probes.places import Places
from probes.target import Target
from probes.token_items import TokenItems
from workbench.core.charts.heat import token_heat
from workbench.core.errors import BadValue
from workbench.core.result import Result

Spans = Sequence[tuple[int, int]]
"""One half-open range of token positions an item, in the batch's own positions (a BOS counts)."""

MOST_SHOWN = 8


@dataclass(frozen=True)
class AttributionResult(Result):
    """One number a token: how much it moved the target.

    ``attribution`` ``[batch, pos]`` (NaN past the end); ``is_token`` tells tokens from padding and ``candidate`` those that
    may be ranked (real, no control token, not held at their own value by the baseline).
    """

    columns: ClassVar[tuple[str, ...]] = (
        "batch", "pos", "token", "attribution", "is_token", "candidate",
        "value", "candidates", "chance", "position", "target_id", "foil_id",
    )  # fmt: skip
    signed: ClassVar[bool] = True
    aside: ClassVar[tuple[str, ...]] = AXES

    def summary(self) -> str:
        """For each of the first items, the token with the largest absolute attribution."""
        lines = []
        for row in range(min(len(self.values.batch), MOST_SHOWN)):
            item = self.values.isel(batch=row)
            strength = np.where(item.candidate.values, np.abs(item.attribution.values), -np.inf)
            first = int(strength.argmax())
            token, moved = str(item.token.values[first]).strip(), float(item.attribution.values[first])
            lines.append(
                f"item {row}: '{token}' (position {first}) stands first with {moved:+.3g} ({self.account(item)}); "
                f"{int(item.candidates)} candidates, chance of coming first {float(item.chance):.2g}"
            )
        left = len(self.values.batch) - len(lines)
        return "\n".join([f"{self.kind}:", *lines, *([f"and {left} more items"] if left else []), *self.notes])

    @property
    def next_step(self) -> str:
        """How to learn what the attribution is worth, for whoever asked on the command line."""
        return f"What it is worth beside random ones: workbench probe explanation-quality --set method={self.kind} (and the same inputs)"

    def account(self, item: Any) -> str:
        """What the attributions of an item are measured against."""
        return f"the answer is {float(item.value):.3g}"

    def plot(self) -> Any:
        """The first items' tokens coloured by attribution (signed colours where signs mean something), or, where positions are parts of a
        picture, each item's picture and the attributions over it."""
        if shows_picture(self.values):
            return self._over_pictures()
        shown = self.values.isel(batch=slice(MOST_SHOWN))
        real = shown.is_token.values
        texts = [[str(t) for t in row[kept]] for row, kept in zip(shown.token.values, real, strict=True)]
        numbers = [row[kept].tolist() for row, kept in zip(shown.attribution.values, real, strict=True)]
        return token_heat(texts, numbers, title=f"{self.kind}: {self.title_words(len(texts))}", signed=self.signed, unit="attribution")

    def _over_pictures(self) -> Any:
        v, panels = self.values, []
        for item in range(v.sizes["shown"]):
            one = v.isel(batch=item)
            numbers, names = np.where(one.is_token.values, one.attribution.values, np.nan), one.token.values
            panels.append(picture_alone(v, item, f"Item {item}: {words_of(v)}"))
            panels.append(
                over_picture(v, item, numbers, names, title=f"Item {item}: {self.kind}", signed=self.signed, unit="attribution")
            )  # fmt: skip
        said = self.title_words(len(panels) // 2).replace("each token", "each part of the picture")
        return joined(panels, f"{self.kind}: {said}", columns=2 if not v.attrs["picture"]["square"] else 4)

    def title_words(self, shown: int) -> str:
        """What the chart says it shows."""
        items = len(self.values.batch)
        return f"effect of each token on the answer, {'' if shown == items else f'first {shown} of '}{items} item{'s' if items > 1 else ''}"


def attribution_values(
    items: TokenItems | Places,
    target: Target,
    attribution: np.ndarray,
    value: Tensor,
    candidate: Tensor,
    extra: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """The Dataset of an AttributionResult; ``extra`` adds variables by name as ``(dims, array)``."""
    real = items.real.numpy()
    candidates = candidate.sum(1).numpy()
    foils = np.full(len(items), -1) if target.foils is None else target.foils.numpy()
    with np.errstate(divide="ignore"):
        chance = np.where(candidates > 0, 1.0 / candidates, np.nan)
    return xr.Dataset(
        {
            "attribution": (("batch", "pos"), np.where(real, attribution.astype(np.float64), np.nan)),
            "is_token": (("batch", "pos"), real),
            "candidate": (("batch", "pos"), candidate.numpy()),
            "value": ("batch", value.double().cpu().numpy()),
            "candidates": ("batch", candidates),
            "chance": ("batch", chance),
            "position": ("batch", target.positions.numpy()),
            "target_id": ("batch", target.ids.numpy()),
            "foil_id": ("batch", foils),
            **(extra or {}),
        },
        coords={"batch": np.arange(len(items)), "pos": np.arange(items.width), "token": (("batch", "pos"), items.pieces)},
    )


# --- ranking ------------------------------------------------------------------------------------------------


def ranks(result: Result, spans: Spans, *, by: Literal["abs", "signed"] = "abs") -> pd.DataFrame:
    """Where the planted span stands among the candidates of each item; one row an item.

    ``rank`` is 1 + the number of candidates outside the span whose strength is at least the span's best (so ties count
    against it, and an attribution of all zeros never comes first); ``first`` is rank 1; ``chance`` is the chance of that
    under a random order, (candidates in the span) / (candidates). Strength is |attribution| or the attribution itself.
    """
    if not isinstance(result, AttributionResult):
        raise BadValue("the result to rank", type(result).__name__, "an AttributionResult")
    batch, width = result.values.attribution.shape
    if len(spans) != batch:
        raise BadValue("the number of spans", len(spans), f"{batch}, one an item")
    rows = []
    for row, (start, stop) in enumerate(spans):
        item = result.values.isel(batch=row)
        candidate = item.candidate.values
        inside = np.zeros(width, dtype=bool)
        inside[max(0, start) : stop] = True
        if not 0 <= start < stop <= width or not (inside & candidate).any():
            raise BadValue(f"the span of item {row}", (start, stop), "a range of positions that holds at least one candidate")
        strength = item.attribution.values if by == "signed" else np.abs(item.attribution.values)
        best = strength[inside & candidate].max()
        above = int((strength[candidate & ~inside] >= best).sum())
        planted, candidates = int((inside & candidate).sum()), int(candidate.sum())
        rows.append((row, above + 1, above == 0, planted, candidates, planted / candidates))
    return pd.DataFrame(rows, columns=["batch", "rank", "first", "planted", "candidates", "chance"])


@dataclass(frozen=True)
class FirstHit:
    """How often the planted span came first: ``hits`` of ``n``, and the rate a random order would give."""

    hits: int
    n: int
    chance: float

    @property
    def rate(self) -> float:
        return self.hits / self.n


def first_hit(result: Result, spans: Spans, *, by: Literal["abs", "signed"] = "abs") -> FirstHit:
    """The share of items whose planted span ranks first, beside its chance (the mean over items). See ``ranks``."""
    frame = ranks(result, spans, by=by)
    return FirstHit(int(frame["first"].to_numpy().sum()), len(frame), float(frame["chance"].to_numpy().mean()))
