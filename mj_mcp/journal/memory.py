"""Finished tasks kept at hand: they hardly change, and are what is asked for most.

Owns a bounded memory and the rule that nothing stale is remembered. Knows nothing of where tasks are stored.
"""

from __future__ import annotations

from collections import OrderedDict

from mj_mcp.tasks import Status, Task

REMEMBERED = 256


class Finished:
    """The finished tasks that were asked for last, by whatever id they were asked for."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, Task] = OrderedDict()
        self.changes = 0
        """Rises with every change; what was read before a change must not be remembered after it."""

    def recall(self, handle: str, owner: str | None) -> Task | None:
        """The task, if it is remembered and is this owner's (None: anybody's)."""
        task = self._tasks.get(handle)
        return task if task is not None and owner in {None, task.owner} else None

    def remember(self, handle: str, task: Task, changes: int) -> None:
        """Keep `task`, read when `changes` was what it is now."""
        if task.status in {Status.SUCCEEDED, Status.FAILED} and changes == self.changes:
            self._tasks[handle] = task
            if len(self._tasks) > REMEMBERED:
                self._tasks.popitem(last=False)

    def forget(self, task: Task) -> None:
        """A row was written: by this process, or by another one."""
        self.changes += 1
        self._tasks.pop(task.submission_id, None)
        self._tasks.pop(task.task_id or "", None)
