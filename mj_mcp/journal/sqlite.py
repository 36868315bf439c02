"""The journal in one SQLite file, shared by every process of this user on this machine.

Owns the connections and the process locks that tell the living from the dead. Writes have a thread of their own; reads
have another thread and connection, so that they never wait behind a blocked write. What is written is in `sql.py`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mj_mcp.journal.engine import Db, Dialect
from mj_mcp.journal.schema import MIGRATIONS
from mj_mcp.journal.sqlite_files import DEATH_SHOWS, ProcessLock, immediate, open_file, translated

T = TypeVar("T")

BUSY_SECONDS = 5.0
"""How long a write waits for another process's lock before the submit is refused."""


class Sqlite:
    """See `mj_mcp.journal.engine.Engine`. The file is opened on first use: a start does not wait for the disk."""

    # BEGIN IMMEDIATE lets in one writer at a time, so nothing has to be locked beside it.
    dialect = Dialect(
        next_seq="(SELECT coalesce(max(seq), 0) + 1 FROM tasks)",
        now="((julianday('now') - 2440587.5) * 86400.0)",  # SQLite 3.42 would have a word for it
        begin_read="BEGIN",
    )
    death_shows = DEATH_SHOWS

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "journal.db"
        self._writes = ThreadPoolExecutor(1, "journal-write")
        self._reads = ThreadPoolExecutor(1, "journal-read")
        self._connections: dict[ThreadPoolExecutor, sqlite3.Connection] = {}
        self._lock = ProcessLock(data_dir / "processes")
        self._seen_version: int | None = None
        self._seen_seq = 0
        self.holder = self._lock.name

    async def write(self, work: Callable[[Db], T]) -> T:
        """See `Engine.write`."""
        # The time counts from here: writes behind a locked file must not wait for each other in turn as well.
        deadline = time.monotonic() + BUSY_SECONDS
        return await asyncio.get_running_loop().run_in_executor(self._writes, self._transact, work, deadline)

    async def read(self, work: Callable[[Db], T]) -> T:
        """See `Engine.read`."""
        return await asyncio.get_running_loop().run_in_executor(self._reads, self._fetch_again, work)

    def changed(self, db: Db, account: str) -> Iterable[str]:
        """See `Engine.changed`."""
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if version == self._seen_version:
            return []
        first, self._seen_version = self._seen_version is None, version
        if first:
            (self._seen_seq,) = db.execute("SELECT coalesce(max(seq), 0) FROM tasks").fetchone()
            return []
        rows = db.execute(
            "SELECT body, seq, writer FROM tasks WHERE account = ? AND seq > ? ORDER BY seq", (account, self._seen_seq)
        ).fetchall()
        # Only as far as these rows go: others may have been written since.
        self._seen_seq = rows[-1][1] if rows else self._seen_seq
        return [body for body, _, writer in rows if writer != self.holder]

    async def listen(self, heard: Callable[[], None]) -> None:
        """See `Engine.listen`. The file tells nobody; `changed` is cheap."""

    def is_dead(self, db: Db, holder: str) -> bool:  # noqa: ARG002 - the file system tells
        """See `Engine.is_dead`."""
        return self._lock.is_dead(holder)

    async def aclose(self) -> None:
        """See `Engine.aclose`."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        """Wait for what is under way, which may be opening the file this moment; then let go of everything."""
        self._writes.shutdown()
        self._reads.shutdown()
        while self._connections:
            self._connections.popitem()[1].close()
        self._lock.release()

    def _transact(self, work: Callable[[Db], T], deadline: float) -> T:
        with translated():
            db = self._connection(self._writes)
            left = max(0, round((deadline - time.monotonic()) * 1000))
            db.execute(f"PRAGMA busy_timeout = {left}")
            with immediate(db):
                return work(db)

    def _fetch_again(self, work: Callable[[Db], T]) -> T:
        with translated():
            return work(self._connection(self._reads))

    def _connection(self, thread: ThreadPoolExecutor) -> sqlite3.Connection:
        if thread not in self._connections:
            self._lock.take()
            self._connections[thread] = open_file(self._path, BUSY_SECONDS, MIGRATIONS)
        return self._connections[thread]
