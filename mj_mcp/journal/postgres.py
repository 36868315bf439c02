"""The journal in PostgreSQL, shared by replicas on any number of machines.

Owns the connections, what is tried again when they are lost, and how replicas hear of each other. What is written is
in `sql.py`. Needs PostgreSQL 13 or newer, and sessions of its own: no pooler that shares them out by transaction.

Nothing that another replica wrote is missed, in whatever order transactions commit: a row's `seq` is the id of the
transaction that wrote it, and a look for changes takes every row that the snapshot of the look before did not show.
Notifications only make the look come soon; a lost one loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool, PoolTimeout

from mj_mcp.journal.database import Session, migrate, translated
from mj_mcp.journal.engine import Db, Dialect

T = TypeVar("T")

WRITE_SECONDS = 5.0
"""How long a write looks for a database that answers before the submit is refused."""

READ_SECONDS = 0.75
"""The same for a read: a call with no time to wait must still be answered within a second."""

READERS = 3
CONNECT_SECONDS = 3
TRY_SECONDS = 0.25
"""How often the pool is asked for a connection: each time it tries to make one."""

HEARD_GAP_SECONDS = 0.1
"""Many changes at once are heard of together."""

CHANNEL = "mj_mcp_journal"

ALIVE = "hashtextextended(?, 1)"
"""The advisory lock of a living process (`?`), beside those of the accounts, which are hashed with 0."""

GONE_SECONDS = 2.0
LOOKED_AWAY_SECONDS = 4.0
"""Longer than the time between two sweeps."""

LISTENS = sys.platform != "win32"
"""Whether processes have a session that shows their life: the event loop of Windows cannot hold one."""

DEFAULTS = {
    "application_name": "mj-mcp",
    "connect_timeout": str(CONNECT_SECONDS),
    # A peer that is gone without a word is noticed within seconds, not hours.
    "keepalives_idle": "4",
    "keepalives_interval": "2",
    "keepalives_count": "2",
    "tcp_user_timeout": "5000",
}
"""What a connection is given unless the URL says otherwise."""

GONE = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow)


class Postgres:
    """See `mj_mcp.journal.engine.Engine`. The database is asked on first use: a start does not wait for it."""

    dialect = Dialect(
        next_seq="pg_current_xact_id()::text::bigint",
        # The statement's time, not the transaction's: a claim may have waited for its turn since its transaction began.
        now="extract(epoch FROM statement_timestamp())::float8",
        begin_read="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        take_turn="SELECT pg_advisory_xact_lock(hashtextextended(?, 0))",
        lock_row=" FOR UPDATE",
        skip_locked=" FOR UPDATE SKIP LOCKED",
        announce=f" RETURNING pg_notify('{CHANNEL}', writer || ' ' || submission_id)",
    )
    death_shows = False

    def __init__(self, url: str) -> None:
        self.holder = uuid.uuid4().hex
        with translated():
            self._conninfo = make_conninfo("", **{**DEFAULTS, **conninfo_to_dict(url)})
        # One writer: what this process writes is written in the order in which it was asked for, as in SQLite.
        self._writes = ThreadPoolExecutor(1, "journal-write")
        self._reads = ThreadPoolExecutor(READERS, "journal-read")
        self._pool = ConnectionPool(
            self._conninfo,
            kwargs={"autocommit": True},
            configure=_configure,
            min_size=0,
            max_size=READERS + 1,
            reconnect_timeout=0.01,  # it is asked again, every TRY_SECONDS
            open=False,
        )
        self._opening = threading.Lock()
        self._is_open = False
        self._is_away = False
        self._seen: str | None = None
        self._missing: dict[str, tuple[float, float]] = {}

    async def write(self, work: Callable[[Db], T]) -> T:
        """See `Engine.write`."""
        deadline = time.monotonic() + WRITE_SECONDS
        return await asyncio.get_running_loop().run_in_executor(self._writes, self._transact, work, deadline)

    async def read(self, work: Callable[[Db], T]) -> T:
        """See `Engine.read`. Each statement stands for itself."""
        return await asyncio.get_running_loop().run_in_executor(self._reads, self._read, work)

    def changed(self, db: Db, account: str) -> Iterable[str]:
        """See `Engine.changed`."""
        if self._seen is None:
            (self._seen,) = db.execute("SELECT pg_current_snapshot()::text").fetchone()
            return []
        # In one statement, so that the rows and the snapshot are of one moment. After a restore into another server,
        # a `seq` may lie ahead of every transaction there is: the upper bound leaves it alone.
        rows = db.execute(
            "SELECT pg_current_snapshot()::text, changed.writer, changed.body FROM (SELECT 1) AS one LEFT JOIN"
            " (SELECT writer, body, seq FROM tasks WHERE account = ? AND seq >= ?"
            " AND seq < pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
            " AND NOT pg_visible_in_snapshot(seq::text::xid8, ?::pg_snapshot)) AS changed ON true ORDER BY changed.seq",
            (account, int(self._seen.partition(":")[0]), self._seen),
        ).fetchall()
        self._seen = rows[0][0]
        return [body for _, writer, body in rows if writer not in {None, self.holder}]

    async def listen(self, heard: Callable[[], None]) -> None:
        """See `Engine.listen`."""
        while True:
            with suppress(psycopg.Error):  # it is made anew; meanwhile changes are looked for all the same
                async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as db:
                    await db.execute(f"LISTEN {CHANNEL}")
                    # Held as long as this session lives, it shows that this process does; shared, since the server may
                    # not have noticed yet that the session before is over.
                    await db.execute(f"SELECT pg_advisory_lock_shared({ALIVE})".replace("?", "%s"), (self.holder,))
                    heard()  # of what was said while nobody listened
                    while True:
                        notices = [notice.payload async for notice in db.notifies(stop_after=1)]
                        if any(not payload.startswith(self.holder) for payload in notices):
                            heard()
                        await asyncio.sleep(HEARD_GAP_SECONDS)
            await asyncio.sleep(TRY_SECONDS)

    def is_dead(self, db: Db, holder: str) -> bool:
        """See `Engine.is_dead`. Its session is gone, and has not come back for a while: it may only be reconnecting."""
        (nobody,) = db.execute(f"SELECT pg_try_advisory_xact_lock({ALIVE})", (holder,)).fetchone()
        if not nobody:
            self._missing.pop(holder, None)
            return False
        now = time.monotonic()
        since, last = self._missing.get(holder, (now, now))
        if now - last > LOOKED_AWAY_SECONDS:
            since = now  # the database may have been away, and with it everybody's session
        self._missing[holder] = since, now
        return LISTENS and now - since >= GONE_SECONDS

    async def aclose(self) -> None:
        """See `Engine.aclose`."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writes.shutdown()
        self._reads.shutdown()
        self._pool.close()

    def _transact(self, work: Callable[[Db], T], deadline: float) -> T:
        with translated():
            while True:
                with self._connection(deadline) as db:
                    try:
                        xact = _begin(db)
                        outcome = work(Session(db))
                    except BaseException as failure:
                        if _is_lost(db, failure):
                            continue  # nothing was committed: once more, on another connection
                        with suppress(psycopg.Error):
                            db.execute("ROLLBACK")
                        raise
                    try:
                        db.execute("COMMIT")
                    except psycopg.Error as failure:
                        if not _is_lost(db, failure):
                            raise
                    else:
                        return outcome
                if self._was_committed(xact, deadline):
                    return outcome

    def _was_committed(self, xact: str, deadline: float) -> bool:
        """What became of a transaction whose connection was lost at its COMMIT: the database knows."""
        while True:
            status = self._fetch_again(
                lambda db: db.execute("SELECT pg_xact_status(?::text::xid8)", (xact,)).fetchone()[0], deadline
            )
            if status != "in progress":
                return bool(status == "committed")
            time.sleep(0.05)

    def _read(self, work: Callable[[Db], T]) -> T:
        with translated():
            self._open()
            # The time counts from here: readers have a connection each, so nobody has waited for another.
            return self._fetch_again(work, time.monotonic() + (TRY_SECONDS if self._is_away else READ_SECONDS))

    def _fetch_again(self, work: Callable[[Db], T], deadline: float) -> T:
        with translated():
            while True:
                with self._connection(deadline) as db:
                    try:
                        return work(Session(db))
                    except psycopg.Error as failure:
                        if not _is_lost(db, failure):
                            raise

    @contextmanager
    def _connection(self, deadline: float) -> Iterator[psycopg.Connection]:
        self._open()
        db = self._taken(deadline)
        try:
            yield db
        finally:
            self._pool.putconn(db)

    def _taken(self, deadline: float) -> psycopg.Connection:
        while True:
            left = deadline - time.monotonic()
            try:
                db = self._pool.getconn(timeout=min(left, TRY_SECONDS))
            except PoolTimeout:
                if left <= TRY_SECONDS:
                    self._is_away = True
                    raise
            else:
                self._is_away = False
                return db

    def _open(self) -> None:
        with self._opening:
            if not self._is_open:
                # On a connection beside the pool, which would keep the reason of a failure to itself.
                with psycopg.connect(self._conninfo, autocommit=True) as db:
                    migrate(db)
                self._pool.open()
                self._is_open = True


def _configure(db: psycopg.Connection) -> None:
    db.execute(f"SET statement_timeout = {WRITE_SECONDS * 1000:.0f}")


def _begin(db: psycopg.Connection) -> str:
    """Begin a transaction, in one round trip with the question for its id."""
    begun = db.execute("BEGIN; SELECT pg_current_xact_id()::text")
    begun.nextset()
    (xact,) = begun.fetchone() or ("",)
    return str(xact)


def _is_lost(db: psycopg.Connection, failure: BaseException) -> bool:
    """Whether the connection is gone, and with it what was not committed; it is not used again."""
    if isinstance(failure, GONE):
        db.close()
    return db.closed and isinstance(failure, psycopg.Error)


logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # what it warns of is told by whoever needed the connection
