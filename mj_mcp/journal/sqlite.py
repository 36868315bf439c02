"""The journal in one SQLite file, shared by every process of this user on this machine.

Owns the tables, their migrations, and the process locks that tell the living from the dead. A transaction
is one plain function run whole in the writer's thread: a cancelled caller never leaves one half done.
Reads have a thread and a connection of their own, so that they never wait behind a blocked write.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from mj_mcp.errors import InvalidRequest, StorageUnavailable, TaskNotFound
from mj_mcp.journal import LEASE_SECONDS, Claim, Limits, Page
from mj_mcp.journal.files import DEATH_SHOWS, ProcessLock, open_file, translated
from mj_mcp.journal.limits import check_limits
from mj_mcp.journal.memory import Finished
from mj_mcp.journal.schema import MIGRATIONS, any_of
from mj_mcp.tasks import OPEN, TASKS, WATCHED, Kind, Status, Task, doubt

T = TypeVar("T")

BUSY_SECONDS = 5.0
"""How long a write waits for another process's lock before the submit is refused."""

_TASK = TypeAdapter(Task)


class SqliteJournal:
    """See `mj_mcp.journal.Journal`."""

    def __init__(self, data_dir: Path, account: str, now: Callable[[], float] = time.time) -> None:
        """The file is opened on first use, so that a start does not wait for the disk."""
        self._path = data_dir / "journal.db"
        self._account = account
        self._now = now
        self._writes = ThreadPoolExecutor(1, "journal-write")
        self._reads = ThreadPoolExecutor(1, "journal-read")
        self._connections: dict[ThreadPoolExecutor, sqlite3.Connection] = {}
        self._lock = ProcessLock(data_dir / "processes")
        self._seen_version: int | None = None
        self._seen_seq = 0
        self._finished = Finished()

    # -------------------------------------------------------------------------------------------- protocol

    async def claim(self, task: Task, request_key: str, *, allow_duplicate: bool, limits: Limits) -> Claim:
        """See `Journal.claim`."""

        def work(db: sqlite3.Connection) -> Claim:
            if not allow_duplicate:
                rows = db.execute(
                    f"SELECT body FROM tasks WHERE account = ? AND request_key = ? AND status IN {any_of(OPEN)}"
                    " ORDER BY number LIMIT 1",
                    (self._account, request_key),
                ).fetchall()
                if rows:
                    return Claim(_load(rows[0]), is_new=False)
            check_limits(db, self._account, task.updated_at, limits)
            claim = request_key + (f":{task.submission_id}" if allow_duplicate else "")
            self._insert(db, task, request_key, claim)
            return Claim(task, is_new=True)

        return await self._write(work)

    async def adopt(self, task: Task) -> Task:
        """See `Journal.adopt`."""

        def work(db: sqlite3.Connection) -> Task:
            row = db.execute(
                "SELECT body FROM tasks WHERE account = ? AND task_id = ?", (self._account, task.task_id)
            ).fetchone()
            if row is not None:
                known = _load(row)
                if known.owner != task.owner:
                    raise TaskNotFound(f"no task {task.task_id} is known here")
                return known
            self._insert(db, task, None, None)
            return task

        return await self._write(work)

    async def update(self, submission_id: str, change: Callable[[Task], Task]) -> Task:
        """See `Journal.update`."""

        def work(db: sqlite3.Connection) -> Task:
            row = db.execute(
                "SELECT body FROM tasks WHERE account = ? AND submission_id = ?", (self._account, submission_id)
            ).fetchone()
            if row is None:
                raise StorageUnavailable(f"the journal has lost {submission_id}")
            known = _load(row)
            changed = change(known)
            if changed != known:
                self._store(db, changed)
            return changed

        written = await self._write(work)
        self._finished.forget(written)
        return written

    async def find(self, handle: str, owner: str | None) -> Task | None:
        """See `Journal.find`."""
        if task := self._finished.recall(handle, owner):
            return task
        changes = self._finished.changes

        def work(db: sqlite3.Connection) -> Task | None:
            for column in ("submission_id", "task_id"):
                row = db.execute(
                    f"SELECT body FROM tasks WHERE account = ? AND {column} = ? AND owner = coalesce(?, owner)"
                    " ORDER BY number LIMIT 1",
                    (self._account, handle, owner),
                ).fetchone()
                if row is not None:
                    return _load(row)
            return None

        found = await self._read(work)
        if found is not None:
            self._finished.remember(handle, found, changes)
        return found

    async def page(self, owner: str | None, status: Status | None, limit: int, cursor: str | None) -> Page:
        """See `Journal.page`."""
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
            raise InvalidRequest("cursor", cursor, "the `next_cursor` of an earlier page")
        where = "status = :status" if status else f"status IN {any_of(TASKS)}"
        if owner is not None:
            where += " AND owner = :owner"
        values = {
            "account": self._account,
            "owner": owner,
            "status": status,
            "before": int(cursor) if cursor else 2**62,
            "limit": limit + 1,
        }

        def work(db: sqlite3.Connection) -> Page:
            rows = db.execute(
                f"SELECT body, number FROM tasks WHERE account = :account AND {where}"
                " AND number < :before ORDER BY number DESC LIMIT :limit",
                values,
            ).fetchall()
            more = str(rows[limit - 1][1]) if len(rows) > limit else None
            return Page(tuple(_load(row) for row in rows[:limit]), more)

        return await self._read(work)

    async def finished(self, kind: Kind, limit: int) -> list[Task]:
        """See `Journal.finished`."""

        def work(db: sqlite3.Connection) -> list[Task]:
            rows = db.execute(
                "SELECT body FROM tasks WHERE account = ? AND kind = ? AND finished_at IS NOT NULL"
                " ORDER BY finished_at DESC LIMIT ?",
                (self._account, kind, limit),
            )
            return [_load(row) for row in rows]

        return await self._read(work)

    async def tend(self, now: float) -> list[Task]:
        """See `Journal.tend`."""
        if not await self._read(lambda db: self._needs_tending(db, now)):
            return await self._read(self._held)
        return await self._write(lambda db: self._tend(db, now))

    async def changes(self) -> list[Task]:
        """See `Journal.changes`."""
        changed = await self._read(self._changes)
        for task in changed:
            self._finished.forget(task)
        return changed

    async def ready(self) -> None:
        """See `Journal.ready`."""
        await self._write(lambda _db: None)

    async def aclose(self) -> None:
        """See `Journal.aclose`."""
        if self._connections:
            with contextlib.suppress(StorageUnavailable):
                await self._write(
                    lambda db: db.execute("UPDATE tasks SET holder = NULL WHERE holder = ?", (self._lock.name,))
                )
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        """Wait for what is under way, which may be opening the file this moment; then let go of everything."""
        self._writes.shutdown()
        self._reads.shutdown()
        while self._connections:
            self._connections.popitem()[1].close()
        self._lock.release()

    # ---------------------------------------------------------------------------------------- transactions

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        # The time counts from here: writes behind a locked file must not wait for each other in turn as well.
        deadline = time.monotonic() + BUSY_SECONDS
        return await asyncio.get_running_loop().run_in_executor(self._writes, self._transact, work, deadline)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reads, self._look, work)

    def _transact(self, work: Callable[[sqlite3.Connection], T], deadline: float) -> T:
        with translated():
            db = self._connection(self._writes)
            left = max(0, round((deadline - time.monotonic()) * 1000))
            db.execute(f"PRAGMA busy_timeout = {left}")
            db.execute("BEGIN IMMEDIATE")
            try:
                outcome = work(db)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            return outcome

    def _look(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with translated():
            return work(self._connection(self._reads))

    def _connection(self, thread: ThreadPoolExecutor) -> sqlite3.Connection:
        if thread not in self._connections:
            self._lock.take()
            self._connections[thread] = open_file(self._path, BUSY_SECONDS, MIGRATIONS)
        return self._connections[thread]

    # ---------------------------------------------------------------------------------------------- pieces

    def _insert(self, db: sqlite3.Connection, task: Task, request_key: str | None, claim: str | None) -> None:
        held = task.status is Status.SUBMITTING
        db.execute(
            "INSERT INTO tasks (account, owner, submission_id, status, request_key, claim, holder, lease_until,"
            " seq, writer, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, '', '')",
            (
                self._account,
                task.owner,
                task.submission_id,
                task.status,
                request_key,
                claim,
                self._lock.name if held else None,
                self._now() + LEASE_SECONDS if held else None,
            ),
        )
        self._store(db, task)

    def _store(self, db: sqlite3.Connection, task: Task) -> None:
        """Write the task and the columns that queries need; they are always written together."""
        db.execute(
            "UPDATE tasks SET task_id = ?, kind = ?, status = ?, submitted_at = ?, finished_at = ?, body = ?,"
            f" holder = CASE WHEN ? IN {any_of(WATCHED | {Status.SUBMITTING})} THEN holder END,"
            # Settled once, its claim is free for good: an abandoned submit that is found may meet its successor.
            f" claim = CASE WHEN ? IN {any_of(OPEN)} THEN claim END,"
            " writer = ?, seq = (SELECT coalesce(max(seq), 0) + 1 FROM tasks) WHERE submission_id = ?",
            (
                task.task_id,
                task.kind,
                task.status,
                task.submitted_at,
                task.finished_at,
                _TASK.dump_json(task).decode(),
                task.status,
                task.status,
                self._lock.name,
                task.submission_id,
            ),
        )

    def _needs_tending(self, db: sqlite3.Connection, now: float) -> bool:
        """Whether a lease is to be renewed, taken over or settled: asked by a read, so that idling writes nothing."""
        held_rows = db.execute(
            f"SELECT holder, min(lease_until) FROM tasks WHERE account = ? AND status IN {any_of(OPEN)}"
            f" AND status <> '{Status.UNCONFIRMED}' GROUP BY holder",
            (self._account,),
        )
        for holder, lease_until in held_rows:
            if holder is None or lease_until is None or lease_until < now:
                return True
            if holder == self._lock.name:
                if lease_until < now + LEASE_SECONDS * 0.6:
                    return True
            elif self._lock.is_dead(holder) or lease_until > now + 2 * LEASE_SECONDS:
                return True
        return False

    def _tend(self, db: sqlite3.Connection, now: float) -> list[Task]:
        rows = db.execute(
            f"SELECT body, holder, lease_until FROM tasks WHERE account = ? AND status IN {any_of(OPEN)}"
            f" AND status <> '{Status.UNCONFIRMED}'",
            (self._account,),
        ).fetchall()
        dead = {h for h in {row[1] for row in rows} if h not in {None, self._lock.name} and self._lock.is_dead(h)}
        settled = []
        for body, holder, lease_until in rows:
            task = _load((body,))
            mine = holder == self._lock.name
            # Where death shows, a living process that was silent for long is still waiting for its answer.
            # A lease far in the future was written before the clock was set back.
            lapsed = lease_until is None or lease_until < now or lease_until > now + 2 * LEASE_SECONDS
            free = holder is None or holder in dead or lapsed
            if mine or (free and task.is_watched):
                db.execute(
                    "UPDATE tasks SET holder = ?, lease_until = ? WHERE submission_id = ?",
                    (self._lock.name, now + LEASE_SECONDS, task.submission_id),
                )
            elif holder is None or holder in dead or (lapsed and not DEATH_SHOWS):
                settled.append(doubt(task, "the server stopped before the proxy's answer was recorded", now))
                self._store(db, settled[-1])
        return [*settled, *self._held(db)]

    def _held(self, db: sqlite3.Connection) -> list[Task]:
        rows = db.execute(
            f"SELECT body FROM tasks WHERE account = ? AND status IN {any_of(WATCHED)} AND holder = ?",
            (self._account, self._lock.name),
        )
        return [_load(row) for row in rows]

    def _changes(self, db: sqlite3.Connection) -> list[Task]:
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if version == self._seen_version:
            return []
        first, self._seen_version = self._seen_version is None, version
        if first:
            (self._seen_seq,) = db.execute("SELECT coalesce(max(seq), 0) FROM tasks").fetchone()
            return []
        rows = db.execute(
            "SELECT body, seq, writer FROM tasks WHERE account = ? AND seq > ? ORDER BY seq",
            (self._account, self._seen_seq),
        ).fetchall()
        # Only as far as these rows go: others may have been written since.
        self._seen_seq = rows[-1][1] if rows else self._seen_seq
        return [_load(row) for row in rows if row[2] != self._lock.name]


def _load(row: Sequence[str | int | None]) -> Task:
    task: Task = _TASK.validate_json(str(row[0]))
    return task
