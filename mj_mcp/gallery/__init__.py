"""The pictures of finished tasks: fetched once, archived, shown on sheets, saved in full size.

Connects the picture code with the journal and, for a new link, the proxy. Owns what a caller can ask of pictures.
Knows nothing of MCP, nor of how a picture is fetched, drawn or written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from mj_mcp.archive.store import Picture, Store
from mj_mcp.errors import ImageUnavailable
from mj_mcp.events import Listener
from mj_mcp.gallery.catch_up import CatchUp
from mj_mcp.gallery.originals import PICTURES_SECONDS, File, Originals, image_of
from mj_mcp.gallery.sheets import TRY_AGAIN_SECONDS, Labelled, Sheets, Shown
from mj_mcp.journal import Journal
from mj_mcp.pictures import (
    Original,
    PictureClient,
    PictureInfo,
    PictureWorkers,
    Rendered,
    SavedFile,
    check_name,
    save_originals,
)
from mj_mcp.proxy import Proxy
from mj_mcp.tasks import Image, Status, Task

__all__ = ["Gallery", "Labelled", "Shown"]


class Gallery:
    """The pictures of all finished tasks. `store` is None where originals are not kept."""

    def __init__(
        self,
        journal: Journal,
        proxy: Proxy,
        *,
        client: PictureClient,
        workers: PictureWorkers,
        store: Store | None,
        output_dir: Path,
        notify: Listener,
        now: Callable[[], float],
        answer_seconds: float = PICTURES_SECONDS,
        try_again_seconds: float = TRY_AGAIN_SECONDS,
    ) -> None:
        """Nothing is fetched before a task finishes or a caller asks.

        `notify` gets each task that was measured; `now` is Unix time.
        """
        self._originals = Originals(
            journal, proxy, client=client, workers=workers, store=store, notify=notify, answer_seconds=answer_seconds
        )
        self._catch_up = CatchUp(journal, now)
        self._sheets = Sheets(
            self._originals,
            workers=workers,
            store=store,
            on_missing=self._catch_up.add,
            try_again_seconds=try_again_seconds,
        )
        self._workers = workers
        self._keeps = store is not None
        self._output_dir = output_dir

    def keep(self, task: Task) -> None:
        """A task has ended: fetch and archive its originals now, if it has any, whether or not a caller waits."""
        if self._keeps and task.images and task.status is Status.SUCCEEDED:
            self._sheets.make(task)

    async def catch_up(self) -> None:
        """Archive the recent pictures that are not archived yet, until cancelled."""
        await self._catch_up.run(self._sheets.make)

    async def show(self, task: Task, seconds: float) -> Shown:
        """The task's contact sheet, after waiting up to `seconds` for it. Never raises because of a picture."""
        return await self._sheets.show(task, seconds)

    async def together(self, groups: Sequence[Sequence[Labelled]], seconds: float) -> Shown:
        """Pictures of several tasks on one sheet, one block per group, in at most `seconds`.

        A picture that is not available in time is an empty tile, listed in `missing`. Never raises because of a
        picture.
        """
        return await self._sheets.together(groups, seconds)

    async def present(self, task: Task) -> Task:
        """`task`, without the paths of files that no longer exist."""
        return await self._originals.present(task)

    async def view(self, task: Task, index: int, max_edge: int) -> Rendered:
        """One picture, large enough to judge.

        Raises:
            NotReady, InvalidRequest, ImageUnavailable.
        """
        picture = await self.original(task, index)
        return await self._workers.single_view(picture.data, max_edge)

    async def original(self, task: Task, index: int) -> Picture:
        """One original: from the archive, or fetched now.

        Raises:
            NotReady, InvalidRequest, ImageUnavailable.
        """
        image = image_of(task, index)
        return (await self._originals.all([self._originals.picture(task, image)]))[0]

    async def inspect(self, data: bytes) -> PictureInfo:
        """What these bytes of a picture are.

        Raises:
            ImageUnavailable: no picture, or a damaged one.
        """
        return await self._workers.inspect(data)

    async def file(self, task: Task, index: int) -> File:
        """Like `original`, but as a file where one is kept.

        Raises:
            NotReady, InvalidRequest, ImageUnavailable.
        """
        image = image_of(task, index)
        return (await self._originals.all([self._originals.file(task, image)]))[0]

    async def living_link(self, task: Task, index: int) -> str:
        """The proxy's own link to a picture, which the proxy can fetch now.

        Raises:
            NotReady, InvalidRequest, ImageUnavailable.
        """
        image = image_of(task, index)
        try:
            return await self._originals.living_link(task, image)
        except ImageUnavailable as failure:
            reason = f"picture {index} of task {task.handle} cannot be used as a reference: {failure.message}"
            raise ImageUnavailable(reason) from failure

    async def save(
        self, task: Task, indexes: Sequence[int] | None, folder: str | None, name: str | None = None
    ) -> list[SavedFile]:
        """Save full-size files in the output folder, or in `folder` inside it, named after the task's id or `name`.

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
        """Stop fetching. Unfinished files are removed."""
        await self._sheets.aclose()
        await self._originals.aclose()

    async def _named(self, task: Task, image: Image) -> Picture:
        """The picture. An error names the index, since it is one of several pictures."""
        try:
            return await self._originals.picture(task, image)
        except ImageUnavailable as failure:
            raise ImageUnavailable(f"picture {image.index}: {failure.message}; nothing was saved") from failure


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
