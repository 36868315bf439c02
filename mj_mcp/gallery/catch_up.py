"""Pictures that could not be archived when their task ended are tried again, for as long as their links may live.

Owns when. What this process could not archive it is told of; what others left is found in the journal, at the start
and from time to time. One task is tried at a time, and of each no more than an id and two times are remembered. Knows
nothing of how a picture is had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from mj_mcp.errors import StorageUnavailable
from mj_mcp.journal import Journal
from mj_mcp.tasks import Status, Task

log = structlog.get_logger("mj_mcp.gallery.catch_up")

LINK_SECONDS = 86_400.0
"""How long after the end of its task a link may live."""
SETTLE_SECONDS = 5.0
"""How long a task that has just ended is left to the process that saw the end."""
FIRST_SECONDS, LONGEST_SECONDS = 30.0, 3600.0
"""Between two attempts as much time passes as has passed since the end, but no less and no more than this."""
SCAN_SECONDS = 900.0
PAGE = 100
MOST = 10_000
"""Tasks remembered. What is left out is found by a later scan."""


class CatchUp:
    """The tasks of which an original is owed."""

    def __init__(self, journal: Journal, now: Callable[[], float]) -> None:
        """`now`: Unix time."""
        self._journal = journal
        self._now = now
        self._due: dict[str, float] = {}
        self._scan_at = 0.0
        self._more = asyncio.Event()

    def add(self, task: Task) -> None:
        """Its originals could not all be archived just now."""
        now = self._now()
        if _has_missing(task, now):
            self._plan(task, now + min(max(now - _end(task), FIRST_SECONDS), LONGEST_SECONDS))

    async def run(self, make: Callable[[Task], Awaitable[object]]) -> None:
        """Try again until cancelled. `make` archives what it can, and `add`s the task again where it cannot."""
        while True:
            seconds = await self.round(make)
            self._more.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._more.wait()

    async def round(self, make: Callable[[Task], Awaitable[object]]) -> float:
        """Try all that is due, one after the other. Seconds until there is more to do."""
        try:
            if self._now() >= self._scan_at:
                await self._scan()
            while (sid := next((sid for sid, at in self._due.items() if at <= self._now()), None)) is not None:
                task = await self._journal.find(sid, None)
                del self._due[sid]
                if task is not None and _has_missing(task, self._now()):
                    await make(task)
        except StorageUnavailable as failure:
            log.warning("pictures_not_caught_up", reason=failure.message)
            return FIRST_SECONDS
        return max(0.0, min([self._scan_at, *self._due.values()]) - self._now())

    async def _scan(self) -> None:
        """Find what is owed of the tasks that succeeded lately, whoever saw their end."""
        now, cursor = self._now(), None
        while True:
            page = await self._journal.page(None, Status.SUCCEEDED, PAGE, cursor)
            for task in page.tasks:
                if _has_missing(task, now) and task.submission_id not in self._due:
                    self._plan(task, _end(task) + SETTLE_SECONDS)
            cursor = page.next_cursor
            if cursor is None or not any(_is_recent(task, now) for task in page.tasks):
                break
        self._scan_at = now + SCAN_SECONDS

    def _plan(self, task: Task, at: float) -> None:
        if len(self._due) < MOST:
            self._due[task.submission_id] = at
            self._more.set()


def _end(task: Task) -> float:
    return task.finished_at or task.updated_at


def _is_recent(task: Task, now: float) -> bool:
    return _end(task) > now - LINK_SECONDS


def _has_missing(task: Task, now: float) -> bool:
    return (
        task.status is Status.SUCCEEDED and _is_recent(task, now) and any(image.path is None for image in task.images)
    )
