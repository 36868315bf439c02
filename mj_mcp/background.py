"""Tasks that run as long as the server does: one that ends is logged, seen by `/readyz`, and started again.

Owns when each runs. Knows nothing of what it does, but that it may be started again after any end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Self

import structlog

log = structlog.get_logger("mj_mcp.background")

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0
"""Before a task is started again: twice as long each time, until it has run for `STEADY_SECONDS`."""
STEADY_SECONDS = 60.0


class Background:
    """The tasks, by name. They are cancelled on leaving."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`clock` and `sleep` are in seconds."""
        self._clock, self._sleep = clock, sleep
        self._running: list[asyncio.Task[None]] = []
        self.down: set[str] = set()
        """Those that have ended and are not started again yet."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run it from now on."""
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
    """What ended it; None where it just returned. Raises CancelledError only where this task itself is cancelled."""
    current = asyncio.current_task()
    try:
        await run()
    except (Exception, asyncio.CancelledError) as failure:
        if current is not None and current.cancelling():
            raise
        return failure
    return None
