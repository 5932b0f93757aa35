"""How trainings stand, for whoever looks on: where they are, how long it takes, what their curves are, and how a stopped one goes on.

Everything is read from what a training leaves as it goes (``watch.metrics``, its checkpoints, its run in the store): nothing is computed
in the process that trains, and looking changes nothing.
"""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.core.charts.curves import curves
from workbench.core.errors import CorruptFile, UnknownName
from workbench.lab.refs import checkpoint_of
from workbench.lab.watch.metrics import METRICS, Line, of_event, read_metrics
from workbench.lab.watch.result import curve_of, panel
from workbench.store.records import RunRecord
from workbench.store.runs import Store
from workbench.training.checkpoint import LATEST, pointed

QUIET_S = 60
"""After how many seconds without a line a running training is said to be quiet."""
WIDTH, HEIGHT = 360, 200
OTHERS = (
    ("Speed", "tokens_per_second", "tokens a second"),
    ("Gradient norm", "norm", "norm before clipping"),
    ("Learning rate", "lr", "rate"),
)
"""What is drawn of a step beside its loss: title, name in its line, unit."""


def trainings(store: Store) -> tuple[RunRecord, ...]:
    """All trainings, newest first."""
    return store.runs.list(kind="train")


@dataclass(frozen=True)
class Course:
    """How one training stands. ``lines`` are its metrics; ``checkpoint`` the step of its last whole checkpoint (0: none); ``heard_s`` how
    old its last line is."""

    record: RunRecord
    lines: tuple[Line, ...]
    checkpoint: int = 0
    heard_s: float = 0.0

    @property
    def part(self) -> str:
        """What it learns now ('': the last part, or the whole)."""
        return str(self.lines[-1].get("part", "")) if self.lines else ""

    @property
    def steps(self) -> int:
        """The steps of the part it is in; 0 before its first line."""
        return max((int(line["steps"]) for line in of_event(self.lines, "begin", self.part)), default=0)

    @property
    def step(self) -> int:
        """The last step that is known to be done."""
        kept = self.checkpoint if not self.part else 0
        return max([kept, *(int(line["step"]) for line in self.lines if line.get("part", "") == self.part)])

    def last(self, event: str, name: str) -> Any:
        """The newest value of a line of ``event``, or None."""
        found = of_event(self.lines, event, self.part)
        return found[-1].get(name) if found else None

    @property
    def left_s(self) -> float | None:
        """Seconds to its end at the pace since it was last taken up, looks and validations included; None where no pace is known."""
        begun = next((line for line in reversed(self.lines) if line["event"] == "begin"), None)
        if begun is None or self.step <= begun["step"]:
            return None
        pace = (self.lines[-1]["time"] - begun["time"]) / (self.step - begun["step"])
        return max(0.0, pace * (self.steps - self.step) - self.heard_s)

    @property
    def pid(self) -> int:
        """The process that trains, or trained last; 0 where it is not known."""
        begun = [line for line in self.lines if line["event"] == "begin"]
        return int(begun[-1].get("pid", 0)) if begun else 0

    @property
    def here(self) -> bool:
        """Whether that process is one of this machine."""
        begun = [line for line in self.lines if line["event"] == "begin"]
        return bool(begun) and begun[-1].get("host") == platform.node()

    @property
    def resume(self) -> str:
        """The command that goes on with it."""
        return shlex.join(["workbench", "train", "--resume", self.record.id])

    def sentence(self) -> str:
        """Whether it runs, how far it is, how long it takes, or why and where it stopped."""
        if self.record.status == "running":
            return self._running()
        at = f"step {self.step:,} of {self.steps:,}" if self.steps else "its preparation, before the first step"
        if self.record.status == "done":
            return (
                f"Finished after {self._worth()}." if self.lines else "Finished. It left no metrics file, so its curve is its result alone."
            )
        kept = (
            f"Its last whole checkpoint is of step {self.checkpoint:,}" if self.checkpoint else "It left no checkpoint, so it begins anew"
        )
        how = "Its process is gone, or it was interrupted," if self.record.status == "interrupted" else "It failed"
        why = f": {self.record.note.rstrip('.')}" if self.record.note else ""
        return f"Stopped. {how} at {at}{why}. {kept}; the command below goes on with it and ends in the same weights."

    def _running(self) -> str:
        if not self.steps:
            return "Running: it prepares its data and its model; no step is taken yet."
        what = f", learning its {self.part} first" if self.part else ""
        speed = self.last("step", "tokens_per_second")
        pace = f", {speed:,.0f} tokens a second" if speed is not None else ""
        left = f", about {span(self.left_s)} left" if self.left_s is not None else ""
        said = f"Running{what}: step {self.step:,} of {self.steps:,} ({self.step / self.steps:.0%}){pace}{left}."
        quiet = f" Its last line is {span(self.heard_s)} old: it may be at a validation, a look or a long step."
        return said + (quiet if self.heard_s > QUIET_S else "")

    def _worth(self) -> str:
        stopped = self.last("end", "stopped")
        early = f" of {self.steps:,}, since validation did not improve" if stopped == "patience" else ""
        loss, held_out = self.last("step", "loss"), self.last("validation", "loss")
        said = [f"{self.step:,} steps{early}"]
        said += [f"loss {loss:.3f}"] if loss is not None else []
        said += [f"validation {held_out:.3f} nats a token"] if held_out is not None else []
        return ", ".join(said)

    @property
    def share(self) -> float:
        """How much of the steps is done, 0 to 1."""
        return min(1.0, self.step / self.steps) if self.steps else 0.0


