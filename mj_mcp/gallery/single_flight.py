"""Work that is done once, however many ask for it at the same time.

Owns the tasks that run. Remembers no results: who asks after the end begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """Running work by its key."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._running: dict[K, asyncio.Task[T]] = {}

    def begin(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The task that runs under this key, or else is begun now. Many wait for it: shield it from cancellation."""
        if key not in self._running:

            def ended(task: asyncio.Task[T]) -> None:
                del self._running[key]
                if not task.cancelled():
                    task.exception()  # known, also when nobody waits for it any more

            self._running[key] = asyncio.create_task(work())
            self._running[key].add_done_callback(ended)
        return self._running[key]

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of that task, which goes on when who waits for it is cancelled."""
        return await asyncio.shield(self.begin(key, work))

    async def aclose(self) -> None:
        """Cancel what runs."""
        running = list(self._running.values())
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)
