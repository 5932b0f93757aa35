"""What a file of another program's samples holds, and how fields of its rows are found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evals.imported import Direction
from workbench.core.errors import CorruptFile, UnknownName

LARGEST = 2**31
"""Bytes that a file, or all that it unpacks to, may have."""
MOST = 1e300
"""A number at least so large is a mistake, and sums of such overflow."""
HIGHER: Direction = "higher is better"
LOWER: Direction = "higher is worse"
DIRECTIONS: Mapping[str, Direction] = {
    **dict.fromkeys(("acc", "acc_norm", "acc_bytes", "exact_match", "f1", "em", "mc1", "mc2", "bleu"), HIGHER),
    **dict.fromkeys(("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score"), LOWER),
}  # fmt: skip
"""Which way a metric of a well-known name points, where the file does not say."""


@dataclass(frozen=True)
class Imported:
    """One sample: ``values`` (numbers, true and false), or why there are none; ``asked`` is a digest of what the model was asked."""

    sample: str
    epoch: int
    values: Mapping[str, bool | int | float]
    asked: str
    unscored: str = ""
    cluster: str = ""
    group: str = ""


@dataclass(frozen=True)
class Log:
    """One task's samples out of one file. ``digest`` is the file's sha256; ``notes`` say what of it is not taken over."""

    form: str
    task: str
    model: str
    digest: str
    samples: tuple[Imported, ...]
    directions: Mapping[str, Direction] = field(default_factory=dict)
    created: str = ""
    version: str = ""
    notes: tuple[str, ...] = ()


def label(facts: Any, path: str, where: str) -> str:
    """The text or number at ``path`` (dots reach inside) of a row's facts; '' for no path. Raises UnknownName with the fields there are."""
    if not path:
        return ""
    found, known = facts, facts
    for name in path.split("."):
        known = found
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, str | int | float) or isinstance(found, bool):
        names = [str(name) for name in known] if isinstance(known, Mapping) else []
        raise UnknownName("field of text or number", path, names, where=f"in {where}")
    return str(found)


def number(value: Any) -> bool | int | float | None:
    """``value`` where it is a finite number or a truth value, also as a program wrote it that had no better form; else None."""
    if isinstance(value, str):
        return {"True": True, "False": False}.get(value)
    if isinstance(value, bool):
        return value
    return value if isinstance(value, int | float) and abs(value) < MOST else None  # never true of NaN


def whole(place: Path, do: str) -> bytes:
    """The file's bytes. Raises CorruptFile for one that is larger than is read."""
    size = place.stat().st_size
    if size > LARGEST:
        raise CorruptFile(place, f"at most {LARGEST:,} bytes", f"it has {size:,}", do=do)
    return place.read_bytes()


def as_truths(samples: list[Imported]) -> list[Imported]:
    """Metrics whose every value is 0 or 1 as false and true: shares, which are compared as such."""
    names = {name for one in samples for name in one.values}
    binary = {name for name in names if all(one.values[name] in (0, 1) for one in samples if name in one.values)}
    made = ({name: bool(value) if name in binary else value for name, value in one.values.items()} for one in samples)
    return [Imported(one.sample, one.epoch, values, one.asked, one.unscored, one.cluster, one.group)
            for one, values in zip(samples, made, strict=True)]  # fmt: skip
