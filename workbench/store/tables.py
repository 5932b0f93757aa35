"""The tables and every statement on them: the only file that knows SQL.

Two dialects, one schema: SQLite in WAL mode (several processes, one machine) and PostgreSQL (a team). Values that are
not looked up by are kept as canonical JSON text. Order is never left to a database's collation: text that decides the
order of a result is sorted by the caller.

SQLite specifics, all in ``_prepare_sqlite``: Python's driver is told to leave transactions alone, and a writing
transaction begins IMMEDIATE, since one that begins by reading cannot wait for its turn to write.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from workbench.core.errors import BadValue, MissingExtra, StoreError

SCHEMA_VERSION = 1
BUSY_SECONDS = 60
_LOCK = 0x61737361  # an arbitrary fixed number: the advisory lock under which PostgreSQL's schema is made
_INSERTS: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

# A Ctrl-C that meets a connection being closed is raised as it should be; SQLAlchemy's log line about it is for developers.
logging.getLogger("sqlalchemy").addHandler(logging.NullHandler())

_metadata = sa.MetaData()

_schema = sa.Table("assay_schema", _metadata, sa.Column("version", sa.Integer, primary_key=True))

_runs = sa.Table(
    "runs",
    _metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("ref", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("spec_digest", sa.String(64), nullable=False, index=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("created", sa.String(32), nullable=False),
    sa.Column("finished", sa.String(32), nullable=False),
    sa.Column("parent", sa.String(32), nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("provenance", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
)

_samples = sa.Table(
    "samples",
    _metadata,
    sa.Column("run", sa.String(32), sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("suite", sa.String(128), primary_key=True),
    sa.Column("sample", sa.String(512), primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("record", sa.Text, nullable=False),
)

_results = sa.Table(
    "results",
    _metadata,
    sa.Column("run", sa.String(32), sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("name", sa.String(256), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("canonical", sa.Text, nullable=False),
    sa.Column("volatile", sa.Text, nullable=False),
)

_findings = sa.Table(
    "findings",
    _metadata,
    sa.Column("run", sa.String(32), sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("finding", sa.Text, nullable=False),
)

_events = sa.Table(
    "events",
    _metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run", sa.String(32), sa.ForeignKey("runs.id"), nullable=False, index=True),
    sa.Column("time", sa.String(32), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("details", sa.Text, nullable=False),
)

Row = Mapping[str, Any]


class Tables:
    """The statements, one method each. Rows come back as plain mappings; every database fault becomes a StoreError. ``busy_s``: how long
    another process's lock on a SQLite file is waited for."""

    def __init__(self, url: str, busy_s: int = BUSY_SECONDS) -> None:
        try:
            parsed = sa.make_url(url)
        except (ArgumentError, ValueError):  # ValueError: a port that is not a number
            raise BadValue("the store's URL", _hidden(url), "of the form postgresql+psycopg://user@host/name, or a folder") from None
        self.where = parsed.render_as_string(hide_password=True)
        self.dialect = parsed.get_backend_name()
        if self.dialect not in _INSERTS:
            raise BadValue("the store's database", self.dialect, "sqlite or postgresql")
        self._engine = _engine(parsed, busy_s)
        try:
            self._make_schema()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._engine.dispose()

    # --- runs ---------------------------------------------------------------------------------------------

    def insert_run(self, row: Row) -> bool:
        """Add a run; false when its id is taken."""
        return self._insert_new(_runs, [row]) == 1

    def update_run(self, run: str, expected_owner: str | None = None, **values: Any) -> bool:
        """Change a run, only while its owner is ``expected_owner`` where that is given; false when nothing was changed."""
        where = _runs.c.id == run
        if expected_owner is not None:
            where &= _runs.c.owner == expected_owner
        with self._writing() as connection:
            return connection.execute(sa.update(_runs).where(where).values(**values)).rowcount == 1

    def select_runs(self, **equal: str) -> list[Row]:
        """The runs whose columns equal ``equal``, in no particular order."""
        return self._rows(sa.select(_runs).where(*(_runs.c[name] == value for name, value in equal.items())))

    def select_ids(self) -> list[str]:
        return [row["id"] for row in self._rows(sa.select(_runs.c.id))]

    # --- samples ------------------------------------------------------------------------------------------

    def insert_samples(self, rows: Sequence[Row]) -> int:
        """Add samples in one transaction; those whose key is there already are left as they are. Returns how many were new."""
        return self._insert_new(_samples, rows)

    def select_samples(self, run: str, suite: str) -> list[Row]:
        return self._rows(sa.select(_samples).where(_samples.c.run == run, _samples.c.suite == suite))

    def select_sample_keys(self, run: str, suite: str) -> list[Row]:
        columns = sa.select(_samples.c.sample, _samples.c.epoch)
        return self._rows(columns.where(_samples.c.run == run, _samples.c.suite == suite))

    def count_samples(self, run: str) -> dict[str, int]:
        """How many samples each suite of the run has."""
        counted = sa.select(_samples.c.suite, sa.func.count().label("n")).where(_samples.c.run == run).group_by(_samples.c.suite)
        return {row["suite"]: row["n"] for row in self._rows(counted)}

    # --- results, findings, events ----------------------------------------------------------------------------

    def insert_result(self, row: Row) -> bool:
        """Add a result; false when the run has one of that name."""
        return self._insert_new(_results, [row]) == 1

    def select_results(self, run: str, name: str | None = None) -> list[Row]:
        chosen = sa.select(_results).where(_results.c.run == run)
        return self._rows(chosen if name is None else chosen.where(_results.c.name == name))

    def select_result_digests(self, run: str) -> dict[str, str]:
        found = self._rows(sa.select(_results.c.name, _results.c.digest).where(_results.c.run == run))
        return {row["name"]: row["digest"] for row in found}

    def replace_findings(self, run: str, rows: Sequence[Row]) -> None:
        """Put ``rows`` in the place of all findings of the run, in one transaction."""
        with self._writing() as connection:
            connection.execute(sa.delete(_findings).where(_findings.c.run == run))
            if rows:
                connection.execute(sa.insert(_findings), [dict(row) for row in rows])

    def select_findings(self, run: str) -> list[Row]:
        return self._rows(sa.select(_findings).where(_findings.c.run == run).order_by(_findings.c.number))

    def insert_event(self, row: Row) -> None:
        with self._writing() as connection:
            connection.execute(sa.insert(_events), [dict(row)])

    def select_events(self, run: str) -> list[Row]:
        return self._rows(sa.select(_events).where(_events.c.run == run).order_by(_events.c.number))

    # --- how ----------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._translated("The store could not be written"), self._engine.connect() as connection:
            connection = connection.execution_options(assay_writes=True)
            with connection.begin():
                yield connection

    def _rows(self, statement: sa.Select[*tuple[Any, ...]]) -> list[Row]:
        with self._translated("The store could not be read"), self._engine.connect() as connection:
            return [{str(name): value for name, value in row.items()} for row in connection.execute(statement).mappings()]

    def _insert_new(self, table: sa.Table, rows: Sequence[Row]) -> int:
        if not rows:
            return 0
        statement = _INSERTS[self.dialect](table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
        with self._writing() as connection:
            # one statement a row: rowcount over many rows is not to be had alike from both drivers
            return sum(connection.execute(statement, dict(row)).rowcount for row in rows)

    @contextmanager
    def _translated(self, asked: str) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            raise StoreError(asked, f"it refers to a run that is not in the store at {self.where} ({_cause(error)})") from error
        except DBAPIError as error:
            raise StoreError(asked, f"{_cause(error)} ({self.where})", do=_advice(error)) from error

    def _make_schema(self) -> None:
        with self._translated("The store could not be opened"), self._engine.connect() as connection:
            if sa.inspect(connection).has_table(_schema.name):
                self._check_version(connection)
                return
        with self._writing() as connection:
            if self.dialect == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            _metadata.create_all(connection)
            if not connection.execute(sa.select(_schema.c.version)).first():
                connection.execute(sa.insert(_schema), {"version": SCHEMA_VERSION})
            self._check_version(connection)

    def _check_version(self, connection: sa.Connection) -> None:
        found = connection.execute(sa.select(sa.func.max(_schema.c.version))).scalar()
        if found is None or not 1 <= found <= SCHEMA_VERSION:
            raise StoreError(
                f"The store at {self.where} could not be opened",
                f"its schema has version {found}, and this program knows versions 1 to {SCHEMA_VERSION}",
                do="Open it with a newer assay-workbench, or choose another WORKBENCH_HOME.",
            )


def _engine(url: sa.URL, busy_s: int) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        # a connection an operation: nothing is shared over a fork or left open for the garbage collector
        engine = sa.create_engine(url, poolclass=NullPool, connect_args={"timeout": busy_s})
        event.listen(engine, "connect", lambda connection, record: _prepare_sqlite(connection, busy_s))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        return sa.create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    except (ImportError, NoSuchModuleError):
        raise MissingExtra("psycopg", "distributed", "A store on PostgreSQL") from None


def _prepare_sqlite(connection: sqlite3.Connection, busy_s: int) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        cursor.execute(f"PRAGMA busy_timeout = {busy_s * 1000}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
    finally:
        cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("assay_writes") else "BEGIN")


def sqlite_url(file: Path) -> str:
    """The URL of a SQLite database file."""
    return sa.URL.create("sqlite", database=str(file)).render_as_string(hide_password=False)


def _cause(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split()).rstrip(".")


def _advice(error: DBAPIError) -> str:
    words = str(error.orig)
    if "not a database" in words or "malformed" in words:
        return "Move the file away to begin a new store, or restore it from a copy."
    if "readonly" in words or "unable to open" in words:
        return "Choose a folder you may write to with WORKBENCH_HOME."
    if "full" in words:
        return "Make room on that disk."
    if "locked" in words:
        return "Another process has been writing for long; try again when it is done."
    return ""


def _hidden(url: str) -> str:
    scheme, sign, rest = url.partition("://")
    return f"{scheme}{sign}…" if sign and "@" in rest else url
