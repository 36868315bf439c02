"""What becomes of a finished task's pictures: fetched once, kept, shown small, saved whole.

Joins the pictures' edge with the journal and, for a fresh link, the proxy. Owns when a picture is fetched and
what is remembered of it. Knows nothing of MCP, nor of how a picture is fetched, drawn or written.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

from mj_mcp.errors import ImageUnavailable, MjError, StorageUnavailable
from mj_mcp.journal import Journal
from mj_mcp.news import Reader
from mj_mcp.originals import Originals, image_of
from mj_mcp.pictures import (
    SHEET,
    Darkroom,
    Original,
    PictureClient,
    Rendered,
    SavedFile,
    Tile,
    check_name,
    save_originals,
)
from mj_mcp.proxy import Proxy
from mj_mcp.tasks import Image, Status, Task
from mj_mcp.vault import Picture, Vault

log = structlog.get_logger("mj_mcp.gallery")

REMEMBERED_SHEETS = 64
NO_PICTURES = "it has no pictures"
LATE = "it is still being fetched"
STILL_FETCHING = "the pictures are still being fetched; get_task shows them a little later"
TRY_AGAIN_SECONDS = 30.0
"""How long a sheet with a hole in it stands before its missing pictures are tried again."""

CATCH_UP_TASKS = 50
CATCH_UP_SECONDS = 86_400.0


DRAW_SECONDS = 1.0
"""What a labelled sheet keeps of its time for drawing: what has not arrived by then is an empty tile."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A picture for a labelled sheet. Without an index it is the task's whole contact sheet, as one tile."""

    label: str
    task: Task
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """A sheet, ready for a result: base64, or None and why there is none. `missing` names what it does not show."""

    data: str | None
    media_type: str | None = None
    missing: tuple[str, ...] = ()
    at: float = 0.0


