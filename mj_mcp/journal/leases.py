"""Who watches which open task, when several processes share the journal, and what becomes of those of the dead.

Owns the leases. Everything here runs inside a transaction of the journal.
"""

from __future__ import annotations

from mj_mcp.errors import StorageUnavailable
from mj_mcp.journal.engine import Db, Engine
from mj_mcp.journal.protocol import LEASE_SECONDS
from mj_mcp.journal.rows import NEVER, load, readable, store
from mj_mcp.journal.schema import any_of
from mj_mcp.tasks import OPEN, WATCHED, Failure, Status, Task, doubt, refuse

_TENDED = f"status IN {any_of(OPEN - {Status.UNCONFIRMED})} AND coalesce(lease_until, 0) < {NEVER:.0f}"

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
        self._known: dict[str, tuple[int, Task]] = {}
        self._disowned: dict[str, float] = {}

    def disown(self, submission_id: str, now: float) -> None:
        """Of this submit it cannot be told whether its row was written. Nothing was sent, so the row is no task."""
        self._disowned[submission_id] = now

    def needs_tending(self, db: Db, now: float) -> bool:
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
            elif self._engine.is_dead(db, holder) or lease_until > now + 2 * LEASE_SECONDS:
                return True
        return False

    def tend(self, db: Db, now: float) -> list[Task]:
        """Renew what is held, take over what nobody watches, settle what the dead left: see `Journal.tend`."""
        me = self._engine.holder
        settled = self._refuse_disowned(db, now)
        db.execute(
            f"UPDATE tasks SET lease_until = ? WHERE account = ? AND {_TENDED} AND holder = ?",
            (now + LEASE_SECONDS, self._account, me),
        )
        rows = db.execute(
            f"SELECT body, holder, lease_until FROM tasks WHERE account = ? AND {_TENDED}"
            f" AND coalesce(holder, '') <> ?{self._engine.dialect.skip_locked}",
            (self._account, me),
        ).fetchall()
        dead = {h for h in {row[1] for row in rows} if h is not None and self._engine.is_dead(db, h)}
        for body, holder, lease_until in rows:
            if not (found := readable([body])):
                continue
            (task,) = found
            # Where death shows, a living process that was silent for long is still waiting for its answer.
            # A lease far in the future was written before the clock was set back.
            lapsed = lease_until is None or lease_until < now or lease_until > now + 2 * LEASE_SECONDS
            if task.is_polled and (holder is None or holder in dead or lapsed):
                db.execute(
                    "UPDATE tasks SET holder = ?, lease_until = ? WHERE submission_id = ?",
                    (me, now + LEASE_SECONDS, task.submission_id),
                )
            elif not task.is_polled and (holder is None or holder in dead or (lapsed and not self._engine.death_shows)):
                settled.append(doubt(task, "the server stopped before the proxy's answer was recorded", now))
                store(db, self._engine, settled[-1])
        return [*settled, *self.held(db)]

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
        which = f"FROM tasks WHERE account = ? AND status IN {any_of(WATCHED)} AND holder = ?"
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
