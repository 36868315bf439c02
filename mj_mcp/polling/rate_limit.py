"""The limit of polls per second over all tasks. The task that was polled longest ago goes first.

Owns the limit and that order. Knows nothing of tasks, nor of what a slot is used for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from itertools import count

POLLS_AT_ONCE = 24
"""Polls in flight at any time, so that a slow proxy does not get ever more requests."""

WINDOW_SECONDS = 1.05
"""One second plus a margin, since requests do not take equally long to arrive."""


class RateLimit:
    """A limited number of slots in any second."""

    def __init__(self, per_second: int) -> None:
        """`per_second`: at least 1."""
        self._given: deque[float] = deque(maxlen=per_second)
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = count()
        self._under_way = 0
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def slot(self, seen_at: float) -> AsyncIterator[None]:
        """Wait for a slot, and hold it until the block ends. The lowest `seen_at` goes first."""
        slot = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (seen_at, next(self._number), slot))
        try:
            self._give()
            await slot
            yield
        finally:
            if slot.done() and not slot.cancelled():
                self._under_way -= 1
            slot.cancel()
            self._give()

    def _give(self) -> None:
        """Hand out the free slots, and schedule the next call for when another one is free."""
        loop = asyncio.get_running_loop()
        while self._waiting and self._under_way < POLLS_AT_ONCE:
            full = len(self._given) == self._given.maxlen
            if full and (free_at := self._given[0] + WINDOW_SECONDS) > loop.time():
                if self._timer is None:
                    self._timer = loop.call_at(free_at, self._come_back)
                return
            *_, slot = heappop(self._waiting)
            if not slot.done():
                self._given.append(loop.time())
                self._under_way += 1
                slot.set_result(None)

    def _come_back(self) -> None:
        self._timer = None
        self._give()
