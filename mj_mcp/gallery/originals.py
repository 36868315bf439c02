"""One original at a time: from the archive, from its link, from the grid, or from the new link of another fetch.

Owns where the bytes of a picture come from, and that what was fetched is archived. Knows nothing of sheets, of
views, or of who asks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import structlog
from cachetools import TTLCache

from mj_mcp.archive.store import Known, Picture, Store, digest_of
from mj_mcp.errors import ImageUnavailable, InvalidRequest, NotReady, StorageUnavailable
from mj_mcp.events import Listener
from mj_mcp.gallery.single_flight import SingleFlight
from mj_mcp.journal import Journal
from mj_mcp.pictures import EXTENSION_OF, LinkExpired, PictureClient, PictureInfo, PictureWorkers, part_of
from mj_mcp.proxy import FetchResult, Proxy
from mj_mcp.tasks import Image, Observation, Task
from mj_mcp.tasks.merging import merge

log = structlog.get_logger("mj_mcp.gallery.originals")

T = TypeVar("T")

GONE_FILES_SECONDS = 2.0
"""How long the missing files of a task are remembered. A disk may be slow, so it is checked rarely, in a thread."""
GONE_FILES_REMEMBERED = 1024

PICTURES_SECONDS = 22.0
"""Timeout for viewing or saving: hosts cut a call after 25 s or more."""


@dataclass(frozen=True, slots=True)
class File:
    """One original to send: a file, or its bytes where no file could be kept."""

    media_type: str
    sha256: str
    content: Path | bytes


class Originals:
    """The full-size pictures of finished tasks. `store` is None where they are not kept."""

    def __init__(
        self,
        journal: Journal,
        proxy: Proxy | None,
        *,
        client: PictureClient,
        workers: PictureWorkers,
        store: Store | None,
        notify: Listener,
        answer_seconds: float = PICTURES_SECONDS,
    ) -> None:
        """Nothing is fetched before a caller asks. Without a `proxy`, expired links stay so.

        `notify` gets each task whose row changed.
        """
        self._journal = journal
        self._proxy = proxy
        self._client = client
        self._workers = workers
        self._store = store
        self._notify = notify
        self._answer_seconds = answer_seconds
        self._fetches: SingleFlight[str, FetchResult | None] = SingleFlight()
        self._grids: SingleFlight[tuple[str, str], dict[int, Picture]] = SingleFlight()
        self._pictures: SingleFlight[tuple[str, int], Picture] = SingleFlight()
        self._gone: TTLCache[str, frozenset[str]] = TTLCache(GONE_FILES_REMEMBERED, GONE_FILES_SECONDS)

    async def picture(self, task: Task, image: Image) -> Picture:
        """One original. If it has to be fetched, it is archived even if the caller leaves.

        Raises:
            ImageUnavailable.
        """
        return await self._pictures.run((task.submission_id, image.index), lambda: self._found(task, image))

    async def file(self, task: Task, image: Image) -> File:
        """One original, as a file where one can be kept.

        Raises:
            ImageUnavailable.
        """
        known = _known(image)
        if self._store is not None and known is not None:
            path = await self._store.find(task.submission_id, image.index, known)
            if path is not None:
                return File(known.info.media_type, known.sha256, path)
        picture = await self.picture(task, image)
        return File(picture.info.media_type, picture.sha256, picture.path or picture.data)

    async def present(self, task: Task) -> Task:
        """`task`, without the paths of files that no longer exist: an archive removes files to make space."""
        paths = [image.path for image in task.images if image.path]
        gone = self._gone.get(task.submission_id)
        if paths and gone is None:
            gone = await asyncio.to_thread(lambda: frozenset(path for path in paths if not Path(path).is_file()))
            self._gone[task.submission_id] = gone
        if not gone:
            return task
        images = (replace(image, path=None) if image.path in gone else image for image in task.images)
        return replace(task, images=tuple(images))

    async def _found(self, task: Task, image: Image) -> Picture:
        noted = image.path is not None  # by any process; a new picture is in no bucket yet
        picture = await self._kept(task, image, ask_bucket=noted)
        if picture is None:
            try:
                picture = await self._fetched(task, image)
            except ImageUnavailable:
                # Another process may have archived it without being able to write the journal.
                if noted or (picture := await self._kept(task, image, ask_bucket=True)) is None:
                    raise
        if noted and image.sha256 != picture.sha256:  # archived by an older version, or the proxy sends other bytes now
            found = measured(image, picture)
            await self.record(task, lambda known: with_measured(known, [found]))
        return picture

    async def all(self, work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """All originals at once, within the time of a call. The first that is not available cancels the others."""
        jobs = [asyncio.ensure_future(one) for one in work]
        try:
            await asyncio.wait(jobs, timeout=self._answer_seconds, return_when=asyncio.FIRST_EXCEPTION)
            late = [job for job in jobs if not job.done()]
            failed = next((failure for job in jobs if job.done() and (failure := job.exception())), None)
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
        if failed is not None:
            raise failed
        if late:
            raise ImageUnavailable(
                f"the pictures did not arrive within {self._answer_seconds:g} s; they are still fetched"
            )
        return [job.result() for job in jobs]

    async def record(self, task: Task, change: Callable[[Task], Task]) -> None:
        """Write to the journal what was learned. Pictures are shown and saved even if that fails."""
        try:
            self._notify(await self._journal.update(task.submission_id, change))
        except StorageUnavailable as failure:
            log.warning("pictures_not_recorded", task_id=task.task_id, reason=failure.message)

    async def aclose(self) -> None:
        """Stop fetching."""
        await self._pictures.aclose()
        await self._grids.aclose()
        await self._fetches.aclose()

    async def _kept(self, task: Task, image: Image, *, ask_bucket: bool) -> Picture | None:
        if self._store is None:
            return None
        return await self._store.get(task.submission_id, image.index, _known(image), ask_bucket=ask_bucket)

    async def _fetched(self, task: Task, image: Image) -> Picture:
        return await self._living(task, image, lambda linked: self._linked(task, linked))

    async def _linked(self, task: Task, image: Image) -> Picture:
        """The picture behind its link or, if that fails, behind its other link."""
        try:
            return await self._behind(task, image, image.url)
        except ImageUnavailable:
            if image.fallback_url is None:
                raise
            return await self._behind(task, image, image.fallback_url)

    async def _behind(self, task: Task, image: Image, link: str) -> Picture:
        url, part = part_of(link)
        if part == image.index:
            return (await self._grids.run((task.submission_id, url), lambda: self._cut(task, url)))[part]
        data = await self._client.fetch(url)
        return await self._archived(task, image.index, data, await self._workers.inspect(data))

    async def _cut(self, task: Task, url: str) -> dict[int, Picture]:
        """The pictures of a grid. What is not archived yet is cut from it, in one fetch for all, and archived."""
        found = {image.index: await self._kept(task, image, ask_bucket=False) for image in task.images}
        pictures = {index: picture for index, picture in found.items() if picture is not None}
        if len(pictures) < len(found):
            for index, part in enumerate(await self._workers.cut(await self._client.fetch(url)), start=1):
                if index not in pictures:
                    pictures[index] = await self._archived(task, index, part.data, part.info)
        return pictures

    async def _archived(self, task: Task, index: int, data: bytes, info: PictureInfo) -> Picture:
        """The picture, archived if that is possible."""
        picture = Picture(data, info, await digest_of(data))
        if self._store is None:
            return picture
        try:
            path = await self._store.put(task.submission_id, index, data, info.extension)
        except OSError as failure:
            log.warning("picture_not_archived", task_id=task.task_id, index=index, reason=failure.strerror)
            return picture
        finally:
            self._gone.clear()  # others may have been removed to make space
        return replace(picture, path=path)

    async def living_link(self, task: Task, image: Image) -> str:
        """The proxy's own link to the picture. It was fetched, which proves that it works.

        Raises:
            ImageUnavailable.
        """

        async def link(linked: Image) -> str:
            if part_of(linked.url)[1] is not None:
                raise ImageUnavailable("it is a part of the proxy's grid and has no link of its own; upscale it first")
            await self._client.fetch(linked.url)
            return linked.url

        return await self._living(task, image, link)

    async def _living(self, task: Task, image: Image, use: Callable[[Image], Awaitable[T]]) -> T:
        """What `use` makes of the picture's links. If they have expired, the task is fetched once for new ones."""
        try:
            return await use(image)
        except LinkExpired:
            # One fetch for all pictures of a task: their links expire together.
            fetched = await self._fetches.run(task.submission_id, lambda: self._relinked(task))
            seen = fetched.images if isinstance(fetched, Observation) else ()
            fresh = image.relinked(next((one for one in seen if one.index == image.index), image))
            if fresh == image:
                raise
            return await use(fresh)

    async def _relinked(self, task: Task) -> FetchResult | None:
        if self._proxy is None:
            return None
        fetched = await self._proxy.fetch(task.task_id or "")
        if isinstance(fetched, Observation):
            await self.record(task, lambda known: merge(known, fetched, time.time()))
        return fetched


