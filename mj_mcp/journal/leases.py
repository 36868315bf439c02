"""Which process looks after which open task, and what becomes of what the dead have left.

Owns the leases. Everything here runs inside a transaction that `sql.py` began. Knows nothing of claims and limits.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from mj_mcp.errors import StorageUnavailable
from mj_mcp.journal import LEASE_SECONDS
from mj_mcp.journal.engine import Db, Engine
from mj_mcp.journal.rows import load
from mj_mcp.journal.schema import any_of
from mj_mcp.tasks import OPEN, WATCHED, Failure, Status, Task, doubt, refuse

_UNANSWERED = Failure(
    StorageUnavailable.code, "the journal did not answer when this was to be submitted, so nothing was submitted"
)


def needs_tending(db: Db, engine: Engine, account: str, now: float) -> bool:
    """Whether a lease is to be renewed, taken over or settled: asked by a read, so that idling writes nothing."""
    held_rows = db.execute(
        f"SELECT holder, min(lease_until) FROM tasks WHERE account = ? AND status IN {any_of(OPEN)}"
        f" AND status <> '{Status.UNCONFIRMED}' GROUP BY holder",
        (account,),
    )
    for holder, lease_until in held_rows:
        if holder is None or lease_until is None or lease_until < now:
            return True
        if holder == engine.holder:
            if lease_until < now + LEASE_SECONDS * 0.6:
                return True
        elif engine.is_dead(db, holder) or lease_until > now + 2 * LEASE_SECONDS:
            return True
    return False


def tend(
    db: Db, engine: Engine, account: str, now: float, *, disowned: Container[str], store: Callable[[Db, Task], None]
) -> list[Task]:
    """Renew this process's leases, take over what nobody watches, settle what the dead left; see `Journal.tend`.

    `disowned` are submissions of ours whose claim seemed to have failed, so that nothing was sent for them; `store`
    writes what was settled.
    """
    me = engine.holder
    rows = db.execute(
        f"SELECT body, holder, lease_until FROM tasks WHERE account = ? AND status IN {any_of(OPEN)}"
        f" AND status <> '{Status.UNCONFIRMED}'{engine.dialect.skip_locked}",
        (account,),
    ).fetchall()
    dead = {h for h in {row[1] for row in rows} if h not in {None, me} and engine.is_dead(db, h)}
    settled = []
    for body, holder, lease_until in rows:
        task = load((body,))
        mine = holder == me
        if mine and task.submission_id in disowned:
            settled.append(refuse(task, _UNANSWERED, now))
            store(db, settled[-1])
            continue
        # Where death shows, a living process that was silent for long is still waiting for its answer.
        # A lease far in the future was written before the clock was set back.
        lapsed = lease_until is None or lease_until < now or lease_until > now + 2 * LEASE_SECONDS
        free = holder is None or holder in dead or lapsed
        if mine or (free and task.is_watched):
            db.execute(
                "UPDATE tasks SET holder = ?, lease_until = ? WHERE submission_id = ?",
                (me, now + LEASE_SECONDS, task.submission_id),
            )
        elif holder is None or holder in dead or (lapsed and not engine.death_shows):
            settled.append(doubt(task, "the server stopped before the proxy's answer was recorded", now))
            store(db, settled[-1])
    return [*settled, *held(db, engine, account)]


def held(db: Db, engine: Engine, account: str) -> list[Task]:
    """The tasks that this process is to watch."""
    rows = db.execute(
        f"SELECT body FROM tasks WHERE account = ? AND status IN {any_of(WATCHED)} AND holder = ?",
        (account, engine.holder),
    )
    return [load(row) for row in rows]
