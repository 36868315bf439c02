"""A gallery with its own journal and archive, whose pictures come from a host that a test holds in its hand."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

from PIL import Image as Drawn

from mj_mcp.archive.store import Store
from mj_mcp.errors import ImageUnavailable
from mj_mcp.gallery import Gallery
from mj_mcp.journal import Journal, open_journal
from mj_mcp.pictures import PictureWorkers
from mj_mcp.proxy import Unknown
from mj_mcp.tasks import Image, Kind, Status, Task

ROOM = 10**9


def png(shade: int = 90, edge: int = 32) -> bytes:
    data = io.BytesIO()
    Drawn.new("L", (edge, edge), shade).save(data, "PNG")
    return data.getvalue()


class Clock:
    """Unix time, as the test says."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Host:
    """Serves a picture for every link but those that are down, and remembers what it was asked for."""

    def __init__(self, picture: bytes | None = None) -> None:
        self.picture = picture or png()
        self.down: set[str] = set()
        self.asked: list[str] = []

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        if url in self.down:
            raise ImageUnavailable("the host is down")
        return self.picture


class Forgetful:
    """A proxy that knows nothing."""

    async def fetch(self, _task_id: str) -> Unknown:
        return Unknown()


FORGETFUL = Forgetful()


class Counting(PictureWorkers):
    """Counts how often a picture is decoded only to see whether it is whole."""

    inspected = 0

    async def inspect(self, data: bytes) -> Any:
        self.inspected += 1
        return await super().inspect(data)


def task(number: int, end: float, pictures: int = 1) -> Task:
    """A task that has succeeded, and of which nothing is archived yet."""
    return Task(
        submission_id=f"sub_{number}",
        task_id=str(number),
        status=Status.SUCCEEDED,
        kind=Kind.IMAGINE,
        prompt="a mug",
        images=tuple(Image(n, f"https://cdn.example/{number}/{n}.png") for n in range(1, pictures + 1)),
        submitted_at=end - 60,
        updated_at=end,
        finished_at=end,
    )


class Opened:
    """A gallery, and what it stands on."""

    def __init__(self, gallery: Gallery, journal: Journal, workers: Counting, store: Store) -> None:
        self.gallery, self.journal, self.workers, self.store = gallery, journal, workers, store

    async def add(self, *tasks: Task) -> None:
        """Rows of these tasks."""
        for task in tasks:
            await self.journal.adopt(task)

    async def row(self, sid: str) -> Task:
        """The row as it is now."""
        found = await self.journal.find(sid, None)
        assert found is not None
        return found

    async def archived(self) -> set[str]:
        """The tasks of which everything is archived, by their rows."""
        tasks: list[Task] = []
        cursor = None
        while True:
            page = await self.journal.page(None, None, 100, cursor)
            tasks += page.tasks
            if (cursor := page.next_cursor) is None:
                return {task.submission_id for task in tasks if all(image.path for image in task.images)}


@asynccontextmanager
async def opened(
    folder: Path, host: Any, clock: Clock, *, proxy: Any = FORGETFUL, archive: bool = True
) -> AsyncIterator[Opened]:
    async with AsyncExitStack() as stack:
        journal = open_journal("", folder, "an account")
        stack.push_async_callback(journal.aclose)
        workers = await stack.enter_async_context(Counting())
        store = await stack.enter_async_context(Store(folder / "archive", ROOM, workers=workers))
        gallery = Gallery(
            journal,
            proxy,
            client=host,
            workers=workers,
            store=store if archive else None,
            output_dir=folder / "out",
            notify=lambda _task: None,
            now=clock,
        )
        stack.push_async_callback(gallery.aclose)
        yield Opened(gallery, journal, workers, store)


class Alive(bytes):
    """Bytes that are counted while they are held."""

    now = most = 0

    def __new__(cls, data: bytes) -> Self:
        Alive.now += 1
        Alive.most = max(Alive.most, Alive.now)
        return super().__new__(cls, data)

    def __del__(self) -> None:
        Alive.now -= 1


class Weighed(Host):
    """A host whose pictures are counted while anybody holds them."""

    async def fetch(self, url: str) -> bytes:
        await asyncio.sleep(0)
        return Alive(await super().fetch(url))
