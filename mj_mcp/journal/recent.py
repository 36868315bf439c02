"""Tasks kept at hand: finished ones, which hardly change, and what was last known of any, for when nothing can be read.

Owns two bounded memories, and the rule that nothing stale is told as new. Knows nothing of where tasks are stored.
"""

from __future__ import annotations

from cachetools import LRUCache

from mj_mcp.tasks import Status, Task

REMEMBERED = 256
LAST_KNOWN = 4096
"""Two ids a task: twice as many open tasks as one process is measured with."""


class Finished:
    """The finished tasks that were asked for last, by whatever id they were asked for."""

    def __init__(self) -> None:
        self._tasks: LRUCache[str, Task] = LRUCache(REMEMBERED)
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

    def forget(self, task: Task) -> None:
        """A row was written: by this process, or by another one."""
        self.changes += 1
        self._tasks.pop(task.submission_id, None)
        self._tasks.pop(task.task_id or "", None)


class LastKnown:
    """Every task as this process saw it last, by either id: what is told while the storage is away."""

    def __init__(self) -> None:
        self._tasks: LRUCache[str, Task] = LRUCache(LAST_KNOWN)

    def note(self, *tasks: Task) -> None:
        """These were read or written this moment."""
        for task in tasks:
            for handle in filter(None, (task.submission_id, task.task_id)):
                self._tasks[handle] = task

    def recall(self, handle: str, owner: str | None) -> Task | None:
        """The task as it was last seen, if it is remembered and is this owner's (None: anybody's)."""
        task = self._tasks.get(handle)
        return task if task is not None and owner in {None, task.owner} else None
