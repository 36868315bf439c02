"""A task as it stands in a row: one JSON body. What queries need beside it is in columns of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from mj_mcp.tasks import Task

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
