"""Opens the parts of the server in order and closes them in reverse: journal, proxy, poller, studio.

Owns lifetimes, and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from mj_mcp.archive.bucket import BUCKET_READ_SECONDS, BUCKET_WRITE_SECONDS, open_bucket
from mj_mcp.archive.store import UPLOAD_RETRY_SECONDS, Store
from mj_mcp.background import Background
from mj_mcp.events import Ended, Listener, Listeners, Observer, Opened, ignore
from mj_mcp.gallery import Gallery
from mj_mcp.gallery.originals import PICTURES_SECONDS
from mj_mcp.gallery.sheets import TRY_AGAIN_SECONDS
from mj_mcp.journal import Journal, Limits, open_journal, open_reader
from mj_mcp.logs import redactor
from mj_mcp.pictures import PictureClient, PictureWorkers
from mj_mcp.pictures.fetch import STALL_SECONDS
from mj_mcp.polling.open_jobs import PollTimings
from mj_mcp.polling.poller import Poller
from mj_mcp.proxy import Detection, Proxy
from mj_mcp.proxy.client import SUBMIT_SECONDS
from mj_mcp.proxy.http import Http
from mj_mcp.settings import Settings
from mj_mcp.settlement import Settlement
from mj_mcp.studio import Studio
from mj_mcp.studio.call import ANSWER_SECONDS
from mj_mcp.studio.library import Library
from mj_mcp.studio.references import Folders
from mj_mcp.submits import Submits
from mj_mcp.submits.lookup import AFTER_SECONDS, Lookup
from mj_mcp.tasks import Task
from mj_mcp.urls import read_tunnel


@dataclass(frozen=True, slots=True)
class Timings:
    """Times in seconds that only a test changes. Each default is the constant of the module that uses it."""

    polling: PollTimings = field(default_factory=PollTimings)
    submit: float = SUBMIT_SECONDS
    answer: float = ANSWER_SECONDS
    look_up_after: Sequence[float] = AFTER_SECONDS
    pictures: float = PICTURES_SECONDS
    stalled_picture: float = STALL_SECONDS
    sheet_again: float = TRY_AGAIN_SECONDS
    upload_again: float = UPLOAD_RETRY_SECONDS
    bucket_read: float = BUCKET_READ_SECONDS
    bucket_write: float = BUCKET_WRITE_SECONDS
    grace: float = 20.0
    """How long shutdown waits for the answers to POSTs in flight, so that they are recorded."""


DEFAULT_TIMINGS = Timings()


@asynccontextmanager
async def open_studio(
    settings: Settings,
    observe: Observer = ignore,
    timings: Timings = DEFAULT_TIMINGS,
    *,
    now: Callable[[], float] = time.time,
    journal: Journal | None = None,
) -> AsyncIterator[Studio]:
    """A running studio, until the block ends. `observe` receives the events that operators count.

    `now` returns seconds since the epoch. `journal` replaces the one that the settings name.
    """
    async with AsyncExitStack() as stack:
        rows, proxy = await stack.enter_async_context(_open_edges(settings, timings, journal or _journal(settings)))
        listeners = Listeners()
        opening = _open_gallery(settings, timings, rows, proxy, listeners=listeners, now=now)
        gallery, store = await stack.enter_async_context(opening)

        def on_end(task: Task) -> None:
            observe(Ended(task))
            gallery.keep(task)

        poller = _poller(settings, timings, rows, proxy, on_end=on_end, notify=listeners.notify, now=now)
        observe(Opened(poller.load))
        submits = _submits(settings, timings, rows, proxy, poller, listeners=listeners, observe=observe, now=now)
        tasks = _background_tasks(settings, poller, submits.lookup, gallery, store)
        background = await _start(stack, tasks)
        stack.push_async_callback(submits.drain, timings.grace)
        yield Studio(
            rows,
            proxy,
            poller,
            submits,
            gallery,
            folders=Folders(settings.output_dir, settings.input_dir),
            listeners=listeners,
            background=background,
            now=now,
            answer_seconds=timings.answer,
        )


@asynccontextmanager
async def open_settlement(settings: Settings) -> AsyncIterator[Settlement]:
    """The journal, for a person at the machine. Nothing is polled, and a running server is not disturbed."""
    async with _open_edges(settings, DEFAULT_TIMINGS, _journal(settings)) as (journal, proxy):
        yield Settlement(journal, proxy, now=time.time)


@asynccontextmanager
async def open_library(settings: Settings, *, every_account: bool) -> AsyncIterator[Library]:
    """Tasks and pictures, for a person at the machine. Needs no key: the proxy is never asked."""
    url = settings.database_url.get_secret_value()
    async with AsyncExitStack() as stack:
        reader = open_reader(url, settings.data_dir, None if every_account else settings.account)
        stack.push_async_callback(reader.aclose)
        rows = _journal(settings)
        stack.push_async_callback(rows.aclose)
        opening = _open_gallery(settings, DEFAULT_TIMINGS, rows, None, listeners=Listeners(), now=time.time)
        gallery, _ = await stack.enter_async_context(opening)
        yield Library(reader, gallery)


def _journal(settings: Settings) -> Journal:
    return open_journal(settings.database_url.get_secret_value(), settings.data_dir, settings.account)


def _background_tasks(
    settings: Settings, poller: Poller, lookup: Lookup, gallery: Gallery, store: Store | None
) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
    yield "polling", poller.run
    yield "lookup", lookup.run
    if store is not None:
        yield "catch_up", gallery.catch_up
        if settings.bucket_url:
            yield "archive", store.send


async def _start(stack: AsyncExitStack, tasks: Iterator[tuple[str, Callable[[], Awaitable[None]]]]) -> Background:
    background = await stack.enter_async_context(Background())
    for name, run in tasks:
        background.start(name, run)
    return background


def _submits(
    settings: Settings,
    timings: Timings,
    journal: Journal,
    proxy: Proxy,
    poller: Poller,
    *,
    listeners: Listeners,
    observe: Observer,
    now: Callable[[], float],
) -> Submits:
    limits = Limits(
        settings.max_open_tasks,
        settings.daily_task_limit,
        settings.max_open_tasks_per_user,
        settings.daily_task_limit_per_user,
    )
    after = timings.look_up_after
    submits = Submits(journal, proxy, poller, limits=limits, now=now, observe=observe, look_up_after=after)
    listeners.follow(submits.lookup.note)
    return submits


def _poller(
    settings: Settings,
    timings: Timings,
    journal: Journal,
    proxy: Proxy,
    *,
    on_end: Listener,
    notify: Listener,
    now: Callable[[], float],
) -> Poller:
    return Poller(
        journal,
        proxy,
        poll_seconds=settings.poll_seconds,
        polls_per_second=settings.max_polls_per_second,
        timings=timings.polling,
        on_end=on_end,
        notify=notify,
        now=now,
    )


@asynccontextmanager
async def _open_gallery(
    settings: Settings,
    timings: Timings,
    journal: Journal,
    proxy: Proxy | None,
    *,
    listeners: Listeners,
    now: Callable[[], float],
) -> AsyncIterator[tuple[Gallery, Store | None]]:
    async with AsyncExitStack() as stack:
        workers = await stack.enter_async_context(PictureWorkers(settings.image_format))
        store = await stack.enter_async_context(_store(settings, timings, workers)) if settings.archive else None
        client = PictureClient(
            settings.base_url,
            settings.image_hosts or None,
            stall_seconds=timings.stalled_picture,
            tunnel_for=read_tunnel,
        )
        gallery = Gallery(
            journal,
            proxy,
            client=await stack.enter_async_context(client),
            workers=workers,
            store=store,
            output_dir=settings.output_dir,
            notify=listeners.notify,
            now=now,
            answer_seconds=timings.pictures,
            try_again_seconds=timings.sheet_again,
        )
        stack.push_async_callback(gallery.aclose)
        yield gallery, store


def _store(settings: Settings, timings: Timings, workers: PictureWorkers) -> Store:
    bucket = None
    if settings.bucket_url:
        bucket = open_bucket(
            settings.bucket_url,
            over_http=settings.bucket_over_http,
            read_seconds=timings.bucket_read,
            write_seconds=timings.bucket_write,
        )
    return Store(
        settings.archive_folder,
        settings.archive_max_bytes,
        workers=workers,
        bucket=bucket,
        retry_seconds=timings.upload_again,
    )


@asynccontextmanager
async def _open_edges(settings: Settings, timings: Timings, journal: Journal) -> AsyncIterator[tuple[Journal, Proxy]]:
    key = settings.api_key.get_secret_value()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(journal.aclose)
        http = Http(settings.base_url, key, tunnel=read_tunnel(settings.base_url))
        stack.push_async_callback(http.aclose)
        detection = detection_for(settings, http, journal)
        yield journal, Proxy(http, redactor(*settings.secrets), detection, submit_seconds=timings.submit)


def detection_for(settings: Settings, http: Http, memory: Journal | None = None) -> Detection:
    """What the settings say of the proxy, to be found out where they say nothing."""
    return Detection(
        http,
        dialect=None if settings.proxy_dialect == "auto" else settings.proxy_dialect,
        auth=None if settings.proxy_auth == "auto" else settings.proxy_auth,
        memory=memory,
    )
