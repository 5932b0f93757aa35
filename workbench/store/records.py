"""What the store hands out: frozen records, never rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from workbench.core.result import Result

RunStatus = Literal["running", "done", "failed", "interrupted"]
STATUSES: tuple[RunStatus, ...] = ("running", "done", "failed", "interrupted")


@dataclass(frozen=True)
class RunRecord:
    """One run: what was asked (``kind``, ``ref``, ``spec``), how it stands, and where it came from.

    ``spec`` is the full resolved spec and ``spec_digest`` the sha256 of its canonical JSON. ``parent`` is the run that
    started this one, or ''. ``status`` is *interrupted* also for a run whose process on this machine is gone.
    ``note`` says why a run failed. Times are UTC, ISO 8601.
    """

    id: str
    kind: str
    ref: str
    spec: Mapping[str, Any]
    spec_digest: str
    status: RunStatus
    created: str
    finished: str = ""
    parent: str = ""
    note: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(self).items()}


@dataclass(frozen=True)
class StoredResult:
    """One result with its name in the run and the digest of its canonical part."""

    run: str
    name: str
    digest: str
    result: Result


@dataclass(frozen=True)
class Event:
    """Something that happened in a run: ``number`` counts from 1 across the store, in the order of writing."""

    number: int
    run: str
    time: str
    name: str
    details: Mapping[str, Any]
