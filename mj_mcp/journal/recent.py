"""Tasks in memory: finished ones, which hardly change, and the last known state of any, for when reads fail.

Owns two caches of limited size, and the rule that stale data is never shown as new. Does not know the storage.
"""

from __future__ import annotations

from cachetools import LRUCache

from mj_mcp.tasks import Status, Task

RECENT_TASKS = 256
LAST_KNOWN = 4096
"""Two ids per task: twice as many open tasks as the largest benchmark of one process."""


class Finished:
    """The finished tasks that were read last, by the id that was asked for."""

    def __init__(self) -> None:
        self._tasks: LRUCache[str, Task] = LRUCache(RECENT_TASKS)
        self.changes = 0
        """Rises with every change. What was read before a change must not be remembered after it."""

    def recall(self, handle: str, owner: str | None) -> Task | None:
        """The task, if it is remembered and belongs to this owner (None: any owner)."""
        task = self._tasks.get(handle)
        return task if task is not None and owner in {None, task.owner} else None

    def remember(self, handle: str, task: Task, changes: int) -> None:
        """Keep `task`, which was read when `changes` had its current value."""
        if task.status in {Status.SUCCEEDED, Status.FAILED} and changes == self.changes:
            self._tasks[handle] = task

    def forget(self, task: Task) -> None:
        """A row was written, by this process or another one."""
        self.changes += 1
        self._tasks.pop(task.submission_id, None)
        self._tasks.pop(task.task_id or "", None)


class LastKnown:
    """The last known state of every task, by either id: the answer while the storage is unavailable."""

    def __init__(self) -> None:
        self._tasks: LRUCache[str, Task] = LRUCache(LAST_KNOWN)

    def note(self, *tasks: Task) -> None:
        """These tasks were read or written just now."""
        for task in tasks:
            for handle in filter(None, (task.submission_id, task.task_id)):
                self._tasks[handle] = task

    def recall(self, handle: str, owner: str | None) -> Task | None:
        """The last known state, if it is remembered and the task belongs to this owner (None: any owner)."""
        task = self._tasks.get(handle)
        return task if task is not None and owner in {None, task.owner} else None
