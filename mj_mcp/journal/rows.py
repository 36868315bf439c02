"""One task as one row: its body as JSON, and the columns that queries need.

Owns that the two always agree. Knows nothing of which rows are read or why.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import structlog
from pydantic import TypeAdapter

from mj_mcp.errors import StorageUnavailable
from mj_mcp.journal.engine import Db, Engine
from mj_mcp.tasks import OPEN, POLLED, Status, Task

NEVER = 1e15
"""As `lease_until`: a stalled task that was given up, which nobody takes over until somebody asks for it."""

log = structlog.get_logger("mj_mcp.journal")

STORED = {"polls": "looks", "unseen_seconds": "blind"}
"""Fields of a task that rows call otherwise: a stored name is for good."""

_FIELDS = {stored: name for name, stored in STORED.items()}
_TASK = TypeAdapter(Task)


def dump(task: Task) -> str:
    """The body of a row."""
    body = _TASK.dump_python(task, mode="json")
    return json.dumps({STORED.get(name, name): value for name, value in body.items()}, ensure_ascii=False)


def load(row: Sequence[Any]) -> Task:
    """The task of a row that begins with its body.

    Raises:
        StorageUnavailable: it is no task.
    """
    try:
        body = json.loads(row[0])
        task: Task = _TASK.validate_python({_FIELDS.get(name, name): value for name, value in body.items()})
    except (ValueError, AttributeError):
        raise StorageUnavailable(
            "this row of the journal is damaged and cannot be read; `mj-mcp journal check` names what is wrong"
        ) from None
    return task


def readable(bodies: Iterable[str]) -> list[Task]:
    """The tasks of these bodies. One that is damaged hides no other: it is left out, and told of in the log."""
    tasks = []
    for body in bodies:
        try:
            tasks.append(load((body,)))
        except StorageUnavailable as failure:
            _notify(body, failure.message)
    return tasks


@lru_cache(maxsize=256)
def _notify(_body: str, reason: str) -> None:
    """Once for each: sweeps read it again and again."""
    log.error("row_damaged", reason=reason)


def store(db: Db, engine: Engine, task: Task) -> None:
    """Write the task and the columns that queries need; they are always written together."""
    # Settled once, a claim is free for good: an abandoned submit that is found may meet its successor.
    given_up = task.given_up_at is not None
    holder = "holder" if task.status in POLLED | {Status.SUBMITTING} and not given_up else "NULL"
    lease = f"{NEVER:.0f}" if given_up else f"CASE WHEN lease_until < {NEVER:.0f} THEN lease_until END"
    claim = "claim" if task.status in OPEN else "NULL"
    # In an UPDATE, `status` is the one from before: what is stored again after its success keeps its time.
    success = f"CASE WHEN status = '{Status.SUCCEEDED}' THEN settled_at ELSE {engine.dialect.now} END"
    settled = success if task.status is Status.SUCCEEDED else "NULL"
    db.execute(
        "UPDATE tasks SET task_id = ?, kind = ?, status = ?, submitted_at = ?, finished_at = ?, body = ?,"
        f" settled_at = {settled}, holder = {holder}, lease_until = {lease}, claim = {claim},"
        f" writer = ?, seq = {engine.dialect.next_seq}"
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
