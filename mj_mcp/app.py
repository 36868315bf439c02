"""Opens everything in order and closes it in reverse: journal, proxy, watch, studio.

Owns lifetimes. Decides nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from mj_mcp.journal import Limits, open_journal
from mj_mcp.logs import redactor
from mj_mcp.proxy import Proxy
from mj_mcp.proxy.http import Http
from mj_mcp.settings import Settings
from mj_mcp.studio import Studio
from mj_mcp.submits import Submits
from mj_mcp.watch import Watch

GRACE_SECONDS = 20.0
"""How long a stop waits for the answers to POSTs in flight, so that they are recorded."""


@asynccontextmanager
async def open_studio(settings: Settings, *, watching: bool = True) -> AsyncIterator[Studio]:
    """A studio that works, until the block ends; without `watching` it takes no open task over."""
    key = settings.api_key.get_secret_value()
    async with AsyncExitStack() as stack:
        journal = open_journal(settings.database_url, settings.data_dir, settings.account)
        stack.push_async_callback(journal.aclose)
        http = Http(settings.base_url, key)
        stack.push_async_callback(http.aclose)
        proxy = Proxy(http, redactor(key))
        watch = Watch(journal, proxy, poll_seconds=settings.poll_seconds, now=time.time)
        if watching:
            stack.push_async_callback(_stop, asyncio.create_task(watch.run()))
        limits = Limits(settings.max_open_tasks, settings.daily_task_limit)
        submits = Submits(journal, proxy, watch, limits=limits, now=time.time)
        stack.push_async_callback(submits.drain, GRACE_SECONDS)
        yield Studio(journal, proxy, watch, submits, now=time.time)


async def _stop(work: asyncio.Task[None]) -> None:
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
