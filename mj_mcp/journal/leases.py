"""Which process polls which open task when several share the journal, and what happens to the tasks of dead ones.

Owns the leases. Everything here runs inside a transaction of the journal.
"""

from __future__ import annotations

import math

from mj_mcp.errors import StorageUnavailable
from mj_mcp.journal.engine import Db, Engine
from mj_mcp.journal.protocol import LEASE_SECONDS
from mj_mcp.journal.rows import NEVER, load, readable, store
from mj_mcp.journal.schema import any_of
from mj_mcp.tasks import OPEN, POLLED, Failure, Status, Task, mark_unconfirmed, refuse

GONE_SECONDS = 2.0
"""How long a process may lack a session before others poll its tasks. Two that poll one task do no harm."""

SETTLE_SECONDS = 30.0
"""The same before its submits become unconfirmed. A process that lost its connection may be reconnecting while the
proxy accepts its submit."""

SILENT_SECONDS = 180.0
"""After this time without a renewed lease, a submit becomes unconfirmed even if its process seems alive. It covers
engines that cannot tell, and a machine that lost power while its connection still looks open."""

_LEASED = f"status IN {any_of(OPEN - {Status.UNCONFIRMED})} AND coalesce(lease_until, 0) < {NEVER:.0f}"

DISOWNED_SECONDS = 60.0
"""A row whose write was not confirmed may still appear; after this time it cannot."""

_UNANSWERED = Failure(StorageUnavailable.code, "the journal did not answer in time; nothing was submitted")


class Leases:
    """The open tasks of one account that this process holds."""

    def __init__(self, engine: Engine, account: str) -> None:
        self._engine = engine
        self._account = account
        self._now = engine.dialect.now
        self._known: dict[str, tuple[int, Task]] = {}
        self._disowned: dict[str, float] = {}

    def disown(self, submission_id: str, now: float) -> None:
        """It is unknown whether the row of this submit was written. Nothing was sent, so the row is not a task."""
        self._disowned[submission_id] = now

    def has_work(self, db: Db) -> bool:
        """Whether a lease must be renewed, taken over or settled. This is a read, so an idle process writes nothing."""
        leases = db.execute(
            f"SELECT holder, status, min(lease_until) - {self._now} FROM tasks"
            f" WHERE account = ? AND {_LEASED} GROUP BY holder, status",
            (self._account,),
        ).fetchall()
        dead_for = self._dead_for(db, {holder for holder, *_ in leases})
        return any(
            not LEASE_SECONDS * 0.6 <= (left or 0) <= 2 * LEASE_SECONDS
            if holder == self._engine.holder
            else _is_left(status, left, dead_for[holder])
            for holder, status, left in leases
        )

    def tend(self, db: Db, now: float) -> list[Task]:
        """Renew our leases, take over tasks that nobody polls, settle those of dead processes: see `Journal.tend`."""
        me, lease = self._engine.holder, f"{self._now} + {LEASE_SECONDS}"
        settled = self._refuse_disowned(db, now)
        db.execute(
            f"UPDATE tasks SET lease_until = {lease} WHERE account = ? AND {_LEASED} AND holder = ?",
            (self._account, me),
        )
        rows = db.execute(
            f"SELECT body, holder, status, lease_until - {self._now} FROM tasks WHERE account = ? AND {_LEASED}"
            f" AND coalesce(holder, '') <> ?{self._engine.dialect.skip_locked}",
            (self._account, me),
        ).fetchall()
        dead_for = self._dead_for(db, {holder for _, holder, *_ in rows})
        for task in readable(body for body, holder, status, left in rows if _is_left(status, left, dead_for[holder])):
            if task.is_polled:
                db.execute(
                    f"UPDATE tasks SET holder = ?, lease_until = {lease} WHERE submission_id = ?",
                    (me, task.submission_id),
                )
            else:
                settled.append(mark_unconfirmed(task, "the server stopped before the proxy's answer was recorded", now))
                store(db, self._engine, settled[-1])
        return [*settled, *self.held(db)]

    def _dead_for(self, db: Db, holders: set[str | None]) -> dict[str | None, float]:
        """For how long each of these other processes has been gone. A process that closed properly holds no rows."""
        others = holders - {self._engine.holder}
        return {holder: math.inf if holder is None else self._engine.dead_for(db, holder) for holder in others}

    def _refuse_disowned(self, db: Db, now: float) -> list[Task]:
        refused = []
        for submission_id, since in list(self._disowned.items()):
            row = db.execute(
                "SELECT body FROM tasks WHERE account = ? AND submission_id = ? AND holder = ? AND status = ?",
                (self._account, submission_id, self._engine.holder, Status.SUBMITTING),
            ).fetchone()
            if row is not None:
                refused.append(refuse(load(row), _UNANSWERED, now))
                store(db, self._engine, refused[-1])
            elif now - since > DISOWNED_SECONDS:
                del self._disowned[submission_id]
        return refused

    def held(self, db: Db) -> list[Task]:
        """Every task to poll. A body is read again only if it was written since: most do not change between sweeps."""
        which = f"FROM tasks WHERE account = ? AND status IN {any_of(POLLED)} AND holder = ?"
        values = (self._account, self._engine.holder)
        known, rows = self._known, db.execute(f"SELECT submission_id, seq {which}", values).fetchall()
        if any(known.get(sid, (None,))[0] != seq for sid, seq in rows):
            bodies = db.execute(f"SELECT submission_id, seq, body {which}", values).fetchall()
            rows = [(sid, seq) for sid, seq, _ in bodies]
            known = known | {
                sid: (seq, task)
                for sid, seq, body in bodies
                if known.get(sid, (None,))[0] != seq
                for task in readable([body])
            }
        # A damaged row is not among them and is read again each time: a person may repair it.
        self._known = {sid: known[sid] for sid, seq in rows if known.get(sid, (None,))[0] == seq}
        return [task for _, task in self._known.values()]


def _is_left(status: str, left: float | None, dead_for: float) -> bool:
    """Whether a row is orphaned: its lease has `left` seconds, and its holder has been gone for so long."""
    if left is None or dead_for == math.inf:
        return True
    # A lease far in the future was written before the clock was set back.
    lapsed = not 0 <= left <= 2 * LEASE_SECONDS
    if status != Status.SUBMITTING:
        return lapsed or dead_for >= GONE_SECONDS
    return left < -SILENT_SECONDS or (lapsed and dead_for >= SETTLE_SECONDS)
