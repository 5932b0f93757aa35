"""The metrics of a training as it goes: ``metrics.jsonl`` in the run's folder, one JSON object a line.

    begin       step, steps (of the whole training), tokens, pid, host, watching (unit and null of each measure); again each time it
                is taken up
    step        step, loss (nats, the mean since the last such line), lr, norm (null where fp16 skipped the step), tokens (predicted so
                far), tokens_per_second (of the steps since the last such line: checkpoints, validations and looks left out)
    validation  step, tokens, loss
    watch       step, tokens, watched: {measure: {part: [value, null, planted]}}, unscored: {measure: reason}, seconds
    end         step, stopped (steps or patience)

Every line has ``event``, ``time`` (seconds since 1970) and, of a training before the last, ``part`` (what it learns). A line is written
whole and flushed. What a kill tore off at the end is not read, and is cut away when the training is taken up again, together with
what lies after the checkpoint it goes on from; so each step stands in the file once.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.core.errors import CorruptFile

METRICS = "metrics.jsonl"
Line = Mapping[str, Any]
ONCE = ("step", "validation", "watch")
"""Events of which a step has at most one."""


def read_metrics(path: Path) -> list[Line]:
    """All whole lines, in order; none where there is no file. Raises CorruptFile for a whole line that is no event."""
    return list(_lines(path, path.read_bytes() if path.is_file() else b""))


def _lines(path: Path, content: bytes) -> Iterator[Line]:
    for number, line in enumerate(content.split(b"\n")[:-1], 1):  # the last piece is empty, or was torn off
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or "event" not in found or not isinstance(found.get("step"), int):
            raise CorruptFile(path, "lines of a JSON object with event and step", f"line {number} is not", do="Remove that line.")
        yield found


class Metrics:
    """Writes the file of one run. A step that stands in it already is not written again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._said = {_key(line) for line in read_metrics(path)}

    def begin(self, step: int, *, part: str = "", **facts: Any) -> None:
        """Begin, or go on, from ``step``: cut away what lies after it, for it will come again."""
        content = self.path.read_bytes() if self.path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        lines = list(_lines(self.path, whole))
        kept = [line for line in lines if line.get("part", "") != part or line["step"] <= step]
        if len(kept) < len(lines) or len(whole) < len(content):
            temporary = self.path.with_suffix(".writing")
            temporary.write_bytes(b"".join(_bytes(line) for line in kept))
            os.replace(temporary, self.path)
        self._said = {_key(line) for line in kept}
        self.say("begin", step, part=part, **facts)

    def has(self, event: str, step: int, *, part: str = "") -> bool:
        """Whether the file has this event of this step."""
        return (event, part, step) in self._said

    def say(self, event: str, step: int, *, part: str = "", keep: bool = False, **facts: Any) -> bool:
        """Append a line, whole; false where the file has it. ``keep``: it is on the disk afterwards, whatever happens to the machine."""
        if event in ONCE and self.has(event, step, part=part):
            return False
        line = {"event": event, "step": step, **({"part": part} if part else {}), **facts, "time": round(time.time(), 3)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(_bytes(line))
            file.flush()
            if keep:
                os.fsync(file.fileno())
        self._said.add((event, part, step))
        return True


def finite(value: float | None) -> float | None:
    """``value``, or None for what JSON cannot carry."""
    return value if value is not None and math.isfinite(value) else None


def of_event(lines: Sequence[Line], event: str, part: str = "") -> list[Line]:
    """The lines of one event of one part, by step."""
    return sorted((line for line in lines if line["event"] == event and line.get("part", "") == part), key=lambda line: line["step"])


def _key(line: Line) -> tuple[str, str, int]:
    return line["event"], line.get("part", ""), line["step"]


def _bytes(line: Line) -> bytes:
    return json.dumps(dict(line), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"  # parts keep their order
