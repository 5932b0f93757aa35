"""A finished run as values that the dialects of other programs are written from: its model, its findings, and each suite's samples.

What a dialect cannot say is left out there, never bent into something else: a score without an interval's words, a verdict without a field.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.core.finding import Finding

Files = Mapping[str, bytes]
"""What a dialect gives: the content of each file by its name, which has no folder above it but ``a/b``."""


@dataclass(frozen=True)
class Asked:
    """One thing that a model was asked about a sample: a ``kind`` (``loglikelihood``, ``text``, ``generate``), the ``context`` and what
    may follow it. ``digest`` is the sha256 (hex) of the context as it was asked, also where the texts here are masked."""

    kind: str
    context: str
    continuations: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True)
class Row:
    """One sample: what it was worth, or why it was not scored. ``asked`` is empty where the texts are not at hand."""

    sample: str
    epoch: int
    values: Mapping[str, Any]
    unscored: str = ""
    cluster: str = ""
    group: str = ""
    asked: tuple[Asked, ...] = ()

    def numbers(self) -> dict[str, float | int | bool]:
        """Its values that are numbers, or true and false, nested ones by path (``trigger.greedy``, ``sum.0``); none where it is not
        scored."""
        return {} if self.unscored else dict(_numbers(self.values))


@dataclass(frozen=True)
class Part:
    """What a run asked of its model by one suite. ``name`` is how the run calls it, ``warning`` what a reader may meet in its texts."""

    name: str
    suite: str
    rows: tuple[Row, ...]
    spec: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""
    digest: str = ""
    data_digest: str = ""
    warning: str = ""

    @property
    def scored(self) -> int:
        return sum(not row.unscored for row in self.rows)


@dataclass(frozen=True)
class Evaluated:
    """A run on one model. ``findings`` are those on that model; ``created`` and ``finished`` are UTC, ISO 8601."""

    run: str
    kind: str
    status: str
    model: str
    model_digest: str
    created: str
    finished: str
    version: str
    parts: tuple[Part, ...] = ()
    findings: tuple[Finding, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)

    def findings_of(self, part: Part) -> list[Finding]:
        """The findings that a part's suite drew."""
        return [one for one in self.findings if one.source in (part.suite, part.name)]


def _numbers(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float | int | bool]]:
    for name, value in values.items():
        if isinstance(value, list | tuple):
            value = {str(place): one for place, one in enumerate(value)}
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{before}{name}.")
        elif isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            yield f"{before}{name}", value


def names_of(rows: Sequence[Row]) -> list[str]:
    """The names of all numbers in the rows, sorted."""
    return sorted({name for row in rows for name in row.numbers()})


def slug(text: str) -> str:
    """``text`` as a name that no file system, shell or table stumbles over: lower-case letters, digits, dots and dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower())[:80].strip("-.") or "unnamed"


def labelled(findings: Sequence[Finding]) -> list[tuple[str, Finding]]:
    """Findings with a name each, made of the measure, and of the claim too where two would be called the same; in their order."""
    plain = [slug(one.measure) for one in findings]
    fuller = [name if plain.count(name) == 1 else slug(f"{name}-{one.claim}") for name, one in zip(plain, findings, strict=True)]
    out: list[tuple[str, Finding]] = []
    for place, (name, one) in enumerate(zip(fuller, findings, strict=True)):
        before = fuller[:place].count(name)
        out.append((f"{name}-{before + 1}" if before else name, one))
    return out


def sha256(text: str) -> str:
    """sha256 (hex) of a text's UTF-8; half a surrogate pair counts as what JSON would write of it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
