"""Finds out what became of an unconfirmed submit, where the proxy lists its tasks with the `state` that we sent.

Owns when it is looked up: after the answer was lost, at the start, and when a caller asks. It only reads from the
proxy: nothing is submitted again. Not listed does not mean that it was never created, so the task stays unconfirmed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from mj_mcp.journal import Journal
from mj_mcp.polling.poller import Poller
from mj_mcp.proxy import Proxy
from mj_mcp.tasks import Status, Task, accept

log = structlog.get_logger("mj_mcp.submits")

AFTER_SECONDS = (0.0, 5.0, 30.0, 300.0)
"""When an unconfirmed submit is looked up again: the proxy may still be working on it, or be unreachable."""

LOOKED_UP_AT_START = 100
"""Unconfirmed submits of earlier processes that are looked up at the start, the newest first."""


class Lookup:
    """Looks up the unconfirmed submits of one account."""

    def __init__(
        self,
        journal: Journal,
        proxy: Proxy,
        poller: Poller,
        *,
        now: Callable[[], float],
        after_seconds: Sequence[float] = AFTER_SECONDS,
    ) -> None:
        """`now`: seconds since the epoch."""
        self._journal, self._proxy, self._poller, self._now = journal, proxy, poller, now
        self._after_seconds = after_seconds
        self._unconfirmed: asyncio.Queue[Task] = asyncio.Queue()
        self._looked_up: set[str] = set()

    def note(self, task: Task) -> None:
        """`task` has changed. One that becomes unconfirmed is looked up."""
        if task.status is Status.UNCONFIRMED:
            self._unconfirmed.put_nowait(task)

    async def run(self) -> None:
        """Look up what is unconfirmed, until cancelled."""
        self._looked_up.clear()
        async with asyncio.TaskGroup() as group:
            for task in (await self._journal.page(None, Status.UNCONFIRMED, LOOKED_UP_AT_START, None)).tasks:
                self.note(task)
            while True:
                task = await self._unconfirmed.get()
                if task.submission_id not in self._looked_up:
                    self._looked_up.add(task.submission_id)
                    group.create_task(self._follow(task))

    async def resolve(self, task: Task) -> Task:
        """An unconfirmed task as it is now: accepted if the proxy lists it, else unchanged.

        Raises:
            StorageUnavailable: what was found could not be recorded.
        """
        task_id = await self._proxy.find(task.submission_id)
        if task_id is None:
            return task

        def settle(known: Task) -> Task:
            return accept(known, task_id, self._now()) if known.status is Status.UNCONFIRMED else known

        settled = await self._journal.update(task.submission_id, settle)
        log.info("submit_found", submission_id=task.submission_id, task_id=settled.task_id, status=settled.status)
        if settled.is_polled:
            self._poller.follow(settled)
        self._poller.publish(settled)
        return settled

    async def _follow(self, task: Task) -> None:
        try:
            for seconds in self._after_seconds:
                await asyncio.sleep(seconds)
                if (await self.resolve(task)).status is not Status.UNCONFIRMED:
                    return
        except Exception:
            log.exception("lookup_failed", submission_id=task.submission_id)
        finally:
            self._looked_up.discard(task.submission_id)
