"""The journal's transactions in SQL, the same on every engine.

Owns what is read and written, and in what order within one transaction. A transaction is one plain function that the
engine runs as a whole in its own thread, so a cancelled caller never leaves one half done. Knows nothing of
connections, files or servers: the `Engine` has those.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from mj_mcp.errors import InvalidRequest, StorageUnavailable, TaskNotFound
from mj_mcp.journal.claims import answering
from mj_mcp.journal.engine import Db, Engine
from mj_mcp.journal.leases import Leases
from mj_mcp.journal.limits import check_limits, count_usage, leave_queue, take_slot
from mj_mcp.journal.protocol import LEASE_SECONDS, UNREAD, Claim, Limits, Page, QueueSlot, Usage
from mj_mcp.journal.recent import Finished, LastKnown
from mj_mcp.journal.rows import load, readable, store
from mj_mcp.journal.schema import any_of
from mj_mcp.tasks import OPEN, TASKS, Kind, Status, Task, warn

T = TypeVar("T")

CLOCKS_APART_SECONDS = 86400.0
"""The clocks of the processes that write one journal differ by less, and no request is queued for longer."""


class SqlJournal:
    """See `mj_mcp.journal.Journal`."""

    def __init__(self, engine: Engine, account: str, now: Callable[[], float] = time.time) -> None:
        """`now` returns seconds since the epoch."""
        self._engine = engine
        self._dialect = engine.dialect
        self._account = account
        self._now = now
        self._finished = Finished()
        self._last_known = LastKnown()
        self._leases = Leases(engine, account)
        self._used = False

    # -------------------------------------------------------------------------------------------- protocol

    async def claim(self, task: Task, request_key: str, *, allow_duplicate: bool, limits: Limits) -> Claim | QueueSlot:
        """See `Journal.claim`."""
        slot = self._slot(request_key)

        def work(db: Db) -> Claim | QueueSlot:
            self._lock_account(db)
            if not allow_duplicate:
                known = answering(db, self._dialect, self._account, task.kind, request_key)
                if known is not None:
                    leave_queue(db, slot)
                    return Claim(known, is_new=False)
            check_limits(db, self._account, task, limits)
            if position := take_slot(db, self._dialect, self._account, task, slot, limits=limits, now=self._now()):
                return QueueSlot(position)
            claim = request_key + (f":{task.submission_id}" if allow_duplicate else "")
            claimed = replace(task, claimed_at=self._now())
            self._insert(db, claimed, request_key, claim)
            return Claim(claimed, is_new=True)

        try:
            claimed = await self._write(work)
        except StorageUnavailable:
            # If the storage failed at the very end, it is unknown whether the row was written. Nothing is submitted.
            self._leases.disown(task.submission_id, self._now())
            raise
        if isinstance(claimed, Claim):
            self._last_known.note(claimed.task)
        return claimed

    async def leave(self, request_key: str) -> None:
        """See `Journal.leave`."""
        await self._write(lambda db: leave_queue(db, self._slot(request_key)))

    async def adopt(self, task: Task) -> Task:
        """See `Journal.adopt`."""

        def work(db: Db) -> Task:
            self._lock_account(db)
            row = db.execute(
                "SELECT body FROM tasks WHERE account = ? AND task_id = ? ORDER BY number LIMIT 1",
                (self._account, task.task_id),
            ).fetchone()
            if row is not None:
                known = load(row)
                if known.owner != task.owner:
                    raise TaskNotFound(f"no task {task.task_id} is known here")
                return known
            self._insert(db, task, None, None)
            return task

        return await self._write(work)

    async def update(self, submission_id: str, change: Callable[[Task], Task]) -> Task:
        """See `Journal.update`."""

        def work(db: Db) -> Task:
            row = db.execute(
                f"SELECT body FROM tasks WHERE account = ? AND submission_id = ?{self._dialect.lock_row}",
                (self._account, submission_id),
            ).fetchone()
            if row is None:
                raise StorageUnavailable(f"the journal has lost {submission_id}")
            known = load(row)
            changed = change(known)
            if changed != known:
                store(db, self._engine, changed)
            return changed

        written = await self._write(work)
        self._finished.forget(written)
        self._last_known.note(written)
        return written

    async def find(self, handle: str, owner: str | None) -> Task | None:
        """See `Journal.find`."""
        if task := self._finished.recall(handle, owner):
            return task
        changes = self._finished.changes

        def work(db: Db) -> Task | None:
            for column in ("submission_id", "task_id"):
                row = db.execute(
                    f"SELECT body FROM tasks WHERE account = ? AND {column} = ? AND owner = coalesce(?, owner)"
                    " ORDER BY number LIMIT 1",
                    (self._account, handle, owner),
                ).fetchone()
                if row is not None:
                    return load(row)
            return None

        try:
            found = await self._read(work)
        except StorageUnavailable:
            if (known := self._last_known.recall(handle, owner)) is None:
                raise
            return warn(known, UNREAD)
        if found is not None:
            self._finished.remember(handle, found, changes)
            self._last_known.note(found)
        return found

    async def page(
        self, owner: str | None, status: Status | None, limit: int, cursor: str | None, since: float | None = None
    ) -> Page:
        """See `Journal.page`."""
        wanted = f"= '{status}'" if status else f"IN {any_of(TASKS)}"
        where = f"account = ? AND number < ? AND status {wanted}"
        values: list[str | float] = []
        if owner is not None:
            where += " AND owner = ?"
            values.append(owner)
        if since is not None:
            # Rows are numbered as they were claimed, which is not exactly the order of submits. So the index on
            # `submitted_at` only gives the number below which nothing is new enough, and each row is compared.
            where += (
                " AND coalesce(submitted_at, adopted_at, finished_at) >= ? AND number > coalesce((SELECT number"
                " FROM tasks WHERE account = ? AND submitted_at < ? ORDER BY submitted_at DESC LIMIT 1), 0)"
            )
            values += [since, self._account, since - CLOCKS_APART_SECONDS]

        def work(db: Db) -> Page:
            below = 2**62 if cursor is None else self._number(db, cursor, owner)
            rows = db.execute(
                f"SELECT body, submission_id FROM tasks WHERE {where} ORDER BY number DESC LIMIT {limit + 1:d}",
                (self._account, below, *values),
            ).fetchall()
            more = rows[limit - 1][1] if len(rows) > limit else None
            return Page(tuple(readable(body for body, _ in rows[:limit])), more)

        return await self._read(work)

    async def usage(self, owner: str | None, limits: Limits) -> Usage:
        """See `Journal.usage`."""
        now = self._now()

        def work(db: Db) -> Usage:
            db.execute(self._dialect.begin_read)
            try:
                return count_usage(db, self._dialect, self._account, owner, limits=limits, now=now)
            finally:
                db.execute("COMMIT")

        return await self._read(work)

    async def finished(self, kind: Kind, limit: int) -> list[Task]:
        """See `Journal.finished`."""

        def work(db: Db) -> list[Task]:
            rows = db.execute(
                "SELECT body FROM tasks WHERE account = ? AND kind = ? AND finished_at IS NOT NULL"
                " ORDER BY finished_at DESC LIMIT ?",
                (self._account, kind, limit),
            )
            return readable(body for (body,) in rows)

        return await self._read(work)

    async def tend(self, now: float) -> list[Task]:
        """See `Journal.tend`."""
        if not await self._read(self._leases.has_work):
            tended = await self._read(self._leases.held)
        else:
            tended = await self._write(lambda db: self._leases.tend(db, now))
        self._last_known.note(*tended)
        return tended

    async def changes(self) -> list[Task]:
        """See `Journal.changes`."""
        changed = await self._read(lambda db: readable(self._engine.changed(db, self._account)))
        for task in changed:
            self._finished.forget(task)
        self._last_known.note(*changed)
        return changed

    async def recall_dialect(self) -> str | None:
        """See `Journal.recall_dialect`."""

        def work(db: Db) -> str | None:
            row = db.execute("SELECT name FROM dialects WHERE account = ?", (self._account,)).fetchone()
            return str(row[0]) if row else None

        return await self._read(work)

    async def remember_dialect(self, name: str) -> None:
        """See `Journal.remember_dialect`."""
        await self._write(
            lambda db: db.execute(
                "INSERT INTO dialects (account, name) VALUES (?, ?) ON CONFLICT (account) DO UPDATE SET name = ?",
                (self._account, name, name),
            )
        )

    async def listen(self, heard: Callable[[], None]) -> None:
        """See `Journal.listen`."""
        await self._engine.listen(heard)

    async def ready(self) -> None:
        """See `Journal.ready`."""
        await self._write(lambda _db: None)

    async def aclose(self) -> None:
        """See `Journal.aclose`."""
        if self._used:
            with suppress(StorageUnavailable):  # the leases expire by themselves
                await self._write(
                    lambda db: db.execute(
                        f"UPDATE tasks SET holder = NULL WHERE account = ? AND status IN {any_of(OPEN)} AND holder = ?",
                        (self._account, self._engine.holder),
                    )
                )
            self._used = False
        await self._engine.aclose()

    # ---------------------------------------------------------------------------------------------- helpers

    async def _write(self, work: Callable[[Db], T]) -> T:
        self._used = True
        return await self._engine.write(work)

    async def _read(self, work: Callable[[Db], T]) -> T:
        return await self._engine.read(work)

    def _slot(self, request_key: str) -> str:
        return f"{self._account}:{request_key}"

    def _lock_account(self, db: Db) -> None:
        if self._dialect.lock_account:
            db.execute(self._dialect.lock_account, (self._account,))

    def _number(self, db: Db, cursor: str, owner: str | None) -> int:
        """Where the previous page ended. A cursor is the id of its last row: it cannot be guessed and shows no counts.

        Raises:
            InvalidRequest: it is not a row of this owner.
        """
        row = None
        if cursor.isascii() and cursor.isprintable():  # anything else is not text for every engine, so it is no id
            row = db.execute(
                "SELECT number FROM tasks WHERE account = ? AND submission_id = ? AND owner = coalesce(?, owner)",
                (self._account, cursor, owner),
            ).fetchone()
        if row is None:
            raise InvalidRequest("cursor", cursor, "the `next_cursor` of an earlier page")
        return int(row[0])

    def _insert(self, db: Db, task: Task, request_key: str | None, claim: str | None) -> None:
        held = task.status is Status.SUBMITTING
        lease = f"{self._dialect.now} + {LEASE_SECONDS}" if held else "NULL"
        db.execute(
            "INSERT INTO tasks (account, owner, submission_id, status, request_key, claim, holder, lease_until,"
            f" adopted_at, seq, writer, body) VALUES (?, ?, ?, ?, ?, ?, ?, {lease}, ?, 0, '', '')",
            (
                self._account,
                task.owner,
                task.submission_id,
                task.status,
                request_key,
                claim,
                self._engine.holder if held else None,
                task.updated_at if task.submitted_at is None else None,
            ),
        )
        store(db, self._engine, task)
