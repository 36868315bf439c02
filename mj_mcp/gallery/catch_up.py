"""Archives pictures that could not be archived when their task ended, for as long as their links may work.

Owns when to retry. Tasks that failed in this process are added directly; those of other processes are found in the
journal, at the start and every 15 minutes. One task is tried at a time, and only its id and two times are kept. Knows
nothing of how a picture is fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from mj_mcp.errors import StorageUnavailable
from mj_mcp.gallery.originals import pictures_of
from mj_mcp.journal import Journal
from mj_mcp.tasks import Status, Task

log = structlog.get_logger("mj_mcp.gallery.catch_up")

LINK_SECONDS = 86_400.0
"""How long a link may work after the end of its task."""
LEFT_TO_POLLER_SECONDS = 5.0
"""How long a task that has just ended is left to the process that polled it."""
FIRST_SECONDS, LONGEST_SECONDS = 30.0, 3600.0
"""The delay between two attempts: the time since the end, within these bounds."""
SCAN_SECONDS = 900.0
SCAN_PAGE = 100
MAX_WAITING = 10_000
"""The most tasks remembered. A later scan finds the rest."""


class CatchUp:
    """The tasks with originals that are not archived."""

    def __init__(self, journal: Journal, now: Callable[[], float]) -> None:
        """`now`: Unix time."""
        self._journal = journal
        self._now = now
        self._due: dict[str, float] = {}
        self._scan_at = 0.0
        self._more = asyncio.Event()

    def add(self, task: Task) -> None:
        """Retry this task later: some of its originals could not be archived."""
        now = self._now()
        if _has_missing(task, now):
            self._plan(task, now + min(max(now - _end(task), FIRST_SECONDS), LONGEST_SECONDS))

    async def run(self, make: Callable[[Task], Awaitable[object]]) -> None:
        """Retry until cancelled. `make` archives what it can, and calls `add` for a task that needs another attempt."""
        while True:
            seconds = await self.round(make)
            self._more.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._more.wait()

    async def round(self, make: Callable[[Task], Awaitable[object]]) -> float:
        """Try all tasks that are due, one after the other. Returns the seconds until the next one is due."""
        try:
            if self._now() >= self._scan_at:
                await self._scan()
            while (sid := next((sid for sid, at in self._due.items() if at <= self._now()), None)) is not None:
                task = await self._journal.find(sid, None)
                del self._due[sid]
                if task is not None and _has_missing(task, self._now()):
                    await make(task)
        except StorageUnavailable as failure:
            log.warning("pictures_not_retried", reason=failure.message)
            return FIRST_SECONDS
        return max(0.0, min([self._scan_at, *self._due.values()]) - self._now())

    async def _scan(self) -> None:
        """Find the recent successes with originals that are not archived, of any process."""
        now, cursor = self._now(), None
        while True:
            page = await self._journal.page(None, Status.SUCCEEDED, SCAN_PAGE, cursor)
            for task in page.tasks:
                if _has_missing(task, now) and task.submission_id not in self._due:
                    self._plan(task, _end(task) + LEFT_TO_POLLER_SECONDS)
            cursor = page.next_cursor
            if cursor is None or not any(_is_recent(task, now) for task in page.tasks):
                break
        self._scan_at = now + SCAN_SECONDS

    def _plan(self, task: Task, at: float) -> None:
        if len(self._due) < MAX_WAITING:
            self._due[task.submission_id] = at
            self._more.set()


def _end(task: Task) -> float:
    return task.finished_at or task.updated_at


def _is_recent(task: Task, now: float) -> bool:
    return _end(task) > now - LINK_SECONDS


def _has_missing(task: Task, now: float) -> bool:
    missing = any(image.path is None for image in pictures_of(task))
    return task.status is Status.SUCCEEDED and _is_recent(task, now) and missing
