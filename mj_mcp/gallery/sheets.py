"""Sheets of finished tasks: the contact sheet of one, and labelled sheets of several.

Owns when a sheet is made, what is remembered of it, and how many originals are in memory for it at once. Knows
nothing of MCP, nor of how a picture is fetched, drawn or written.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from cachetools import LRUCache

from mj_mcp.archive.folder import SHEET
from mj_mcp.archive.store import Store
from mj_mcp.errors import ImageUnavailable, MjError
from mj_mcp.gallery.originals import Originals, image_of, measured, pictures_of, with_measured
from mj_mcp.gallery.single_flight import SingleFlight
from mj_mcp.pictures import EXTENSION_OF, PictureWorkers, Tile, part_of
from mj_mcp.tasks import Image, Task

log = structlog.get_logger("mj_mcp.gallery.sheets")

REMEMBERED_SHEETS = 64
NO_PICTURES = "it has no pictures"
LATE = "it is still being fetched"
STILL_FETCHING = "the pictures are still being fetched; get_task shows them a little later"
TRY_AGAIN_SECONDS = 30.0
"""How long an incomplete sheet is used before its missing pictures are tried again."""

DRAW_SECONDS = 1.0
"""The part of a labelled sheet's time reserved for drawing. A picture that comes later is an empty tile."""

FETCHES_AT_ONCE = 6
"""Originals fetched for sheets. `PictureClient` has eight slots: two are left for viewing and saving."""
GRIDS_AT_ONCE = 3
"""2x2 grids fetched and cut for sheets. One grid is four pictures: at 2048 pixels, about 20 MB until they are drawn."""
SHEET_READS_AT_ONCE = 4
"""Originals read from the archive for sheets. They do not wait for the fetched ones."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A picture for a labelled sheet. Without an index, it is the task's whole contact sheet as one tile."""

    label: str
    task: Task
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """A sheet for a result: base64, or None with the reasons. `missing` lists what it does not show."""

    data: str | None
    media_type: str | None = None
    missing: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()
    """The pictures as they were measured."""
    at: float = 0.0


Made = tuple[Tile, Image] | BaseException
"""A picture as a tile and as it was measured, or why there is none."""


