"""Opens everything in order and closes it in reverse: journal, proxy, poller, studio.

Owns lifetimes. Decides nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from mj_mcp.archive.bucket import open_bucket
from mj_mcp.archive.store import Store
from mj_mcp.events import Ended, Listeners, Observer, Opened, ignore
from mj_mcp.gallery import Gallery
from mj_mcp.journal import Journal, Limits, open_journal
from mj_mcp.logs import redactor
from mj_mcp.pictures import PictureClient, PictureWorkers
from mj_mcp.polling.open_jobs import Timings
from mj_mcp.polling.poller import Poller
from mj_mcp.proxy import Proxy
from mj_mcp.proxy.http import Http
from mj_mcp.settings import Settings
from mj_mcp.settlement import Settlement
from mj_mcp.studio import Studio
from mj_mcp.submits import Submits
from mj_mcp.tasks import Task
from mj_mcp.urls import read_tunnel

GRACE_SECONDS = 20.0
"""How long a stop waits for the answers to POSTs in flight, so that they are recorded."""


@asynccontextmanager
async def open_studio(
    settings: Settings, observe: Observer = ignore, timings: Timings | None = None
) -> AsyncIterator[Studio]:
    """A studio that works, until the block ends; `observe` is told of what operators count."""
    async with AsyncExitStack() as stack:
        journal, proxy = await stack.enter_async_context(_open_edges(settings))
        listeners = Listeners()
        gallery = await stack.enter_async_context(_open_gallery(settings, journal, proxy, listeners))

        def on_end(task: Task) -> None:
            observe(Ended(task))
            gallery.keep(task)

        poller = Poller(
            journal,
            proxy,
            poll_seconds=settings.poll_seconds,
            polls_per_second=settings.max_polls_per_second,
            now=time.time,
            on_end=on_end,
            notify=listeners.notify,
            timings=timings or Timings(),
        )
        observe(Opened(poller.load))
        stack.push_async_callback(_stop, asyncio.create_task(poller.run()))
        stack.push_async_callback(_stop, asyncio.create_task(gallery.catch_up()))
        submits = Submits(journal, proxy, poller, limits=_limits(settings), now=time.time, observe=observe)
        stack.push_async_callback(submits.drain, GRACE_SECONDS)
        yield Studio(journal, proxy, poller, submits, gallery, listeners=listeners, now=time.time)


@asynccontextmanager
async def open_settlement(settings: Settings) -> AsyncIterator[Settlement]:
    """The records for a person at the machine: nothing is watched, and no running server is disturbed."""
    async with _open_edges(settings) as (journal, proxy):
        yield Settlement(journal, proxy, now=time.time)


def _limits(settings: Settings) -> Limits:
    return Limits(
        settings.max_open_tasks,
        settings.daily_task_limit,
        settings.max_open_tasks_per_user,
        settings.daily_task_limit_per_user,
    )


@asynccontextmanager
async def _open_gallery(
    settings: Settings, journal: Journal, proxy: Proxy, listeners: Listeners
) -> AsyncIterator[Gallery]:
    async with AsyncExitStack() as stack:
        workers = await stack.enter_async_context(PictureWorkers(settings.image_format))
        client = PictureClient(settings.base_url, settings.image_hosts or None, tunnel_for=read_tunnel)
        gallery = Gallery(
            journal,
            proxy,
            client=await stack.enter_async_context(client),
            workers=workers,
            store=await stack.enter_async_context(_store(settings, workers)) if settings.archive else None,
            output_dir=settings.output_dir,
            notify=listeners.notify,
            now=time.time,
        )
        stack.push_async_callback(gallery.aclose)
        yield gallery


def _store(settings: Settings, workers: PictureWorkers) -> Store:
    url = settings.bucket_url
    bucket = open_bucket(url, over_http=settings.bucket_over_http) if url else None
    return Store(settings.archive_folder, settings.archive_max_bytes, workers=workers, bucket=bucket)


@asynccontextmanager
async def _open_edges(settings: Settings) -> AsyncIterator[tuple[Journal, Proxy]]:
    key = settings.api_key.get_secret_value()
    async with AsyncExitStack() as stack:
        journal = open_journal(settings.database_url.get_secret_value(), settings.data_dir, settings.account)
        stack.push_async_callback(journal.aclose)
        http = Http(settings.base_url, key, tunnel=read_tunnel(settings.base_url))
        stack.push_async_callback(http.aclose)
        yield journal, Proxy(http, redactor(*settings.secrets))


async def _stop(work: asyncio.Task[None]) -> None:
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
