"""Whose look is next: a few at once, and over all tasks no more than so many a second.

Owns the ceiling. Knows nothing of tasks, nor of what is done in a turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mj_mcp.pace import LOOKS_PER_SECOND

AT_ONCE = 16
PER_SECOND = 1.25 * LOOKS_PER_SECOND
"""Looks that somebody wishes for come on top of the planned ones; beyond this they wait."""


class Turns:
    """First come, first served."""

    def __init__(self) -> None:
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._next = 0.0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the block ends."""
        async with self._at_once:
            now = asyncio.get_running_loop().time()
            self._next = max(self._next + 1 / PER_SECOND, now)
            await asyncio.sleep(self._next - now)
            yield
