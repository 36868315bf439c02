"""The journal in PostgreSQL, shared by replicas on any number of machines.

Owns the connections, what is retried when they are lost, and how replicas notify each other. `sql.py` owns what is
written. Needs PostgreSQL 13 or newer and sessions of its own: no pooler in transaction mode.

No change of another replica is missed, in whatever order transactions commit. A row's `seq` is the id of the
transaction that wrote it, and a search for changes takes every row that the previous search's snapshot did not show.
After a lost connection it goes back a little, because a server that crashed may give the same ids again. A notification
only makes the search come sooner; losing one loses no change.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool, PoolTimeout

from mj_mcp.journal.database import Bounded, Session, migrate, translated
from mj_mcp.journal.engine import READ_SECONDS, WRITE_SECONDS, Db, SqlDialect

T = TypeVar("T")

AWAY_SECONDS = 3.0
"""For this long after the database did not answer, reads wait only TRY_SECONDS, so that few calls wait in full."""

OPEN_SECONDS = 60.0
"""How long creating the tables may take."""

READERS = 3
DATABASE_CONNECT_SECONDS = 3
TRY_SECONDS = 0.25
"""How often the pool is asked for a connection. Each time it tries to make one."""

NOTIFY_GAP_SECONDS = 0.1
"""Notifications within this time are handled together."""

CHANNEL = "mj_mcp_journal"

ALIVE = "hashtextextended(?, 1)"
"""The advisory lock of a living process (`?`). Those of the accounts are hashed with 0."""

LIVES = (
    "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    f" AND (classid::bigint << 32 | objid::bigint) = {ALIVE})"
)
"""Whether the process (`?`) has a session. The lock is only read: two processes that try it would see each other."""

IN_PROGRESS = (
    "SELECT CASE WHEN ?::text::xid8 < pg_current_xact_id() THEN pg_xact_status(?::text::xid8) = 'in progress' END"
)
"""Whether a transaction (`?` twice) goes on. A server that crashed may not know its id any more."""

WRITTEN = "SELECT EXISTS (SELECT FROM tasks WHERE seq = ?::text::bigint AND writer = ?)"
"""Whether a process (the second `?`) has committed a change of a task in a transaction (the first `?`). The id alone
proves nothing: after a crash the server gives it to another transaction."""

LOOK_BACK = 1000
"""After a connection was lost, changes by the last so many transactions are reported again. The server may have crashed
and given ids again that our snapshot counts as seen: a transaction that wrote nothing reaches the disk late."""

MISSED_SWEEP_SECONDS = 4.0
"""Longer than the time between two sweeps. After such a gap, everyone's session may have been lost."""

LISTENS = sys.platform != "win32"
"""Whether a process has a session that shows that it is alive. The event loop of Windows cannot hold one."""

DEFAULTS = {
    "application_name": "mj-mcp",
    "connect_timeout": str(DATABASE_CONNECT_SECONDS),
    # A peer that disappears is noticed within seconds, not hours.
    "keepalives_idle": "4",
    "keepalives_interval": "2",
    "keepalives_count": "2",
    "tcp_user_timeout": "5000",
}
"""Connection parameters, unless the URL sets them."""

ON_DISK = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
"""A crash of the server loses nothing that it said was committed, whatever it is set to."""

GONE = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow)


