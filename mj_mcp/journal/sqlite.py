"""The journal in one SQLite file, shared by every process of this user on this machine.

Owns the connections, and the process locks that show which processes are alive. Writes and reads have a thread and a
connection each, so that reads never wait behind a blocked write. `sql.py` owns what is written.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mj_mcp.journal.engine import READ_SECONDS, WRITE_SECONDS, Db, SqlDialect
from mj_mcp.journal.migrations import Migrations
from mj_mcp.journal.schema import MIGRATIONS
from mj_mcp.journal.sqlite_files import ProcessLock, immediate, open_file, translated, wait_until

T = TypeVar("T")


class Sqlite:
    """See `mj_mcp.journal.engine.Engine`. The file is opened on first use: a start does not wait for the disk."""

    # BEGIN IMMEDIATE lets in one writer at a time, so no other lock is needed.
    dialect = SqlDialect(
        next_seq="(SELECT coalesce(max(seq), 0) + 1 FROM tasks)",
        now="((julianday('now') - 2440587.5) * 86400.0)",  # SQLite 3.42 has a function for it
        begin_read="BEGIN",
    )

    def __init__(
        self,
        data_dir: Path,
        *,
        migrations: Migrations = MIGRATIONS,
        write_seconds: float = WRITE_SECONDS,
    ) -> None:
        """`write_seconds`: how long a write waits for another process."""
        self._migrations, self._write_seconds = migrations, write_seconds
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
        # The deadline starts now, so that calls queued behind a locked file do not add up their waits.
        deadline = time.monotonic() + self._write_seconds
        return await asyncio.get_running_loop().run_in_executor(self._writes, self._transact, work, deadline)

    async def read(self, work: Callable[[Db], T]) -> T:
        """See `Engine.read`."""
        deadline = time.monotonic() + READ_SECONDS
        return await asyncio.get_running_loop().run_in_executor(self._reads, self._read, work, deadline)

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
        # Only up to these rows: others may have been written since.
        self._seen_seq = rows[-1][1] if rows else self._seen_seq
        return [body for body, _, writer in rows if writer != self.holder]

    async def listen(self, heard: Callable[[], None]) -> None:
        """See `Engine.listen`. A file cannot notify; `changed` is cheap."""

    def dead_for(self, db: Db, holder: str) -> float:  # noqa: ARG002 - the file system tells
        """See `Engine.dead_for`."""
        return math.inf if self._lock.is_dead(holder) else 0.0

    async def aclose(self) -> None:
        """See `Engine.aclose`."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        """Wait for running work, which may be opening the file right now. Then release everything."""
        self._writes.shutdown()
        self._reads.shutdown()
        while self._connections:
            self._connections.popitem()[1].close()
        self._lock.release()

    def _transact(self, work: Callable[[Db], T], deadline: float) -> T:
        with translated():
            db = self._connection(self._writes, deadline)
            with immediate(db):
                return work(db)

    def _read(self, work: Callable[[Db], T], deadline: float) -> T:
        with translated():
            return work(self._connection(self._reads, deadline))

    def _connection(self, thread: ThreadPoolExecutor, deadline: float) -> sqlite3.Connection:
        if thread not in self._connections:
            self._lock.take()
            self._connections[thread] = open_file(self._path, deadline, self._migrations)
        wait_until(self._connections[thread], deadline)
        return self._connections[thread]
