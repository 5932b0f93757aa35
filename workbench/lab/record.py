"""A run from its beginning to its end: created or resumed, and marked done, failed or interrupted whatever happens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from workbench.core.errors import BadValue, StoreError
from workbench.core.spec import digest_of
from workbench.store.records import RunRecord, RunStatus
from workbench.store.runs import Store

RESUMABLE = ("interrupted", "failed")
RESUMED = ("train", "eval", "audit")
"""The kinds of run whose commands have ``--resume``."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run that can be resumed; ``run`` is its id."""

    def __init__(self, run: str, words: str) -> None:
        self.run = run
        super().__init__(words)


@contextmanager
def recorded(
    store: Store,
    kind: str,
    spec: Mapping[str, Any],
    ref: str,
    *,
    resume: str = "",
    parent: str = "",
    provenance: Mapping[str, Any],
    again: bool = False,
) -> Iterator[str]:
    """The id of a run that is *running* inside the block.

    ``resume`` is the id of a run to go on with (``auto``: the newest unfinished one with this spec, else a new one). Its kind,
    spec and model must be these, or it raises BadValue. ``again``: also a finished one. Ctrl-C becomes ``Interrupted``, which names
    the run; what its own words say of where it stopped is kept in its sentence.
    """
    run = _begin(store, kind, spec, ref, resume, parent, provenance, again)
    try:
        yield run
    except Interrupted:
        _end(store, run, "interrupted")  # a run inside this one was stopped, and its words say how to go on
        raise
    except KeyboardInterrupt as stop:
        _end(store, run, "interrupted")
        where = f" {stop}." if str(stop) else "; what was finished is kept."
        raise Interrupted(run, f"Interrupted{where} {_going_on(kind, run)}") from None
    except BaseException as error:
        _end(store, run, "failed", f"{type(error).__name__}: {error}"[:500])
        raise
    store.runs.finish(run, "done")


def _going_on(kind: str, run: str) -> str:
    """How the command of such a run is gone on with."""
    if kind in RESUMED:
        return f"Go on with the same command and `--resume {run}`."
    if kind == "calibrate":  # it looks for its unfinished run itself
        return "Go on with the same command, without `--again` if that was said."
    return "The same command begins anew."


def _end(store: Store, run: str, status: RunStatus, note: str = "") -> None:
    """Say how the run ended. Where even that cannot be written (a full disk), what ended it matters more: a run whose process is gone
    counts as interrupted."""
    with suppress(StoreError):
        store.runs.finish(run, status, note)


def unfinished(store: Store, kind: str, spec: Mapping[str, Any], ref: str) -> tuple[RunRecord, ...]:
    """The runs of exactly this kind, spec and model reference that were interrupted or failed, newest first."""
    found = store.runs.list(kind=kind, spec_digest=digest_of(dict(spec)))
    return tuple(record for record in found if record.status in RESUMABLE and record.ref == ref)


def _begin(
    store: Store, kind: str, spec: Mapping[str, Any], ref: str, resume: str, parent: str, provenance: Mapping[str, Any], again: bool
) -> str:
    if resume == "auto":
        candidates = unfinished(store, kind, spec, ref)
        resume = candidates[0].id if candidates else ""
    if not resume:
        return store.runs.create(kind, spec, ref, parent=parent, provenance=provenance)
    record = store.runs.get(resume)
    if (record.kind, record.ref, record.spec_digest) != (kind, ref, digest_of(dict(spec))):
        raise BadValue("--resume", resume, f"a run of {kind} with exactly this spec and model", do=_difference(record, kind, spec, ref))
    before, now = (facts.get("model_digest", "") for facts in (record.provenance, provenance))
    if before != now and "model_digest" in provenance:  # a training has its model only once it is made
        raise BadValue("--resume", resume, "a run of this model", do=f"Its model had digest {before[:12]}…, this one has {now[:12]}….")
    if record.status == "done" and not again:
        raise BadValue("--resume", resume, "a run that is not finished", do="Start a new run; `workbench runs show` has its results.")
    store.runs.resume(record.id)
    store.event(record.id, "resumed")
    return record.id


def _difference(record: RunRecord, kind: str, spec: Mapping[str, Any], ref: str) -> str:
    if record.kind != kind:
        return f"That run is of kind {record.kind}."
    if record.ref != ref:
        return f"That run is of {record.ref or 'a model in memory'}."
    odd = _differing(record.spec, spec)
    names = sorted(odd)
    values = "" if len(names) > 1 else " ({} then, {} now)".format(*(str(value)[:60] for value in odd[names[0]]))
    return f"They differ in {', '.join(names[:6])}{values}{f' and {len(names) - 6} more' if len(names) > 6 else ''}."


def _differing(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> dict[str, tuple[Any, Any]]:
    """The fields, by their path with dots, that two specs do not share, with both values."""
    out: dict[str, tuple[Any, Any]] = {}
    for name in {*before, *now}:
        one, other = before.get(name, "none"), now.get(name, "none")
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            out |= _differing(one, other, f"{within}{name}.")
        elif one != other:
            out[f"{within}{name}"] = (one, other)
    return out
