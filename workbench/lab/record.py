"""A run from its beginning to its end: created or resumed, and marked done, failed or interrupted whatever happens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from workbench.core.errors import BadValue
from workbench.core.spec import digest_of
from workbench.store.records import RunRecord
from workbench.store.runs import Store

RESUMABLE = ("interrupted", "failed")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run that can be resumed; ``run`` is its id."""

    def __init__(self, run: str, words: str) -> None:
        self.run = run
        super().__init__(words)


@contextmanager
def recorded(
    store: Store, kind: str, spec: Mapping[str, Any], ref: str, *, resume: str = "", parent: str = "", provenance: Mapping[str, Any]
) -> Iterator[str]:
    """The id of a run that is *running* inside the block.

    ``resume`` is the id of a run to go on with (``auto``: the newest unfinished one with this spec, else a new one). Its kind,
    spec and model must be these, or it raises BadValue. Ctrl-C becomes ``Interrupted``, which names the run.
    """
    run = _begin(store, kind, spec, ref, resume, parent, provenance)
    try:
        yield run
    except Interrupted:
        store.runs.finish(run, "interrupted")  # a run inside this one was stopped, and its words say how to go on
        raise
    except KeyboardInterrupt:
        store.runs.finish(run, "interrupted")
        raise Interrupted(run, f"Interrupted; what was finished is kept. Go on with the same command and `--resume {run}`.") from None
    except BaseException as error:
        store.runs.finish(run, "failed", f"{type(error).__name__}: {error}"[:500])
        raise
    store.runs.finish(run, "done")


def unfinished(store: Store, kind: str, spec: Mapping[str, Any], ref: str) -> tuple[RunRecord, ...]:
    """The runs of exactly this kind, spec and model reference that were interrupted or failed, newest first."""
    found = store.runs.list(kind=kind, spec_digest=digest_of(dict(spec)))
    return tuple(record for record in found if record.status in RESUMABLE and record.ref == ref)


def _begin(store: Store, kind: str, spec: Mapping[str, Any], ref: str, resume: str, parent: str, provenance: Mapping[str, Any]) -> str:
    if resume == "auto":
        candidates = unfinished(store, kind, spec, ref)
        resume = candidates[0].id if candidates else ""
    if not resume:
        return store.runs.create(kind, spec, ref, parent=parent, provenance=provenance)
    record = store.runs.get(resume)
    if (record.kind, record.ref, record.spec_digest) != (kind, ref, digest_of(dict(spec))):
        raise BadValue("--resume", resume, f"a run of {kind} with exactly this spec and model", do=_difference(record, kind, spec, ref))
    before, now = (facts.get("model_digest", "") for facts in (record.provenance, provenance))
    if before != now:
        raise BadValue("--resume", resume, "a run of this model", do=f"Its model had digest {before[:12]}…, this one has {now[:12]}….")
    if record.status == "done":
        raise BadValue("--resume", resume, "a run that is not finished", do="Start a new run; `workbench runs show` has its results.")
    store.runs.resume(record.id)
    store.event(record.id, "resumed")
    return record.id


def _difference(record: RunRecord, kind: str, spec: Mapping[str, Any], ref: str) -> str:
    if record.kind != kind:
        return f"That run is of kind {record.kind}."
    if record.ref != ref:
        return f"That run is of {record.ref or 'a model in memory'}."
    names = sorted(name for name in {*record.spec, *spec} if record.spec.get(name) != spec.get(name))
    return f"They differ in {', '.join(names)}."
