"""The store: runs with their samples, results, findings and events, and artifacts beside them.

``Store.open()`` uses ``WORKBENCH_HOME`` (default ``./assay-runs``); ``WORKBENCH_STORE`` names another database. Any number
of processes may write at once. What a method has returned from is durable; what was in flight at a kill is absent, whole.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.core.errors import BadValue, StoreError, UnknownName
from workbench.core.finding import Finding
from workbench.core.result import Result
from workbench.core.spec import Spec, canonical_json, digest_of
from workbench.store.artifacts import Artifacts
from workbench.store.owner import is_alive, owner_here
from workbench.store.records import STATUSES, Event, RunRecord, RunStatus, StoredResult
from workbench.store.sink import StoreSink, checked_name
from workbench.store.tables import BUSY_SECONDS, Row, Tables, sqlite_url

HOME = "WORKBENCH_HOME"
URL = "WORKBENCH_STORE"
DEFAULT_HOME = "assay-runs"
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u, and in ASCII order


class Store:
    """One store. ``home`` is its folder (artifacts, and one folder a run), ``where`` its database without a password.

    ``address`` is what opens it again in another process that has this one's environment; it may hold a password.
    """

    def __init__(self, tables: Tables, home: Path, address: str = "") -> None:
        self._tables = tables
        self.home = home
        self.address = address or str(home.absolute())
        self.where = tables.where
        self.artifacts = Artifacts(home / "artifacts")
        self.runs = Runs(tables)

    @classmethod
    def open(cls, url_or_home: str | Path | None = None, *, create: bool = True, busy_s: int = BUSY_SECONDS) -> Store:
        """Open a store, making it where there is none.

        ``url_or_home`` is a folder, or a database URL (``postgresql+psycopg://…``); None reads the environment. With
        ``create=False`` a SQLite store that does not exist raises StoreError and nothing is written. ``busy_s``: how long another process's
        lock is waited for.
        """
        url, home = _places(url_or_home)
        address = url
        if not url:
            file = home / "store.sqlite"
            if not create and not file.exists():
                raise StoreError("The store could not be opened", f"there is none at '{home}' yet", do="The first run makes it.")
            _make_folder(home)
            url = sqlite_url(file)
        return cls(Tables(url, busy_s), home, address)

    def close(self) -> None:
        """Let go of connections. A store that is not closed loses nothing."""
        self._tables.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def folder(self, run: str) -> Path:
        """The run's own folder (checkpoints, report files), made if need be."""
        place = self.home / "runs" / self.runs.get(run).id
        _make_folder(place)
        return place

    # --- samples ------------------------------------------------------------------------------------------

    def sink(self, run: str, suite: str) -> StoreSink:
        """Where a runner writes the samples of one suite: a ``core.protocol.Sink``."""
        return StoreSink(self._tables, self.runs.get(run).id, suite)

    def sample_counts(self, run: str) -> dict[str, int]:
        """How many samples are committed, by suite."""
        return dict(sorted(self._tables.count_samples(run).items()))

    # --- results ------------------------------------------------------------------------------------------

    def put_result(self, run: str, name: str, result: Result) -> str:
        """Store ``result`` under ``name`` and return its digest.

        The same canonical content may be stored again; a different one under the same name raises StoreError, since a
        number that was reported must not change.
        """
        row = {
            "run": run, "name": checked_name("the result's name", name), "digest": result.digest(), "canonical": result.canonical(),
            "volatile": canonical_json(dict(result.provenance.volatile)),
        }  # fmt: skip
        if not self._tables.insert_result(row):
            stored = self._tables.select_result_digests(run)[name]
            if stored != row["digest"]:
                raise StoreError(
                    f"The result '{name}' of run {run} could not be stored",
                    f"one with digest {stored[:12]}… is there and this one has {row['digest'][:12]}…",
                    do="Start a new run; results are never overwritten.",
                )
        return row["digest"]

    def results(self, run: str) -> dict[str, Result]:
        """All results of a run by name, sorted, each checked against its digest."""
        return {row["name"]: _result(row) for row in sorted(self._tables.select_results(run), key=lambda row: row["name"])}

    def result(self, run: str, name: str) -> StoredResult:
        """One result with its digest. Raises UnknownName with the names there are."""
        for row in self._tables.select_results(run, name):
            return StoredResult(run, name, row["digest"], _result(row))
        raise UnknownName("result", name, self.result_digests(run), where=f"in run {run}")

    def result_digests(self, run: str) -> dict[str, str]:
        """The digest of each result by name, without reading the results."""
        return dict(sorted(self._tables.select_result_digests(run).items()))

    # --- findings and events ----------------------------------------------------------------------------------

    def put_findings(self, run: str, findings: Sequence[Finding]) -> None:
        """Store the run's findings in this order, in the place of any it had."""
        rows = [{"run": run, "number": number, "finding": finding.canonical()} for number, finding in enumerate(findings)]
        self._tables.replace_findings(run, rows)

    def findings(self, run: str) -> tuple[Finding, ...]:
        """The run's findings in their stored order."""
        return tuple(Finding.parse(json.loads(row["finding"])) for row in self._tables.select_findings(run))

    def event(self, run: str, name: str, **details: Any) -> None:
        """Note that something happened."""
        self._tables.insert_event(
            {"run": run, "time": _now(), "name": checked_name("the event's name", name), "details": canonical_json(details)}
        )

    def events(self, run: str) -> tuple[Event, ...]:
        """What happened in a run, in the order it was written."""
        return tuple(
            Event(row["number"], row["run"], row["time"], row["name"], json.loads(row["details"]))
            for row in self._tables.select_events(run)
        )


class Runs:
    """The runs of one store."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def create(
        self, kind: str, spec: Spec | Mapping[str, Any], ref: str = "", *, parent: str = "", provenance: Mapping[str, Any] | None = None
    ) -> str:
        """Begin a run owned by this process and return its id."""
        values = spec.model_dump(mode="json") if isinstance(spec, Spec) else dict(spec)
        row = {
            "kind": checked_name("the run's kind", kind), "ref": ref, "spec": canonical_json(values), "spec_digest": digest_of(values),
            "status": "running", "created": _now(), "finished": "", "parent": parent, "note": "",
            "provenance": canonical_json(dict(provenance or {})), "owner": canonical_json(owner_here()),
        }  # fmt: skip
        if parent:
            self.get(parent)
        for _ in range(20):  # again if another process drew the same id in the same millisecond
            if self._tables.insert_run({"id": (run := new_id()), **row}):
                return run
        raise StoreError("A run could not be begun", "twenty ids in a row were taken", do="Check this machine's clock.")

    def get(self, run: str) -> RunRecord:
        """The run with this id, with an unambiguous beginning of it, or the newest for ``last``."""
        rows = self._tables.select_runs(id=run)
        return _record(rows[0] if rows else self._tables.select_runs(id=self._resolve(run))[0])

    def owner(self, run: str) -> dict[str, Any]:
        """Which process has a run: ``host``, ``pid``, and when that ``started``."""
        return json.loads(self._tables.select_runs(id=self.get(run).id)[0]["owner"])

    def list(self, *, kind: str = "", status: str = "", parent: str | None = None, spec_digest: str = "") -> tuple[RunRecord, ...]:
        """The runs that match all that is given, newest first."""
        if status and status not in STATUSES:
            raise UnknownName("status", status, STATUSES)
        equal = {"kind": kind, "spec_digest": spec_digest}
        chosen = {name: value for name, value in equal.items() if value} | ({} if parent is None else {"parent": parent})
        records = [_record(row) for row in self._tables.select_runs(**chosen)]
        return tuple(sorted((r for r in records if not status or r.status == status), key=lambda r: r.id, reverse=True))

    def finish(self, run: str, status: RunStatus = "done", note: str = "") -> None:
        """Say how the run ended."""
        if status not in STATUSES:
            raise UnknownName("status", status, STATUSES)
        self._change(run, status=status, note=note, finished=_now() if status != "running" else "")

    def annotate(self, run: str, **provenance: Any) -> None:
        """Add facts to the run's provenance."""
        self._change(run, provenance=canonical_json({**self.get(run).provenance, **provenance}))

    def resume(self, run: str) -> RunRecord:
        """Take over a run that is not being worked on: it is *running* again, owned by this process.

        Raises StoreError when a living process has it; of two processes that try at once, one gets it.
        """
        run = self.get(run).id
        row = self._tables.select_runs(id=run)[0]
        taken = row["status"] == "running" and is_alive(json.loads(row["owner"]))
        owner = canonical_json({**owner_here(), "claim": secrets.token_hex(8)})  # two threads of one process differ too
        if taken or not self._tables.update_run(run, row["owner"], owner=owner, status="running", finished="", note=""):
            holder = json.loads(self._tables.select_runs(id=run)[0]["owner"])
            who = f"another process is working on it: process {holder['pid']} on {holder['host']}"
            raise StoreError(f"Run {run} could not be resumed", who, do="Wait until it has ended, or stop it first.")
        return self.get(run)

    def _change(self, run: str, **values: Any) -> None:
        if not self._tables.update_run(run, **values):
            raise UnknownName("run", run, self._tables.select_ids())

    def _resolve(self, text: str) -> str:
        ids = sorted(self._tables.select_ids())
        if text == "last" and ids:
            return ids[-1]
        found = [one for one in ids if text and one.startswith(text)]
        if len(found) == 1:
            return found[0]
        if found:
            raise BadValue("the run", text, f"the beginning of one run's id, and it begins {len(found)}: {', '.join(found[-4:])}")
        raise UnknownName("run", text, ids, hint="`workbench runs list` shows them.")


_last_id = 0
_id_lock = threading.Lock()


def new_id() -> str:
    """A run id: 9 digits of the time in milliseconds and 4 random ones, in base 32. Ids of one process sort as they were made."""
    global _last_id
    with _id_lock:
        _last_id = moment = max(time.time_ns() // 1_000_000, _last_id + 1)
    number = (moment << 20) | secrets.randbits(20)
    return "".join(_DIGITS[(number >> shift) & 31] for shift in range(60, -1, -5))


def _places(given: str | Path | None) -> tuple[str, Path]:
    """The database URL ('' for the SQLite file in the home) and the home folder."""
    home = Path(os.environ.get(HOME) or DEFAULT_HOME)
    if given is None:
        return os.environ.get(URL, ""), home
    text = str(given)
    return (text, home) if "://" in text else ("", Path(given))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"The folder '{folder}' could not be made", error.strerror or str(error), do=f"Choose one you may write to with {HOME}."
        ) from error


def _record(row: Row) -> RunRecord:
    status = row["status"]
    if status == "running" and not is_alive(json.loads(row["owner"])):
        status = "interrupted"
    return RunRecord(
        id=row["id"], kind=row["kind"], ref=row["ref"], spec=json.loads(row["spec"]), spec_digest=row["spec_digest"],
        status=status, created=row["created"], finished=row["finished"], parent=row["parent"], note=row["note"],
        provenance=json.loads(row["provenance"]),
    )  # fmt: skip


def _result(row: Row) -> Result:
    whole = {"canonical": json.loads(row["canonical"]), "digest": row["digest"], "volatile": json.loads(row["volatile"])}
    return Result.from_json(canonical_json(whole))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
