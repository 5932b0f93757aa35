"""A PostgreSQL server for the contract tests: the one WORKBENCH_TEST_POSTGRES names, or one started from the programs here."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

GIVEN = "WORKBENCH_TEST_POSTGRES"


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server's administrative database. Raises RuntimeError with the reason when there is none."""
    if given := os.environ.get(GIVEN):
        yield given
        return
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="assay-pg-"))
    as_user = _unprivileged(folder)
    data, log = folder / "data", folder / "log"
    try:
        _call([programs / "initdb", "-D", data, "-U", "assay", "-A", "trust", "-E", "UTF8", "--no-sync"], as_user)
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off -c max_connections=40"
        _call([programs / "pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start"], as_user)
        try:
            yield f"postgresql+psycopg://assay@/postgres?host={folder}"
        finally:
            _call([programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], as_user)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def database(admin: str) -> Iterator[str]:
    """The URL of a new empty database on the server."""
    name = f"assay_{secrets.token_hex(6)}"
    engine = sa.create_engine(admin, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        yield sa.make_url(admin).set(database=name).render_as_string(hide_password=False)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        engine.dispose()


def _programs() -> Path:
    found = [Path(p).resolve().parent for p in [shutil.which("pg_ctl")] if p] or sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        raise RuntimeError(f"no PostgreSQL server programs are installed and {GIVEN} is not set")
    return found[-1]


def _unprivileged(folder: Path) -> str | None:
    """PostgreSQL refuses to run as root: then it runs as 'nobody', who is given the folder."""
    if os.getuid() != 0:
        return None
    user = pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return "nobody"


def _call(words: list[object], user: str | None) -> None:
    group = pwd.getpwnam(user).pw_gid if user else None
    # not captured through pipes: the server would inherit them and hold them open
    with tempfile.TemporaryFile() as said:
        done = subprocess.run([str(w) for w in words], user=user, group=group, stdout=said, stderr=said, cwd="/", timeout=120)
        said.seek(0)
        if done.returncode:
            raise RuntimeError(f"{Path(str(words[0])).name} failed: {said.read().decode(errors='replace').strip()[-300:]}")