def image_of(task: Task, index: int) -> Image:
    """The task's picture with that index.

    Raises:
        NotReady: the task is not finished.
        InvalidRequest: it has no such picture.
        ImageUnavailable: it is a video.
    """
    if task.is_open:
        raise NotReady(f"task {task.handle} is {task.status}: it has no pictures yet")
    for image in task.images:
        if image.index == index:
            if image.is_video:
                raise ImageUnavailable(f"picture {index} of task {task.handle} is a video: open its link {image.url}")
            return image
    if not task.images:
        raise InvalidRequest.because(f"task {task.handle} has no pictures.")
    raise InvalidRequest("index", index, "one of " + ", ".join(str(image.index) for image in task.images))


def pictures_of(task: Task) -> tuple[Image, ...]:
    """The task's pictures. Videos are not among them."""
    return tuple(image for image in task.images if not image.is_video)


def measured(image: Image, picture: Picture) -> Image:
    """What is known of the original after reading it."""
    return replace(
        image,
        media_type=picture.info.media_type,
        width=picture.info.width,
        height=picture.info.height,
        path=str(picture.path) if picture.path else None,
        size=len(picture.data),
        sha256=picture.sha256,
    )


def with_measured(task: Task, images: Sequence[Image]) -> Task:
    """The task with what was measured of these pictures. Its links do not change."""
    found = {image.index: image for image in images}
    return replace(task, images=tuple(found.get(one.index, one).relinked(one) for one in task.images))


def _known(image: Image) -> Known | None:
    if not (image.media_type and image.sha256 and image.size and image.width and image.height):
        return None
    info = PictureInfo(image.media_type, EXTENSION_OF[image.media_type], image.width, image.height)
    return Known(info, image.size, image.sha256)
