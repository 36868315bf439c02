"""One task as one row: its body as JSON, and the columns that queries need.

Owns that the two always agree. Knows nothing of which rows are read or why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from mj_mcp.journal.engine import Db, Engine
from mj_mcp.tasks import OPEN, WATCHED, Status, Task

NEVER = 1e15
"""As `lease_until`: a stalled task that was given up, which nobody takes over until somebody asks for it."""

_TASK = TypeAdapter(Task)


def dump(task: Task) -> str:
    """The body of a row."""
    return _TASK.dump_json(task).decode()


def load(row: Sequence[Any]) -> Task:
    """The task of a row that begins with its body.

    Raises:
        pydantic.ValidationError: it is no task.
    """
    task: Task = _TASK.validate_json(row[0])
    return task


def store(db: Db, engine: Engine, task: Task) -> None:
    """Write the task and the columns that queries need; they are always written together."""
    # Settled once, a claim is free for good: an abandoned submit that is found may meet its successor.
    given_up = task.given_up_at is not None
    holder = "holder" if task.status in WATCHED | {Status.SUBMITTING} and not given_up else "NULL"
    lease = f"{NEVER:.0f}" if given_up else f"CASE WHEN lease_until < {NEVER:.0f} THEN lease_until END"
    claim = "claim" if task.status in OPEN else "NULL"
    db.execute(
        "UPDATE tasks SET task_id = ?, kind = ?, status = ?, submitted_at = ?, finished_at = ?, body = ?,"
        f" holder = {holder}, lease_until = {lease}, claim = {claim}, writer = ?, seq = {engine.dialect.next_seq}"
        f" WHERE submission_id = ?{engine.dialect.announce}",
        (
            task.task_id,
            task.kind,
            task.status,
            task.submitted_at,
            task.finished_at,
            dump(task),
            engine.holder,
            task.submission_id,
        ),
    )
