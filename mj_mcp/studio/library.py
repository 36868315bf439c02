"""What a person at this machine can look at: every task of the journal, and its pictures.

Nothing is bought or polled, and no key is needed. Owns only how the journal's rows and the pictures come together.
"""

from __future__ import annotations

from collections.abc import Sequence

from mj_mcp.gallery import Gallery
from mj_mcp.gallery.originals import File
from mj_mcp.journal.reader import Reader
from mj_mcp.pictures import Rendered, SavedFile
from mj_mcp.tasks import Task


class Library:
    """Tasks and pictures, to look at and to save."""

    def __init__(self, reader: Reader, gallery: Gallery) -> None:
        self.reader = reader
        self._gallery = gallery

    async def task(self, handle: str) -> Task:
        """The task with this id, as the journal has it.

        Raises:
            TaskNotFound.
        """
        return (await self.reader.find(handle)).task

    async def view(self, handle: str, index: int, max_edge: int) -> tuple[Task, Rendered]:
        """One picture. Raises NotReady, InvalidRequest, ImageUnavailable, TaskNotFound."""
        task = await self.task(handle)
        return task, await self._gallery.view(task, index, max_edge)

    async def original(self, handle: str, index: int) -> File:
        """One original. Raises NotReady, InvalidRequest, ImageUnavailable, TaskNotFound."""
        return await self._gallery.file(await self.task(handle), index)

    async def save(self, handle: str, indexes: Sequence[int] | None) -> tuple[Task, list[SavedFile]]:
        """Save originals in the output folder. Raises like `original`, and StorageUnavailable."""
        task = await self.task(handle)
        return task, await self._gallery.save(task, indexes, None)
