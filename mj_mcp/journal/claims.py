"""Which row answers a repeated request.

Owns what counts as the same purchase. Runs inside the transaction of a claim, one at a time per account.
"""

from __future__ import annotations

from mj_mcp.journal.engine import Db, SqlDialect
from mj_mcp.journal.protocol import REPEAT_SECONDS
from mj_mcp.journal.rows import load
from mj_mcp.journal.schema import any_of
from mj_mcp.tasks import OPEN, Kind, Status, Task

ALWAYS_SECONDS = 1e15
"""Longer than any journal is old: repeating an upscale always gives the same picture."""

ANSWERING = (
    f"SELECT body, number FROM tasks WHERE account = ? AND request_key = ? AND status IN {any_of(OPEN)}"
    " UNION ALL SELECT body, number FROM tasks WHERE account = ? AND request_key = ?"
    f" AND status = '{Status.SUCCEEDED}' AND coalesce(settled_at, finished_at) > {{now}} - ?"
    " ORDER BY number DESC LIMIT 1"
)
"""Each half reads one range of an index, however many rows a request has: `tasks_open` and `tasks_settled`."""


def answering(db: Db, dialect: SqlDialect, account: str, kind: Kind | None, request_key: str) -> Task | None:
    """The newest row that answers an identical request: an open one, or one that succeeded recently.

    Its age is measured by the storage's clock, since the clocks of two processes may be hours apart.
    """
    seconds = ALWAYS_SECONDS if kind is Kind.UPSCALE else REPEAT_SECONDS
    whose = (account, request_key)
    row = db.execute(ANSWERING.format(now=dialect.now), (*whose, *whose, seconds)).fetchone()
    return load(row) if row is not None else None
