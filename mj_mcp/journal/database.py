"""The journal's PostgreSQL database: its tables, its errors in our words, its parameters as `?`.

Owns what a single connection needs. `postgres.py` owns which connections there are, and when.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.abc import PQGen
from psycopg_pool import PoolTimeout

from mj_mcp.errors import StorageUnavailable
from mj_mcp.journal import migrations
from mj_mcp.journal.engine import Rows
from mj_mcp.journal.schema import MIGRATIONS, in_postgres

T = TypeVar("T")

MIGRATING = 0x6D6A5F6D6370
"""The advisory lock that lets one replica at a time create the tables."""

FIND_IN_POSTGRES = "SELECT to_regclass('migrations')"

POSTGRES_REASONS: dict[type[psycopg.Error], str] = {
    PoolTimeout: "the database does not answer",
    errors.ConnectionTimeout: "the database does not answer",
    errors.CannotConnectNow: "the database is starting or stopping",
    errors.DiskFull: "the database's disk is full",
    errors.ReadOnlySqlTransaction: "the database is read-only",
    errors.QueryCanceled: "another program has kept it locked for too long",
    errors.LockNotAvailable: "another program has kept it locked for too long",
    errors.TooManyConnections: "the database takes no more connections",
    errors.InsufficientPrivilege: "the database's user may not use it",
}
"""Failures that a person can act on, in plain words."""


@contextmanager
def connected(url: str) -> Iterator[psycopg.Connection]:
    """A connection to the journal at `url`, migrated. For commands that read or copy the whole journal."""
    with translated(), psycopg.connect(url, autocommit=True) as db:
        migrate(db)
        yield db


class Bounded(psycopg.Connection[tuple[Any, ...]]):
    """A connection that closes itself if the database does not answer by `deadline`, on the monotonic clock.

    Timeouts on the server do not help when the server, or the network to it, is silent.
    """

    deadline = math.inf

    def wait(self, gen: PQGen[T], *args: Any, **more: Any) -> T:  # noqa: ANN401 - passed on unchanged
        """Every statement waits here.

        Raises:
            ConnectionTimeout: there was no answer in time.
        """
        try:
            return super().wait(_until(self.deadline, gen), *args, **more)
        except errors.ConnectionTimeout:
            self.close()
            raise


def _until(deadline: float, steps: PQGen[T]) -> PQGen[T]:
    """The steps of a conversation with the database. Between them, psycopg waits at most 0.1 s."""
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                raise errors.ConnectionTimeout("there was no answer in time")
            wanted = steps.send(ready)
    except StopIteration as end:
        outcome: T = end.value
        return outcome


class Session:
    """A connection that takes `?` for a parameter, as the journal's SQL is written."""

    def __init__(self, db: psycopg.Connection) -> None:
        self._db = db

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        """See `Db.execute`."""
        return self._db.execute(_statement(sql), values)


@lru_cache(512)
def _statement(sql: str) -> bytes:
    return sql.replace("%", "%%").replace("?", "%s").encode()


def migrate(db: psycopg.Connection) -> None:
    """Bring the tables up to date. Several replicas may call it at once.

    Raises:
        StorageUnavailable: they were written by a newer version, or the server is too old.
    """
    if db.info.server_version < 130000:
        raise StorageUnavailable(
            f"MJ_DATABASE_URL is PostgreSQL {db.info.server_version // 10000}; it must be 13 or newer"
        )
    migrations.migrate(Session(db), MIGRATIONS, find_table=FIND_IN_POSTGRES, alone=_alone(db), in_words=in_postgres)


@contextmanager
def _alone(db: psycopg.Connection) -> Iterator[None]:
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATING,))
        yield


@contextmanager
def translated() -> Iterator[None]:
    """Turns every error of the database into one that says that nothing was submitted."""
    try:
        yield
    except psycopg.Error as failure:
        reason = next((said for kind, said in POSTGRES_REASONS.items() if isinstance(failure, kind)), None)
        said = reason or next(iter(str(failure).strip().splitlines()), type(failure).__name__)
        raise StorageUnavailable(f"the journal cannot be used: {said}") from failure
