"""The limits that a person set, counted in the journal, and the fair queue for a slot below the limit of open tasks.

Owns the counts and the order of the queue. Knows nothing of claims. Everything here runs inside the transaction of a
claim, one at a time per account.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from mj_mcp.errors import Busy, LimitReached
from mj_mcp.journal.engine import Db, SqlDialect
from mj_mcp.journal.protocol import KEPT_SECONDS, QUEUE_SECONDS, UNCONFIRMED_COUNTS_SECONDS, Limits, Usage
from mj_mcp.journal.schema import any_of
from mj_mcp.tasks import OPEN, RUNNING, Status, Task

BUSY_SECONDS = 15.0
"""`Retry-After` in seconds: about half a job."""

UNCHARGED = frozenset({Status.REFUSED, Status.ABANDONED})
"""Statuses that do not count as a submit of the day."""

OTHER = "other"
"""In the usage: what has no kind, which are descriptions."""

DAY_SECONDS = 86400.0


def check_limits(db: Db, account: str, task: Task, limits: Limits) -> None:
    """Refuse a new submit beyond the limits that a person set, whatever the queue.

    Raises:
        Busy: the owner's limit of open tasks is reached, or there is a pause.
        LimitReached: the limit of the day is reached, the owner's or the account's.
    """
    if limits.pause is not None:
        raise limits.pause
    now = task.updated_at
    if limits.owner_max_open is not None:
        running = _running(db, account, now, task.owner)
        if running >= limits.owner_max_open:
            raise Busy(
                f"you have {running} open tasks; each caller may have at most {limits.owner_max_open} at once"
                " (MJ_MAX_OPEN_TASKS_PER_USER)",
                retry_after_seconds=BUSY_SECONDS,
            )
    if limits.owner_per_day is not None:
        spent = _spent(db, account, task.owner, _midnight(now)).total()
        if spent >= limits.owner_per_day:
            raise LimitReached(
                f"you submitted {spent} tasks today (UTC); the limit for each caller is {limits.owner_per_day}"
                " (MJ_DAILY_TASK_LIMIT_PER_USER)",
                retry_after_seconds=_until_tomorrow(now),
            )
    if limits.per_day is not None:
        spent = _spent(db, account, None, _midnight(now)).total()
        if spent >= limits.per_day:
            raise LimitReached(
                f"{spent} tasks were submitted today (UTC); the limit is {limits.per_day} (MJ_DAILY_TASK_LIMIT)",
                retry_after_seconds=_until_tomorrow(now),
            )


def take_slot(db: Db, dialect: SqlDialect, account: str, task: Task, slot: str, *, limits: Limits, now: float) -> int:
    """0 if a slot is free for `task` now; else its position in the queue, where it waits under the id `slot`.

    A queue entry that is not asked for again is kept for a while by the storage's clock, and still blocks those behind
    it. It belongs to the owner: any of the owner's requests may use it meanwhile. `now`: as for the limit of open
    tasks.
    """
    db.execute(f"DELETE FROM waiting WHERE account = ? AND seen_at < {dialect.now} - ?", (account, KEPT_SECONDS))
    running = _running(db, account, now, None)
    if running < limits.max_open and not _queue_order(db, dialect, account):
        return 0
    db.execute(
        f"INSERT INTO waiting (account, owner, submission_id, seen_at) VALUES (?, ?, ?, {dialect.now})"
        " ON CONFLICT (submission_id) DO UPDATE SET seen_at = excluded.seen_at",
        (account, task.owner, slot),
    )
    ahead = min(
        number
        for number, (waiting, owner, unseen_for) in enumerate(_queue_order(db, dialect, account))
        if waiting == slot or (owner == task.owner and unseen_for > QUEUE_SECONDS)
    )
    if running + ahead < limits.max_open:
        leave_queue(db, slot)
        return 0
    return ahead + 1


def count_usage(db: Db, dialect: SqlDialect, account: str, owner: str | None, *, limits: Limits, now: float) -> Usage:
    """See `Journal.usage`."""
    midnight = _midnight(now)
    today = _spent(db, account, owner, midnight)
    week = _spent(db, account, owner, midnight - 6 * DAY_SECONDS)
    running = _running(db, account, now, owner)
    (waiting,) = db.execute(
        "SELECT count(*) FROM waiting WHERE account = ? AND owner = coalesce(?, owner)"
        f" AND seen_at >= {dialect.now} - ?",
        (account, owner, QUEUE_SECONDS),
    ).fetchone()
    open_left = [limits.max_open - _running(db, account, now, None)]
    today_left = []
    if limits.per_day is not None:
        today_left.append(limits.per_day - _spent(db, account, None, midnight).total())
    if owner is not None and limits.owner_max_open is not None:
        open_left.append(limits.owner_max_open - running)
    if owner is not None and limits.owner_per_day is not None:
        today_left.append(limits.owner_per_day - today.total())
    return Usage(
        today={kind or OTHER: number for kind, number in today.items()},
        last_7_days={kind or OTHER: number for kind, number in week.items()},
        open=running,
        waiting=waiting,
        open_left=max(0, min(open_left)),
        today_left=max(0, min(today_left)) if today_left else None,
        resets_at=midnight + DAY_SECONDS,
    )


def leave_queue(db: Db, slot: str) -> None:
    """Remove the entry from the queue."""
    db.execute("DELETE FROM waiting WHERE submission_id = ?", (slot,))


def _queue_order(db: Db, dialect: SqlDialect, account: str) -> list[tuple[str, str, float]]:
    """Id, owner and seconds since the last request of each entry, in the order of service: owners alternate.

    Every owner's first request goes before anyone's second. Among those, the owner served longest ago goes first.
    """
    rows = db.execute(
        f"SELECT submission_id, owner, {dialect.now} - seen_at FROM waiting WHERE account = ? ORDER BY number",
        (account,),
    ).fetchall()
    served = {owner: _last_served(db, account, owner) for owner in {row[1] for row in rows}}
    rounds: Counter[str] = Counter()
    order = []
    for number, row in enumerate(rows):
        rounds[row[1]] += 1
        order.append((rounds[row[1]], served[row[1]], number, tuple(row)))
    return [row for *_, row in sorted(order)]


def _last_served(db: Db, account: str, owner: str) -> int:
    """The number of the owner's newest row. Rows are numbered in the order of their claims."""
    row = db.execute("SELECT max(number) FROM tasks WHERE account = ? AND owner = ?", (account, owner)).fetchone()
    return row[0] or 0


def _running(db: Db, account: str, now: float, owner: str | None) -> int:
    row = db.execute(
        f"SELECT count(*) FROM tasks WHERE account = ? AND owner = coalesce(?, owner) AND status IN {any_of(OPEN)}"
        f" AND (status IN {any_of(RUNNING)} OR (status = '{Status.UNCONFIRMED}' AND submitted_at > ?))",
        (account, owner, now - UNCONFIRMED_COUNTS_SECONDS),
    ).fetchone()
    return int(row[0])


def _spent(db: Db, account: str, owner: str | None, since: float) -> Counter[str | None]:
    """Submits by kind, except those that were not charged, certainly or by a person's decision."""
    rows = db.execute(
        "SELECT kind, count(*) FROM tasks WHERE account = ? AND owner = coalesce(?, owner) AND submitted_at >= ?"
        f" AND status NOT IN {any_of(UNCHARGED)} GROUP BY kind",
        (account, owner, since),
    )
    return Counter(dict(rows.fetchall()))


def _midnight(now: float) -> float:
    return datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()


def _until_tomorrow(now: float) -> float:
    return round(_midnight(now) + DAY_SECONDS - now)
