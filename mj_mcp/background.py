"""Tasks that run as long as the server runs. One that ends is logged, reported by `/readyz`, and started again.

Owns when each task runs. Does not know what a task does; any of them may be restarted after any end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Self

import structlog

log = structlog.get_logger("mj_mcp.background")

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0
"""The delay before a restart. It doubles each time, until the task has run for `STEADY_SECONDS`."""
STEADY_SECONDS = 60.0


class Background:
    """The tasks, by name. Leaving the block cancels them."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`clock` and `sleep` are in seconds."""
        self._clock, self._sleep = clock, sleep
        self._running: list[asyncio.Task[None]] = []
        self.down: set[str] = set()
        """Tasks that have ended and are not restarted yet."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run this task from now on."""
        self._running.append(asyncio.create_task(self._keep(name, run), name=name))

    async def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        seconds = FIRST_SECONDS
        while True:
            began = self._clock()
            failure = await _end_of(run)
            if self._clock() - began > STEADY_SECONDS:
                seconds = FIRST_SECONDS
            log.error("background_task_ended", task=name, again_in_seconds=seconds, exc_info=failure)
            self.down.add(name)
            await self._sleep(seconds)
            self.down.discard(name)
            seconds = min(2 * seconds, LONGEST_SECONDS)


async def _end_of(run: Callable[[], Awaitable[None]]) -> BaseException | None:
    """The error that ended it; None where it just returned. Raises CancelledError only if this task is cancelled."""
    current = asyncio.current_task()
    try:
        await run()
    except (Exception, asyncio.CancelledError) as failure:
        if current is not None and current.cancelling():
            raise
        return failure
    return None
