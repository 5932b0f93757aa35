"""The result of attributing a whole generation: a row of attributions a written token; and what each row points to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from jaxtyping import Int

from probes.attribution import FirstHit
from probes.panels import joined
from workbench.core.charts.heat import grid
from workbench.core.errors import BadValue
from workbench.core.result import Result

BY_POSITION = ("standard_error",)
BY_QUESTION = ("baseline_value", "gap", "steps", "converged")
"""What some methods say besides: of each position, and of each question asked (one a written token and stack)."""
MOST_ITEMS, MOST_TOKENS, MOST_PANELS = 3, 12, 4
UNSIGNED = ("saliency", "smooth-grad")


@dataclass(frozen=True)
class GenerationAttributionResult(Result):
    """``attribution`` ``[batch, generated, pos]``: how much each input moved each written token (NaN where it was no input of it).

    Positions are those of every stack asked about, one stack after the other (``stack``, ``place``); ``written`` tells the model's own
    tokens among them. ``is_input`` and ``candidate`` are the method's ``is_token`` and ``candidate``. ``baseline_value``, ``gap``,
    ``steps`` and ``converged`` belong to one question, a token and a stack: they stand at each of its positions, and are NaN where the
    method has none. ``value`` is the scalar explained, ``logprob`` the token's own, in nats.
    """

    columns: ClassVar[tuple[str, ...]] = (
        "batch", "generated", "pos", "generated_token", "token", "written", "stack", "place", "attribution", "is_input", "candidate",
        *BY_POSITION, *BY_QUESTION, "value", "logprob", "target_id", "foil_id",
    )  # fmt: skip

    @property
    def method(self) -> str:
        """The attribution that was asked."""
        return str(self.spec["method"])

    def questions(self) -> pd.DataFrame:
        """One row a written token and stack: what was added up, what it should add up to, and how far apart they are.

        ``total`` is the sum of the row's attributions in that stack; the others are the method's own account, NaN where it has none.
        """
        v, rows = self.values, []
        stacks = v["stack"].values
        for item, step in zip(*np.nonzero(v.target_id.values >= 0), strict=True):
            for stack in dict.fromkeys(stacks.tolist()):
                here = np.flatnonzero((stacks == stack) & v.is_input.values[item, step])
                said = {name: float(v[name].values[item, step, here[0]]) for name in BY_QUESTION}
                said = {"total": float(v.attribution.values[item, step, here].sum()), "value": float(v.value.values[item, step]), **said}
                rows.append({"batch": int(item), "generated": int(step), "stack": stack, **said})
        return pd.DataFrame(rows)

    def summary(self) -> str:
        """Of the first items, what each written token was read from most."""
        v = self.values
        lines = [f"{self.kind}, by {self.method}:"]
        for item in range(min(v.sizes["batch"], MOST_ITEMS)):
            count = int((v.target_id.values[item] >= 0).sum())
            lines.append(f"item {item}: {count} token{'s' if count > 1 else ''} written")
            lines += [f"  {self._read_from(item, step)}" for step in range(min(count, MOST_TOKENS))]
            lines += [f"  and {count - MOST_TOKENS} more"] if count > MOST_TOKENS else []
        left = v.sizes["batch"] - MOST_ITEMS
        said = self.questions()
        if bool(said["converged"].notna().all()):
            done, gap = int(said["converged"].to_numpy().sum()), float(said["gap"].to_numpy().max())
            lines.append(f"The attributions of {done} of {len(said)} rows add up to their effect within tolerance (largest gap {gap:.3g}).")
        return "\n".join([*lines, *([f"and {left} more items"] if left > 0 else []), *self.notes])

    def _read_from(self, item: int, step: int) -> str:
        v = self.values
        candidate = v.candidate.values[item, step]
        said = f"'{str(v.generated_token.values[item, step]).strip()}' ({np.exp(float(v.logprob.values[item, step])):.2f})"
        if not candidate.any():
            return f"{said}: nothing but control tokens was read"
        first = int(np.where(candidate, np.abs(v.attribution.values[item, step]), -np.inf).argmax())
        stack, own = str(v["stack"].values[first]), bool(v.written.values[item, first])
        where = f"{stack + ' ' if stack else ''}position {int(v.place.values[first])}{', its own' if own else ''}"
        token, moved = str(v.token.values[item, first]).strip(), float(v.attribution.values[item, step, first])
        return f"{said}: '{token}' ({where}) stands first with {moved:+.3g}, of {int(candidate.sum())} candidates"

    def plot(self) -> Any:
        """A grid for each of the first items: a written token a row, what was read across."""
        shown = min(self.values.sizes["batch"], MOST_PANELS)
        panels = [self._panel(item) for item in range(shown)]
        return joined(panels, f"{self.kind}: what each written token was read from, by {self.method}", columns=1)

    def _panel(self, item: int) -> Any:
        v = self.values.isel(batch=item)
        inputs, made = np.flatnonzero(v.token.values != ""), np.flatnonzero(v.target_id.values >= 0)
        rows = [
            {"token written": f"{step}: {str(v.generated_token.values[step]).strip()}", "read from": place, "attribution": number}
            for step in made
            for place, number in enumerate(v.attribution.values[step, inputs].tolist())
        ]
        words = [f"{v.token.values[pos]}" for pos in inputs]
        titles = {"title": f"Item {item}", "token written": "token written", "read from": "read from", "attribution": "attribution"}
        return grid(pd.DataFrame(rows), "read from", "token written", "attribution", titles=titles, signed=self.method not in UNSIGNED,
                    x_labels=words)  # fmt: skip


def pointed(
    result: GenerationAttributionResult,
    where: Int[np.ndarray, "batch generated"],
    *,
    by: Literal["abs", "signed"] = "abs",
    stack: str = "",
    width: int = 1,
) -> FirstHit:
    """How often the written token's first candidate is where it should be: ``where`` is a place on the axis ``pos`` (-1: not counted), and
    the ``width`` places from there on are as good, where something small is heard by several.

    ``stack`` looks among the candidates of one stack only. Ties count against it; ``chance`` is that of a random order. Raises BadValue for
    places of which none is a candidate.
    """
    v = result.values
    wanted = np.asarray(where)
    if wanted.shape != v.target_id.shape:
        raise BadValue("the shape of where", wanted.shape, f"{v.target_id.shape}, one position a written token")
    inside = (v["stack"].values == stack) if stack else np.ones(v.sizes["pos"], dtype=bool)
    hits, chances = 0, []
    for item, step in zip(*np.nonzero(wanted >= 0), strict=True):
        candidate = v.candidate.values[item, step] & inside
        meant = candidate & (np.arange(len(candidate)) >= wanted[item, step]) & (np.arange(len(candidate)) < wanted[item, step] + width)
        if not meant.any():
            raise BadValue(f"where, of item {item} and token {step}", int(wanted[item, step]), "the place of a candidate")
        numbers = v.attribution.values[item, step]
        strength = numbers if by == "signed" else np.abs(numbers)
        hits += int((strength[candidate & ~meant] < strength[meant].max()).all())
        chances.append(meant.sum() / candidate.sum())
    if not chances:
        raise BadValue("where", "no place", "at least one")
    return FirstHit(hits, len(chances), float(np.mean(chances)))