def course(store: Store, run: str, *, now: float | None = None) -> Course:
    """How the training ``run`` (an id, the beginning of one, ``last``) stands. Raises UnknownName and CorruptFile."""
    ids = [record.id for record in trainings(store)]
    record = store.runs.get(ids[0] if run == "last" and ids else run)
    if record.id not in ids:
        raise UnknownName("training", run, ids, hint=f"Run {record.id} is of kind {record.kind}.")
    lines = tuple(read_metrics(store.home / "runs" / record.id / METRICS))
    heard = max(0.0, (time.time() if now is None else now) - lines[-1]["time"]) if lines else 0.0
    return Course(record, lines, _last_checkpoint(store, record.id), heard)


def recipe_of(run: str, store: Store | None = None) -> dict[str, Any]:
    """The whole recipe a training was begun with, as plain values: with it the run can go on. Raises UsageError for another kind of run."""
    with nullcontext(store) if store is not None else Store.open(create=False) as home:
        return dict(course(home, run).record.spec)


def _last_checkpoint(store: Store, run: str) -> int:
    try:
        found = pointed(checkpoint_of(store, run), LATEST)
    except CorruptFile:
        return 0
    return int(found.name.removeprefix("step-")) if found is not None else 0


def span(seconds: float) -> str:
    """``40 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"


# --- curves ---------------------------------------------------------------------------------------------------


def drawn(found: Course) -> list[tuple[str, Any]]:
    """Its curves so far, each with words for those who cannot see it: loss, speed, gradient norm, learning rate, and what is watched."""
    steps, held_out = of_event(found.lines, "step", found.part), of_event(found.lines, "validation", found.part)
    out: list[tuple[str, Any]] = []
    if steps:
        rows = [("training", line["tokens"], line["loss"]) for line in steps]
        rows += [("validation", line["tokens"], line["loss"]) for line in held_out]
        out.append(_curve(rows, "Loss", "predicted tokens", "nats a token"))
        for title, name, unit in OTHERS:
            rows = [("training", line["step"], line[name]) for line in steps if line[name] is not None]
            if rows:
                out.append(_curve(rows, title, "step", unit, zero=name != "lr"))
    return out + _watched(found)


def _curve(rows: Sequence[tuple[str, float, float]], title: str, across: str, unit: str, *, zero: bool = False) -> tuple[str, Any]:
    frame = pd.DataFrame(rows, columns=["of", "x", "y"])
    titles = {"title": title, "x": across, "y": unit, "of": ""}
    return f"{title}, {unit}, over {across}", curves(frame, "x", "y", "of", titles=titles, zero=zero).properties(width=WIDTH, height=HEIGHT)


def numbers(found: Course) -> pd.DataFrame:
    """What stands in its lines of steps, newest first."""
    columns = ["step", "tokens", "loss", "lr", "norm", "tokens_per_second"]
    rows = [[line[name] for name in columns] for line in reversed(of_event(found.lines, "step", found.part))]
    return pd.DataFrame(rows, columns=columns)


def _watched(found: Course) -> list[tuple[str, Any]]:
    if found.part or not of_event(found.lines, "watch"):
        return []
    told: dict[str, Any] = {}
    for line in found.lines:
        told |= line.get("watching", {})
    values = curve_of(found.lines)
    out = []
    for name in dict.fromkeys(values.watch.values.tolist()):
        chosen = values.isel(measure=[i for i, one in enumerate(values.watch.values) if one == name])
        out.append(
            (f"{name} over steps", panel(chosen, name, told[name]["unit"], told[name]["null"]).properties(width=WIDTH, height=HEIGHT))
        )
    return out
