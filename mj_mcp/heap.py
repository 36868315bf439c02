"""When Python looks for rubbish among its objects: never while a call would feel it.

Owns the collector of this process. Knows nothing of calls: whoever serves tells whether somebody waits.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

log = structlog.get_logger("mj_mcp.heap")

THRESHOLD = (1000, 10, 1_000_000)
"""The small collections, which find nearly all there is, come as often as ever; a full one never by itself."""

CHECK_SECONDS = 10.0
AT_LAST_SECONDS = 600.0
"""Where somebody always waits, a full collection is made so long after the last one. With 1,000 waiters over HTTP it
stops the event loop for 0.4 s."""


def pause() -> None:
    """Collect nothing while everything is set up."""
    gc.disable()


@asynccontextmanager
async def collected(is_busy: Callable[[], bool]) -> AsyncIterator[None]:
    """Collect again, what was set up aside; full collections are made when nobody is busy.

    What set-up made lives as long as the process. Walking it would cost the start a tenth of its time, and a call now
    and then its p99. What is rubbish in it stays: half a megabyte.
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(*THRESHOLD)
    log.debug("serving", frozen=gc.get_freeze_count())
    work = asyncio.create_task(collect_when_idle(is_busy))
    try:
        yield
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def collect_when_idle(
    is_busy: Callable[[], bool],
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Make the full collections, where there is anything new, until cancelled."""
    last = now()
    while True:
        await sleep(CHECK_SECONDS)
        if gc.get_count()[2] and (not is_busy() or now() - last >= AT_LAST_SECONDS):
            gc.collect()
            last = now()