class Gallery:
    """The pictures of every finished task of this process. `vault` is None where originals are not kept."""

    def __init__(
        self,
        journal: Journal,
        proxy: Proxy,
        *,
        client: PictureClient,
        darkroom: Darkroom,
        vault: Vault | None,
        output_dir: Path,
        tell: Reader,
    ) -> None:
        """Nothing is fetched before a task finishes or somebody asks. `tell` hears of tasks that were measured."""
        self._originals = Originals(journal, proxy, client=client, darkroom=darkroom, vault=vault, tell=tell)
        self._journal = journal
        self._darkroom = darkroom
        self._vault = vault
        self._output_dir = output_dir
        self._shown: OrderedDict[str, Shown] = OrderedDict()
        self._jobs: dict[str, asyncio.Task[Shown]] = {}

    # ------------------------------------------------------------------------------------------------ verbs

    def keep(self, task: Task) -> None:
        """A task is over: fetch and archive its originals now, if it has any, whether or not anybody waits."""
        if self._vault is not None and task.images and task.status is Status.SUCCEEDED:
            self._job(task)

    async def catch_up(self) -> None:
        """Archive what succeeded lately, but was not archived before the process ended."""
        if self._vault is None:
            return
        try:
            page = await self._journal.page(None, Status.SUCCEEDED, CATCH_UP_TASKS, None)
        except StorageUnavailable:
            return
        for task in page.tasks:
            lately = (task.finished_at or task.updated_at) > time.time() - CATCH_UP_SECONDS
            if lately and any(image.path is None for image in task.images):
                await asyncio.wait({self._job(task)})

    async def show(self, task: Task, seconds: float | None) -> Shown:
        """The task's contact sheet, waiting up to `seconds` for it to be made. Never raises for a picture's sake."""
        known = self._shown.get(task.submission_id)
        if known is not None and (not known.missing or time.monotonic() - known.at < TRY_AGAIN_SECONDS):
            self._shown.move_to_end(task.submission_id)
            return known
        if not task.images:
            return Shown(None)
        job = self._job(task)
        await asyncio.wait({job}, timeout=seconds)
        return job.result() if job.done() else known or Shown(None, missing=(STILL_FETCHING,))

    async def together(self, groups: Sequence[Sequence[Labelled]], seconds: float) -> Shown:
        """Pictures of several tasks on one sheet, each group a block of its own, in at most `seconds`.

        What cannot be had in that time is an empty tile, and named in `missing`. Never raises for a picture's sake.
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
        drawing = asyncio.create_task(self._darkroom.labelled_sheet(labelled, foot=whole))
        await _in_time([drawing], until - time.monotonic())
        if drawing.cancelled():
            return Shown(None, missing=(STILL_FETCHING,))
        return _encoded(drawing.result().data, drawing.result().media_type, missing)

    async def view(self, task: Task, index: int, max_edge: int) -> Rendered:
        """One picture, large enough to judge.

        Raises:
            NotReady, InvalidRequest, ImageUnavailable.
        """
        picture = await self.original(task, index)
        return await self._darkroom.single_view(picture.data, max_edge)

    async def original(self, task: Task, index: int) -> Picture:
        """One original: from the archive, or fetched now.

        Raises:
            NotReady, InvalidRequest, ImageUnavailable.
        """
        image = image_of(task, index)
        return (await self._originals.all([self._originals.picture(task, image)]))[0]

    async def living_link(self, task: Task, index: int) -> str:
        """The proxy's own link to a picture, by which the proxy can fetch it now.

        Raises:
            NotReady, InvalidRequest, ImageUnavailable.
        """
        try:
            return (await self._originals.living(task, image_of(task, index)))[0]
        except ImageUnavailable as failure:
            reason = f"picture {index} of task {task.handle} cannot be used as a reference: {failure.message}"
            raise ImageUnavailable(reason) from failure

    async def save(
        self, task: Task, indexes: Sequence[int] | None, folder: str | None, name: str | None = None
    ) -> list[SavedFile]:
        """Full-size files in the output folder, or in `folder` inside it, called by the task's id or by `name`.

        Raises:
            NotReady, InvalidRequest, ImageUnavailable, StorageUnavailable.
        """
        check_name(name)
        chosen = [image_of(task, index) for index in dict.fromkeys(indexes or [image.index for image in task.images])]
        if not chosen:
            image_of(task, 1)
        pictures = await self._originals.all([self._named(task, image) for image in chosen])
        originals = [_original(task, image, picture, name) for image, picture in zip(chosen, pictures, strict=True)]
        return await asyncio.to_thread(save_originals, self._output_dir, folder, originals)

    async def aclose(self) -> None:
        """Stop fetching. What is half done is absent, not broken."""
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        await self._originals.aclose()

    # ------------------------------------------------------------------------------------------ development

    def _job(self, task: Task) -> asyncio.Task[Shown]:
        sid = task.submission_id
        if sid not in self._jobs:
            job = self._jobs[sid] = asyncio.create_task(self._develop(task))
            job.add_done_callback(lambda _job: self._jobs.pop(sid, None))
        return self._jobs[sid]

    async def _develop(self, task: Task) -> Shown:
        """Every picture fetched and archived, the row completed with what was measured, and the sheet made."""
        try:
            if (kept := await self._kept_sheet(task)) is not None:
                self._remember(task, kept)
                return kept
            found = await asyncio.gather(
                *(self._originals.picture(task, image) for image in task.images), return_exceptions=True
            )
            pictures = [picture if isinstance(picture, Picture) else None for picture in found]
            await self._note(task, pictures)
            missing = tuple(
                f"picture {image.index}: {_reason(picture)}"
                for image, picture in zip(task.images, found, strict=True)
                if not isinstance(picture, Picture)
            )
            shown = await self._sheet(task, pictures, missing)
        except Exception as failure:
            log.exception("sheet_failed", task_id=task.task_id)
            shown = Shown(None, missing=(_reason(failure),), at=time.monotonic())
        self._remember(task, shown)
        return shown

    async def _tile(self, item: Labelled, share: int) -> tuple[Tile | None, str]:
        """What stands under a label, and what is missing there."""
        try:
            if item.index is not None:
                picture = await self._originals.picture(item.task, image_of(item.task, item.index))
                return await self._darkroom.tile(picture.data, share), ""
            shown = await self.show(item.task, None)
            if shown.data is None:
                return None, "; ".join(shown.missing) or NO_PICTURES
            return await self._darkroom.tile(base64.b64decode(shown.data), share), "; ".join(shown.missing)
        except MjError as failure:
            return None, failure.message
        except Exception as failure:
            log.exception("tile_failed", task_id=item.task.task_id)
            return None, _reason(failure)

    async def _sheet(self, task: Task, pictures: list[Picture | None], missing: tuple[str, ...]) -> Shown:
        if not any(pictures):
            return Shown(None, missing=missing, at=time.monotonic())
        tiles = [await self._darkroom.tile(one.data, len(pictures)) if one else None for one in pictures]
        sheet = await self._darkroom.contact_sheet(tiles)
        if self._vault is not None and not missing:
            extension = sheet.media_type.removeprefix("image/").replace("jpeg", "jpg")
            try:
                await self._vault.put(task.submission_id, SHEET, sheet.data, extension)
            except OSError as failure:
                log.warning("sheet_not_kept", task_id=task.task_id, reason=failure.strerror)
        return _encoded(sheet.data, sheet.media_type, missing)

    async def _kept_sheet(self, task: Task) -> Shown | None:
        """The sheet made earlier, when there is nothing left to measure or to archive. Only whole sheets are kept."""
        if self._vault is None or not all(image.media_type and image.path for image in task.images):
            return None
        sheet = await self._vault.get(task.submission_id, SHEET)
        if sheet is None:
            return None
        converted = await self._darkroom.converted(sheet.data)  # an earlier start may have had another format
        return _encoded(converted.data, converted.media_type, ())

    async def _named(self, task: Task, image: Image) -> Picture:
        """The picture, or the reason with its index: it is one of several."""
        try:
            return await self._originals.picture(task, image)
        except ImageUnavailable as failure:
            raise ImageUnavailable(f"picture {image.index}: {failure.message}; nothing was saved") from failure

    async def _note(self, task: Task, pictures: list[Picture | None]) -> None:
        """Complete the row's images with what the bytes say."""
        seen = {image.index: picture for image, picture in zip(task.images, pictures, strict=True) if picture}

        def change(known: Task) -> Task:
            return replace(known, images=tuple(_measured(image, seen.get(image.index)) for image in known.images))

        if change(task) != task:
            await self._originals.record(task, change)

    def _remember(self, task: Task, shown: Shown) -> None:
        self._shown[task.submission_id] = shown
        while len(self._shown) > REMEMBERED_SHEETS:
            self._shown.popitem(last=False)


