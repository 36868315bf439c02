"""One task as one row: its body as JSON, and the columns that queries need.

Owns that the two always agree. Does not know which rows are read, or why.
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
"""The `lease_until` of a stalled task whose polling was given up. No process takes it over until a caller asks."""

log = structlog.get_logger("mj_mcp.journal")

STORED = {"polls": "looks", "unseen_seconds": "blind"}
"""Fields of a task that have another name in stored rows. A stored name never changes."""

_FIELDS = {stored: name for name, stored in STORED.items()}
_TASK = TypeAdapter(Task)


def dump(task: Task) -> str:
    """The body of a row."""
    body = _TASK.dump_python(task, mode="json")
    return json.dumps({STORED.get(name, name): value for name, value in body.items()}, ensure_ascii=False)


def load(row: Sequence[Any]) -> Task:
    """The task of a row whose first column is the body.

    Raises:
        StorageUnavailable: it is not a task.
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
    """The tasks of these bodies. A damaged one is skipped and logged; it does not hide the others."""
    tasks = []
    for body in bodies:
        try:
            tasks.append(load((body,)))
        except StorageUnavailable as failure:
            _log_damaged(body, failure.message)
    return tasks


@lru_cache(maxsize=256)
def _log_damaged(_body: str, reason: str) -> None:
    """Once per row: sweeps read it again and again."""
    log.error("row_damaged", reason=reason)


def store(db: Db, engine: Engine, task: Task) -> None:
    """Write the task together with the columns that queries need."""
    # Once settled, a row never gets its claim back: an abandoned submit may be found after a new one has the claim.
    given_up = task.given_up_at is not None
    holder = "holder" if task.status in POLLED | {Status.SUBMITTING} and not given_up else "NULL"
    lease = f"{NEVER:.0f}" if given_up else f"CASE WHEN lease_until < {NEVER:.0f} THEN lease_until END"
    claim = "claim" if task.status in OPEN else "NULL"
    # In an UPDATE, `status` is the old value. A row stored again after its success keeps its time.
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