class Postgres:
    """See `mj_mcp.journal.engine.Engine`. It connects on first use: a start does not wait for the database."""

    dialect = SqlDialect(
        next_seq="pg_current_xact_id()::text::bigint",
        # The statement's time, not the transaction's: a claim may have waited for the lock since its transaction began.
        now="extract(epoch FROM statement_timestamp())::float8",
        begin_read="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        lock_account="SELECT pg_advisory_xact_lock(hashtextextended(?, 0))",
        lock_row=" FOR UPDATE",
        skip_locked=" FOR UPDATE SKIP LOCKED",
        announce=f" RETURNING pg_notify('{CHANNEL}', writer || ' ' || submission_id)",
    )

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` measures for how many seconds other processes have been gone."""
        self.holder = uuid.uuid4().hex
        with translated():
            self._conninfo = make_conninfo("", **{**DEFAULTS, **conninfo_to_dict(url)})
        # One writer, so the writes of this process keep their order, as in SQLite.
        self._writes = ThreadPoolExecutor(1, "journal-write")
        self._reads = ThreadPoolExecutor(READERS, "journal-read")
        self._opener = ThreadPoolExecutor(1, "journal-open")
        self._pool = ConnectionPool(
            self._conninfo,
            connection_class=Bounded,
            kwargs={"autocommit": True},
            configure=_configure,
            min_size=0,
            max_size=READERS + 1,
            reconnect_timeout=0.01,  # we ask again every TRY_SECONDS
            open=False,
        )
        self._lock = threading.Lock()
        self._opened: Future[None] | None = None
        self._making: Bounded | None = None
        self._away_until = 0.0
        self._seen: str | None = None
        self._was_cut = False
        self._clock = clock
        self._missing: dict[str, tuple[float, float]] = {}

    async def write(self, work: Callable[[Db], T]) -> T:
        """See `Engine.write`."""
        by = time.monotonic() + WRITE_SECONDS
        return await asyncio.get_running_loop().run_in_executor(self._writes, self._transact, work, by)

    async def read(self, work: Callable[[Db], T]) -> T:
        """See `Engine.read`. Each statement is its own transaction."""
        by = time.monotonic() + READ_SECONDS
        return await asyncio.get_running_loop().run_in_executor(self._reads, self._read, work, by)

    def changed(self, db: Db, account: str) -> Iterable[str]:
        """See `Engine.changed`."""
        if self._seen is None:
            (self._seen,) = db.execute("SELECT pg_current_snapshot()::text").fetchone()
            return []
        seen, since = self._seen, int(self._seen.partition(":")[0])
        if self._was_cut:
            since = max(since - LOOK_BACK, 1)
            seen, self._was_cut = f"{since}:{since}:", False
        # One statement, so that rows and snapshot belong to the same moment. After a restore into another server, a
        # `seq` may be higher than any transaction's id: the upper bound skips it.
        rows = db.execute(
            "SELECT pg_current_snapshot()::text, changed.writer, changed.body FROM (SELECT 1) AS one LEFT JOIN"
            " (SELECT writer, body, seq FROM tasks WHERE account = ? AND seq >= ?"
            " AND seq < pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
            " AND NOT pg_visible_in_snapshot(seq::text::xid8, ?::pg_snapshot)) AS changed ON true ORDER BY changed.seq",
            (account, since, seen),
        ).fetchall()
        self._seen = rows[0][0]
        return [body for _, writer, body in rows if writer not in {None, self.holder}]

    async def listen(self, heard: Callable[[], None]) -> None:
        """See `Engine.listen`."""
        while True:
            with suppress(psycopg.Error, TimeoutError):  # it is made again; changes are found without it
                async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as db:
                    async with asyncio.timeout(DATABASE_CONNECT_SECONDS):
                        await db.execute(f"LISTEN {CHANNEL}")
                        # This lock is held as long as the session lives, so it shows that this process lives. It is
                        # shared, because the server may not have noticed yet that the previous session is over.
                        await db.execute(f"SELECT pg_advisory_lock_shared({ALIVE})".replace("?", "%s"), (self.holder,))
                    heard()  # for what was announced before we listened
                    while True:
                        notices = [notice.payload async for notice in db.notifies(stop_after=1)]
                        if any(not payload.startswith(self.holder) for payload in notices):
                            heard()
                        await asyncio.sleep(NOTIFY_GAP_SECONDS)
            await asyncio.sleep(TRY_SECONDS)

    def dead_for(self, db: Db, holder: str) -> float:
        """See `Engine.dead_for`. The process may only be reconnecting, so this is never infinite."""
        if not LISTENS:
            return 0.0
        (lives,) = db.execute(LIVES, (holder,)).fetchone()
        if lives:
            self._missing.pop(holder, None)
            return 0.0
        now = self._clock()
        since, last = self._missing.get(holder, (now, now))
        if now - last > MISSED_SWEEP_SECONDS:
            since = now  # the database may have been unavailable, and so everyone's session
        self._missing[holder] = since, now
        return now - since

    async def aclose(self) -> None:
        """See `Engine.aclose`."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writes.shutdown()
        self._reads.shutdown()
        if self._making is not None:
            self._making.deadline = 0.0  # tables that are not created by now are created by the next server
        self._opener.shutdown()
        self._pool.close()

    def _transact(self, work: Callable[[Db], T], by: float) -> T:
        # A write that waited for this thread past its deadline is tried once, unless the database itself took the time.
        deadline = by if self._is_away() else max(by, time.monotonic() + TRY_SECONDS)
        with translated():
            while True:
                with self._connection(deadline) as db:
                    try:
                        xact = _begin(db)
                        outcome = work(Session(db))
                    except BaseException as failure:
                        if _is_lost(db, failure):
                            continue  # nothing was committed: try again on another connection
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
        """Whether a transaction whose connection was lost at COMMIT has changed a task. If not, it may run again."""

        def found(db: Db) -> tuple[bool, bool]:
            (in_progress,) = db.execute(IN_PROGRESS, (xact, xact)).fetchone()
            (is_written,) = db.execute(WRITTEN, (xact, self.holder)).fetchone()  # sees what was committed by now
            return in_progress, is_written

        while True:
            in_progress, is_written = self._read_by(found, deadline)
            if not in_progress:
                return is_written
            time.sleep(0.05)

    def _read(self, work: Callable[[Db], T], by: float) -> T:
        soon = time.monotonic() + TRY_SECONDS
        return self._read_by(work, min(by, soon) if self._is_away() else max(by, soon))

    def _read_by(self, work: Callable[[Db], T], deadline: float) -> T:
        with translated():
            while True:
                with self._connection(deadline) as db:
                    try:
                        outcome = work(Session(db))
                    except psycopg.Error as failure:
                        if not _is_lost(db, failure):
                            raise
                    else:
                        self._away_until = 0.0
                        return outcome

    def _is_away(self) -> bool:
        return time.monotonic() < self._away_until

    @contextmanager
    def _connection(self, deadline: float) -> Iterator[Bounded]:
        """A connection that answers by `deadline`. Asking for another one after it raises an error."""
        try:
            self._open(deadline)
            db = self._taken(deadline)
        except PoolTimeout:
            self._away_until = time.monotonic() + AWAY_SECONDS
            raise
        db.deadline = deadline
        try:
            yield db
        finally:
            if db.closed:
                self._was_cut = True
            self._pool.putconn(db)

    def _taken(self, deadline: float) -> Bounded:
        while True:
            left = deadline - time.monotonic()
            try:
                return self._pool.getconn(timeout=min(left, TRY_SECONDS))
            except PoolTimeout:
                if left <= TRY_SECONDS:
                    raise

    def _open(self, deadline: float) -> None:
        """Wait until it is open. Concurrent callers wait for the same attempt."""
        with self._lock:
            if self._opened is None or (self._opened.done() and self._opened.exception()):
                self._opened = self._opener.submit(self._make)
            opened = self._opened
        try:
            opened.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise PoolTimeout from None

    def _make(self) -> None:
        # On a connection outside the pool, which would hide the reason of a failure.
        with Bounded.connect(self._conninfo, autocommit=True) as self._making:
            self._making.deadline = time.monotonic() + OPEN_SECONDS
            migrate(self._making)
        self._pool.open()


def _configure(db: Bounded) -> None:
    db.deadline = time.monotonic() + DATABASE_CONNECT_SECONDS
    db.execute(f"SET statement_timeout = {WRITE_SECONDS * 1000:.0f}; {ON_DISK}".encode())


def _begin(db: psycopg.Connection) -> str:
    """Begin a transaction and read its id, in one round trip."""
    begun = db.execute("BEGIN; SELECT pg_current_xact_id()::text")
    begun.nextset()
    (xact,) = begun.fetchone() or ("",)
    return str(xact)


def _is_lost(db: psycopg.Connection, failure: BaseException) -> bool:
    """Whether the connection is lost, with everything uncommitted. It is not used again."""
    if isinstance(failure, GONE):
        db.close()
    return db.closed and isinstance(failure, psycopg.Error)


logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # the caller that needed the connection reports the failure
