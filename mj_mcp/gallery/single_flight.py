"""Work that runs once, however many callers ask for it at the same time.

Owns the running tasks. Keeps no results: a caller that asks after the end starts a new run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """Running tasks by key."""

    def __init__(self) -> None:
        """Starts empty."""
        self._running: dict[K, asyncio.Task[T]] = {}

    def begin(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The running task of this key, or a new one. Several callers await it: shield it from cancellation."""
        if key not in self._running:

            def ended(task: asyncio.Task[T]) -> None:
                del self._running[key]
                if not task.cancelled():
                    task.exception()  # retrieved, even if no caller awaits it any more

            self._running[key] = asyncio.create_task(work())
            self._running[key].add_done_callback(ended)
        return self._running[key]

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of that task. If the caller is cancelled, the task continues."""
        return await asyncio.shield(self.begin(key, work))

    async def aclose(self) -> None:
        """Cancel the running tasks."""
        running = list(self._running.values())
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)
