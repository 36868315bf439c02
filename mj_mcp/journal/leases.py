"""Who watches which open task, when several processes share the journal, and what becomes of those of the dead.

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
"""How long the session of a process may be away before others watch its tasks. Two who watch one do no harm."""

SETTLE_SECONDS = 30.0
"""The same before its submits are unconfirmed. A process that lost its connection may be reconnecting, while the proxy
takes its submit."""

SILENT_SECONDS = 180.0
"""After so long without a renewed lease, a submit is unconfirmed whatever shows of its process: the last resort where
nothing shows, and where a machine that lost its power seems to be connected."""

_LEASED = f"status IN {any_of(OPEN - {Status.UNCONFIRMED})} AND coalesce(lease_until, 0) < {NEVER:.0f}"

DISOWNED_SECONDS = 60.0
"""A row whose writing was not confirmed may still appear; after so long it will not."""

_UNANSWERED = Failure(
    StorageUnavailable.code, "the journal did not answer when this was to be submitted, so nothing was submitted"
)


class Leases:
    """This process's part in the open tasks of one account."""

    def __init__(self, engine: Engine, account: str) -> None:
        self._engine = engine
        self._account = account
        self._now = engine.dialect.now
        self._known: dict[str, tuple[int, Task]] = {}
        self._disowned: dict[str, float] = {}

    def disown(self, submission_id: str, now: float) -> None:
        """Of this submit it cannot be told whether its row was written. Nothing was sent, so the row is no task."""
        self._disowned[submission_id] = now

    def has_work(self, db: Db) -> bool:
        """Whether a lease is to be renewed, taken over or settled: asked by a read, so that idling writes nothing."""
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
        """Renew what is held, take over what nobody watches, settle what the dead left: see `Journal.tend`."""
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
        """For how long each of these others is gone. A process that left in good order names nobody."""
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
        """Every task to watch. A body is read again when it was written since: most stand still at most sweeps."""
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
        # One that is damaged is not among them, and is tried again each time: a person may mend it.
        self._known = {sid: known[sid] for sid, seq in rows if known.get(sid, (None,))[0] == seq}
        return [task for _, task in self._known.values()]


def _is_left(status: str, left: float | None, dead_for: float) -> bool:
    """Whether nobody looks after a row whose lease has so many seconds `left`, and whose holder is gone for so long."""
    if left is None or dead_for == math.inf:
        return True
    # A lease far in the future was written before the clock was set back.
    lapsed = not 0 <= left <= 2 * LEASE_SECONDS
    if status != Status.SUBMITTING:
        return lapsed or dead_for >= GONE_SECONDS
    return left < -SILENT_SECONDS or (lapsed and dead_for >= SETTLE_SECONDS)
