"""What a person allows, counted in the journal. Owns the two counts; knows nothing of claims."""

from __future__ import annotations

from datetime import UTC, datetime

from mj_mcp.errors import Busy, LimitReached
from mj_mcp.journal import DOUBT_COUNTS_SECONDS, Limits
from mj_mcp.journal.engine import Db
from mj_mcp.journal.schema import any_of
from mj_mcp.tasks import OPEN, RUNNING, Status, Task


def check_limits(db: Db, account: str, task: Task, limits: Limits) -> None:
    """Refuse a new submit that goes beyond what a person allows. Runs inside the transaction of the claim.

    Raises:
        Busy: the limit of open tasks is reached, or there is a pause.
        LimitReached: the day's ceiling is reached.
    """
    now = task.updated_at
    if limits.pause is not None:
        raise limits.pause
    (running,) = db.execute(
        f"SELECT count(*) FROM tasks WHERE account = ? AND status IN {any_of(OPEN)}"
        f" AND (status IN {any_of(RUNNING)} OR (status = '{Status.UNCONFIRMED}' AND submitted_at > ?))",
        (account, now - DOUBT_COUNTS_SECONDS),
    ).fetchone()
    if running >= limits.max_open:
        raise Busy(
            f"{running} tasks are open, and this server keeps at most {limits.max_open} open at once"
            " (MJ_MAX_OPEN_TASKS)",
            retry_after_seconds=15.0,
        )
    if limits.per_day is None:
        return
    midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    (spent,) = db.execute(
        f"SELECT count(*) FROM tasks WHERE account = ? AND submitted_at >= ? AND status <> '{Status.REFUSED}'",
        (account, midnight),
    ).fetchone()
    if spent >= limits.per_day:
        raise LimitReached(
            f"{spent} tasks were submitted today (UTC), and a person allowed {limits.per_day} (MJ_DAILY_TASK_LIMIT)",
            retry_after_seconds=round(midnight + 86400 - now),
        )