async def _in_time(jobs: Sequence[asyncio.Task[Any]], seconds: float) -> None:
    """Wait for the jobs, and cancel those that take longer."""
    try:
        await asyncio.wait(jobs, timeout=seconds)
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


def _measured(image: Image, picture: Picture | None) -> Image:
    if picture is None:
        return image
    return replace(
        image,
        media_type=picture.info.media_type,
        width=picture.info.width,
        height=picture.info.height,
        path=str(picture.path) if picture.path else None,
    )


def _original(task: Task, image: Image, picture: Picture, name: str | None) -> Original:
    return Original(
        name=name,
        task_id=task.handle,
        index=image.index,
        data=picture.data,
        extension=picture.info.extension,
        media_type=picture.info.media_type,
        prompt=task.prompt,
        parent_id=task.parent_id,
        kind=task.kind,
        url_host=urlsplit(image.url).hostname,
    )


def _encoded(data: bytes, media_type: str, missing: tuple[str, ...]) -> Shown:
    return Shown(base64.b64encode(data).decode(), media_type, missing, time.monotonic())


def _reason(failure: object) -> str:
    if isinstance(failure, MjError):
        return failure.message
    if isinstance(failure, asyncio.CancelledError):
        return "the server is stopping"
    return str(ImageUnavailable.code).replace("_", " ")