class Sheets:
    """The sheets of this process. `store` is None where nothing is archived."""

    def __init__(
        self,
        originals: Originals,
        *,
        workers: PictureWorkers,
        store: Store | None,
        on_missing: Callable[[Task], None],
        try_again_seconds: float = TRY_AGAIN_SECONDS,
    ) -> None:
        """`on_missing` is called with each task that has an original that could not be archived."""
        self._originals = originals
        self._workers = workers
        self._store = store
        self._on_missing = on_missing
        self._try_again_seconds = try_again_seconds
        self._shown: LRUCache[str, Shown] = LRUCache(REMEMBERED_SHEETS)
        self._jobs: SingleFlight[str, Shown] = SingleFlight()
        self._tiles: SingleFlight[tuple[str, int, tuple[int, ...]], dict[int, Made]] = SingleFlight()
        self._grids = asyncio.Semaphore(GRIDS_AT_ONCE)
        self._fetches = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._reads = asyncio.Semaphore(SHEET_READS_AT_ONCE)

    async def show(self, task: Task, seconds: float | None) -> Shown:
        """The task's contact sheet, after waiting up to `seconds` for it. Never raises because of a picture."""
        known = self._shown.get(task.submission_id)
        if known is not None and (not known.missing or time.monotonic() - known.at < self._try_again_seconds):
            return known
        if not pictures_of(task):
            return Shown(None)
        job = self.make(task)
        await asyncio.wait({job}, timeout=seconds)
        return job.result() if job.done() else known or Shown(None, missing=(STILL_FETCHING,))

    async def together(self, groups: Sequence[Sequence[Labelled]], seconds: float) -> Shown:
        """Pictures of several tasks on one sheet, one block per group, in at most `seconds`.

        A picture that is not available in time is an empty tile, listed in `missing`. Never raises because of a
        picture.
        """
        until = time.monotonic() + seconds
        items = [item for group in groups for item in group]
        jobs = [asyncio.create_task(self._tile(item, len(groups) * len(group))) for group in groups for item in group]
        await _in_time(jobs, max(seconds - DRAW_SECONDS, seconds / 2))
        found = [(None, LATE) if job.cancelled() else job.result() for job in jobs]
        missing = tuple(f"{item.label}: {why}" for item, (_, why) in zip(items, found, strict=True) if why)
        if not any(tile for tile, _ in found):
            return Shown(None, missing=missing)
        tiles = iter(tile for tile, _ in found)
        labelled = [[(item.label, next(tiles)) for item in group] for group in groups]
        whole = all(item.index is None for item in items)
        drawing = asyncio.create_task(self._workers.labelled_sheet(labelled, foot=whole))
        await _in_time([drawing], until - time.monotonic())
        if drawing.cancelled():
            return Shown(None, missing=(STILL_FETCHING,))
        return _encoded(drawing.result().data, drawing.result().media_type, missing)

    def make(self, task: Task) -> asyncio.Task[Shown]:
        """Fetch, archive and measure every picture, and draw the sheet. Concurrent callers share one run."""
        return self._jobs.begin(task.submission_id, lambda: self._make(task))

    async def aclose(self) -> None:
        """Stop. Unfinished files are removed."""
        await self._jobs.aclose()
        await self._tiles.aclose()

    async def _make(self, task: Task) -> Shown:
        archived, asked = False, pictures_of(task)
        try:
            if (kept := await self._kept(task)) is not None:
                self._shown[task.submission_id] = kept
                return kept
            work = [self._picture(task, image, len(asked)) for image in asked]
            found = await asyncio.gather(*work, return_exceptions=True)
            had = [one for one in found if not isinstance(one, BaseException)]
            images = [image for _, image in had]
            archived = len(had) == len(found) and all(image.path for image in images)
            if with_measured(task, images) != task:
                await self._originals.record(task, lambda known: with_measured(known, images))
            tiles = {image.index: tile for tile, image in had}
            missing = tuple(
                f"picture {image.index}: {_reason(one)}"
                for image, one in zip(asked, found, strict=True)
                if isinstance(one, BaseException)
            )
            shown = replace(await self._made(task, tiles, missing), images=tuple(images))
        except Exception as failure:
            log.exception("sheet_failed", task_id=task.task_id)
            shown = Shown(None, missing=(_reason(failure),), at=time.monotonic())
        if self._store is not None and not archived:
            self._on_missing(task)
        self._shown[task.submission_id] = shown
        return shown

    async def _picture(self, task: Task, image: Image, share: int) -> tuple[Tile, Image]:
        """One picture as a tile, and its size and format. The parts of a grid are made together, from one fetch."""
        parts = [one for one in task.images if one.path is None and part_of(one.url)[1] == one.index]
        group, slots = (parts, self._grids) if image in parts else ([image], self._fetches)

        async def made() -> dict[int, Made]:
            async with self._reads if image.path else slots:
                work = [self._made_tile(task, one, share) for one in group]
                tiles = await asyncio.gather(*work, return_exceptions=True)
                return {one.index: tile for one, tile in zip(group, tiles, strict=True)}

        key = (task.submission_id, share, tuple(one.index for one in group))
        found = (await self._tiles.run(key, made))[image.index]
        if isinstance(found, BaseException):
            raise found
        return found

    async def _made_tile(self, task: Task, image: Image, share: int) -> tuple[Tile, Image]:
        """The picture's bytes are released as soon as the tile is made."""
        picture = await self._originals.picture(task, image)
        return await self._workers.tile(picture.data, share), measured(image, picture)

    async def _tile(self, item: Labelled, share: int) -> tuple[Tile | None, str]:
        """The tile for a label, and the reason why it is missing."""
        try:
            if item.index is not None:
                tile, _ = await self._picture(item.task, image_of(item.task, item.index), share)
                return tile, ""
            shown = await self.show(item.task, None)
            if shown.data is None:
                return None, "; ".join(shown.missing) or NO_PICTURES
            return await self._workers.tile(base64.b64decode(shown.data), share), "; ".join(shown.missing)
        except MjError as failure:
            return None, failure.message
        except Exception as failure:
            log.exception("tile_failed", task_id=item.task.task_id)
            return None, _reason(failure)

    async def _made(self, task: Task, tiles: dict[int, Tile], missing: tuple[str, ...]) -> Shown:
        if not tiles:
            return Shown(None, missing=missing, at=time.monotonic())
        last = max(image.index for image in task.images)
        sheet = await self._workers.contact_sheet([tiles.get(index) for index in range(1, last + 1)])
        if self._store is not None and not missing:
            try:
                await self._store.put(task.submission_id, SHEET, sheet.data, EXTENSION_OF[sheet.media_type])
            except OSError as failure:
                log.warning("sheet_not_kept", task_id=task.task_id, reason=failure.strerror)
        return _encoded(sheet.data, sheet.media_type, missing)

    async def _kept(self, task: Task) -> Shown | None:
        """The sheet made earlier, if nothing is left to measure or to archive. Only complete sheets are kept."""
        if self._store is None or not all(image.media_type and image.path for image in task.images):
            return None
        sheet = await self._store.get(task.submission_id, SHEET)
        if sheet is None:
            return None
        converted = await self._workers.converted(sheet.data)  # an earlier start may have used another format
        return _encoded(converted.data, converted.media_type, ())


async def _in_time(jobs: Sequence[asyncio.Task[Any]], seconds: float) -> None:
    """Wait for the jobs, and cancel those that are not done in time."""
    try:
        await asyncio.wait(jobs, timeout=seconds)
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


def _encoded(data: bytes, media_type: str, missing: tuple[str, ...]) -> Shown:
    return Shown(base64.b64encode(data).decode(), media_type, missing, at=time.monotonic())


def _reason(failure: BaseException) -> str:
    if isinstance(failure, MjError):
        return failure.message
    if isinstance(failure, asyncio.CancelledError):
        return "the server is stopping"
    return str(ImageUnavailable.code).replace("_", " ")
