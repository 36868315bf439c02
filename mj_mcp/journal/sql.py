"""The journal's transactions in SQL, the same on every engine.

Owns what is read and written, and in what order within one transaction. A transaction is one plain function that the
engine runs whole in a thread of its own: a cancelled caller never leaves one half done. Knows nothing of
connections, files or servers: an `Engine` brings those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from pydantic import TypeAdapter

from mj_mcp.errors import InvalidRequest, StorageUnavailable, TaskNotFound
from mj_mcp.journal import CUTS_KEPT, LEASE_SECONDS, Claim, Cut, Limits, Page, Place
from mj_mcp.journal.engine import Db, Engine
from mj_mcp.journal.limits import check_limits, leave_queue, take_place
from mj_mcp.journal.memory import Finished
from mj_mcp.journal.schema import any_of
from mj_mcp.tasks import OPEN, TASKS, WATCHED, Kind, Status, Task, doubt

T = TypeVar("T")

NEVER = 1e15
"""As `lease_until`: a stalled task that was given up, which nobody takes over until somebody asks for it."""

_TENDED = f"status IN {any_of(OPEN - {Status.UNCONFIRMED})} AND coalesce(lease_until, 0) < {NEVER:.0f}"

_TASK = TypeAdapter(Task)


class SqlJournal:
    """See `mj_mcp.journal.Journal`."""

    def __init__(self, engine: Engine, account: str, now: Callable[[], float] = time.time) -> None:
        """`now` gives seconds since the epoch."""
        self._engine = engine
        self._dialect = engine.dialect
        self._account = account
        self._now = now
        self._finished = Finished()
        self._held_rows: dict[str, tuple[int, Task]] = {}
        self._used = False

    # -------------------------------------------------------------------------------------------- protocol

    async def claim(
        self, task: Task, request_key: str, *, allow_duplicate: bool, limits: Limits, queue: bool = False
    ) -> Claim | Place:
        """See `Journal.claim`."""

        def work(db: Db) -> Claim | Place:
            self._take_turn(db)
            if not allow_duplicate:
                row = db.execute(
                    f"SELECT body FROM tasks WHERE account = ? AND request_key = ? AND status IN {any_of(OPEN)}"
                    " ORDER BY number LIMIT 1",
                    (self._account, request_key),
                ).fetchone()
                if row is not None:
                    leave_queue(db, task.submission_id)
                    return Claim(_load(row), is_new=False)
            check_limits(db, self._account, task, limits)
            if position := take_place(db, self._account, task, self._now(), limits, queue=queue):
                return Place(position)
            claim = request_key + (f":{task.submission_id}" if allow_duplicate else "")
            self._insert(db, task, request_key, claim)
            return Claim(task, is_new=True)

        return await self._write(work)

    async def leave(self, submission_id: str) -> None:
        """See `Journal.leave`."""
        await self._write(lambda db: leave_queue(db, submission_id))

    async def adopt(self, task: Task) -> Task:
        """See `Journal.adopt`."""

        def work(db: Db) -> Task:
            self._take_turn(db)
            row = db.execute(
                "SELECT body FROM tasks WHERE account = ? AND task_id = ? ORDER BY number LIMIT 1",
                (self._account, task.task_id),
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

        def work(db: Db) -> Task:
            row = db.execute(
                f"SELECT body FROM tasks WHERE account = ? AND submission_id = ?{self._dialect.lock_row}",
                (self._account, submission_id),
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

        def work(db: Db) -> Task | None:
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
        where = f"status = '{status}'" if status else f"status IN {any_of(TASKS)}"
        values: list[str | int] = [self._account, int(cursor) if cursor else 2**62]
        if owner is not None:
            where += " AND owner = ?"
            values.append(owner)

        def work(db: Db) -> Page:
            rows = db.execute(
                f"SELECT body, number FROM tasks WHERE account = ? AND number < ? AND {where}"
                f" ORDER BY number DESC LIMIT {limit + 1:d}",
                values,
            ).fetchall()
            more = str(rows[limit - 1][1]) if len(rows) > limit else None
            return Page(tuple(_load(row) for row in rows[:limit]), more)

        return await self._read(work)

    async def finished(self, kind: Kind, limit: int) -> list[Task]:
        """See `Journal.finished`."""

        def work(db: Db) -> list[Task]:
            rows = db.execute(
                "SELECT body FROM tasks WHERE account = ? AND kind = ? AND finished_at IS NOT NULL"
                " ORDER BY finished_at DESC LIMIT ?",
                (self._account, kind, limit),
            )
            return [_load(row) for row in rows]

        return await self._read(work)

    async def note_cut(self, owner: str, host: str, cut: Cut) -> None:
        """See `Journal.note_cut`."""
        whose = (self._account, owner, host)

        def work(db: Db) -> None:
            db.execute(
                "INSERT INTO cuts (account, owner, host, seconds, at) VALUES (?, ?, ?, ?, ?)",
                (*whose, cut.seconds, cut.at),
            )
            newest = "SELECT number FROM cuts WHERE account = ? AND owner = ? AND host = ? ORDER BY number DESC LIMIT ?"
            db.execute(
                f"DELETE FROM cuts WHERE account = ? AND owner = ? AND host = ? AND number NOT IN ({newest})",
                (*whose, *whose, CUTS_KEPT),
            )

        await self._write(work)

    async def cuts(self, owner: str, host: str) -> list[Cut]:
        """See `Journal.cuts`."""

        def work(db: Db) -> list[Cut]:
            rows = db.execute(
                "SELECT seconds, at FROM cuts WHERE account = ? AND owner = ? AND host = ? ORDER BY number",
                (self._account, owner, host),
            )
            return [Cut(seconds, at) for seconds, at in rows]

        return await self._read(work)

    async def tend(self, now: float) -> list[Task]:
        """See `Journal.tend`."""
        if not await self._read(lambda db: self._needs_tending(db, now)):
            return await self._read(self._held)
        return await self._write(lambda db: self._tend(db, now))

    async def changes(self) -> list[Task]:
        """See `Journal.changes`."""
        changed = await self._read(lambda db: [_load((body,)) for body in self._engine.changed(db, self._account)])
        for task in changed:
            self._finished.forget(task)
        return changed

    async def ready(self) -> None:
        """See `Journal.ready`."""
        await self._write(lambda _db: None)

    async def aclose(self) -> None:
        """See `Journal.aclose`."""
        if self._used:
            with suppress(StorageUnavailable):  # the leases end by themselves
                await self._write(
                    lambda db: db.execute("UPDATE tasks SET holder = NULL WHERE holder = ?", (self._engine.holder,))
                )
            self._used = False
        await self._engine.aclose()

    # ---------------------------------------------------------------------------------------------- pieces

    async def _write(self, work: Callable[[Db], T]) -> T:
        self._used = True
        return await self._engine.write(work)

    async def _read(self, work: Callable[[Db], T]) -> T:
        return await self._engine.read(work)

    def _take_turn(self, db: Db) -> None:
        if self._dialect.take_turn:
            db.execute(self._dialect.take_turn, (self._account,))

    def _insert(self, db: Db, task: Task, request_key: str | None, claim: str | None) -> None:
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
                self._engine.holder if held else None,
                self._now() + LEASE_SECONDS if held else None,
            ),
        )
        self._store(db, task)

    def _store(self, db: Db, task: Task) -> None:
        """Write the task and the columns that queries need; they are always written together."""
        # Settled once, a claim is free for good: an abandoned submit that is found may meet its successor.
        given_up = task.given_up_at is not None
        holder = "holder" if task.status in WATCHED | {Status.SUBMITTING} and not given_up else "NULL"
        lease = f"{NEVER:.0f}" if given_up else f"CASE WHEN lease_until < {NEVER:.0f} THEN lease_until END"
        claim = "claim" if task.status in OPEN else "NULL"
        db.execute(
            "UPDATE tasks SET task_id = ?, kind = ?, status = ?, submitted_at = ?, finished_at = ?, body = ?,"
            f" holder = {holder}, lease_until = {lease}, claim = {claim}, writer = ?, seq = {self._dialect.next_seq}"
            " WHERE submission_id = ?",
            (
                task.task_id,
                task.kind,
                task.status,
                task.submitted_at,
                task.finished_at,
                _TASK.dump_json(task).decode(),
                self._engine.holder,
                task.submission_id,
            ),
        )

    def _needs_tending(self, db: Db, now: float) -> bool:
        """Whether a lease is to be renewed, taken over or settled: asked by a read, so that idling writes nothing."""
        held_rows = db.execute(
            f"SELECT holder, min(lease_until) FROM tasks WHERE account = ? AND {_TENDED} GROUP BY holder",
            (self._account,),
        )
        for holder, lease_until in held_rows:
            if holder is None or lease_until is None or lease_until < now:
                return True
            if holder == self._engine.holder:
                if lease_until < now + LEASE_SECONDS * 0.6:
                    return True
            elif self._engine.is_dead(holder) or lease_until > now + 2 * LEASE_SECONDS:
                return True
        return False

    def _tend(self, db: Db, now: float) -> list[Task]:
        me = self._engine.holder
        db.execute(
            f"UPDATE tasks SET lease_until = ? WHERE account = ? AND {_TENDED} AND holder = ?",
            (now + LEASE_SECONDS, self._account, me),
        )
        rows = db.execute(
            f"SELECT body, holder, lease_until FROM tasks WHERE account = ? AND {_TENDED}"
            f" AND coalesce(holder, '') <> ?{self._dialect.skip_locked}",
            (self._account, me),
        ).fetchall()
        dead = {h for h in {row[1] for row in rows} if h is not None and self._engine.is_dead(h)}
        settled = []
        for body, holder, lease_until in rows:
            task = _load((body,))
            # Where death shows, a living process that was silent for long is still waiting for its answer.
            # A lease far in the future was written before the clock was set back.
            lapsed = lease_until is None or lease_until < now or lease_until > now + 2 * LEASE_SECONDS
            if task.is_watched and (holder is None or holder in dead or lapsed):
                db.execute(
                    "UPDATE tasks SET holder = ?, lease_until = ? WHERE submission_id = ?",
                    (me, now + LEASE_SECONDS, task.submission_id),
                )
            elif not task.is_watched and (
                holder is None or holder in dead or (lapsed and not self._engine.death_shows)
            ):
                settled.append(doubt(task, "the server stopped before the proxy's answer was recorded", now))
                self._store(db, settled[-1])
        return [*settled, *self._held(db)]

    def _held(self, db: Db) -> list[Task]:
        """Every task to watch. A body is read again when it was written since: most stand still at most sweeps."""
        which = f"FROM tasks WHERE account = ? AND status IN {any_of(WATCHED)} AND holder = ?"
        values = (self._account, self._engine.holder)
        known, rows = self._held_rows, db.execute(f"SELECT submission_id, seq {which}", values).fetchall()
        if any(known.get(sid, (None,))[0] != seq for sid, seq in rows):
            bodies = db.execute(f"SELECT submission_id, seq, body {which}", values).fetchall()
            rows = [(sid, seq) for sid, seq, _ in bodies]
            known = {
                sid: known[sid] if known.get(sid, (None,))[0] == seq else (seq, _load((body,)))
                for sid, seq, body in bodies
            }
        self._held_rows = {sid: known[sid] for sid, _ in rows}
        return [task for _, task in self._held_rows.values()]


def _load(row: Sequence[Any]) -> Task:
    task: Task = _TASK.validate_json(row[0])
    return task
