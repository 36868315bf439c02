"""Where pictures are decoded and drawn, off the event loop. Owns two threads and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Self, TypeVar

from mj_mcp.pictures.decode import PictureInfo, inspect
from mj_mcp.pictures.grid import Part, open_grid, part_from
from mj_mcp.pictures.sheet import (
    Format,
    Labelled,
    Rendered,
    Tile,
    contact_sheet,
    converted,
    labelled_sheet,
    single_view,
    tile,
)

DECODES_AT_ONCE: Final = 2

T = TypeVar("T")


class PictureWorkers:
    """Decodes and draws at most two pictures at once.

    The number of threads is the limit. A semaphore would be released when a call is cancelled, while its thread keeps
    decoding.
    """

    def __init__(self, form: Format = "webp") -> None:
        """`form` is the format of every sheet and view."""
        self._form = form
        self._grids = asyncio.Semaphore(DECODES_AT_ONCE)
        """A grid stays decoded between the work of two threads, so their number does not limit it."""
        self._threads = ThreadPoolExecutor(DECODES_AT_ONCE, thread_name_prefix="mj-pictures")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def inspect(self, data: bytes) -> PictureInfo:
        """`decode.inspect` on a thread."""
        return await self._run(lambda: inspect(data))

    async def cut(self, data: bytes) -> Sequence[Part]:
        """The four parts of a grid. It is decoded once; its parts are encoded on all threads."""
        async with self._grids:
            grid = await self._run(lambda: open_grid(data))
            return await asyncio.gather(*(self._run(partial(part_from, grid, number)) for number in range(1, 5)))

    async def tile(self, data: bytes, share: int) -> Tile:
        """`sheet.tile` on a thread."""
        return await self._run(lambda: tile(data, share))

    async def contact_sheet(self, tiles: Sequence[Tile | None]) -> Rendered:
        """`sheet.contact_sheet` on a thread."""
        return await self._run(lambda: contact_sheet(tiles, self._form))

    async def labelled_sheet(self, groups: Sequence[Sequence[Labelled]], *, foot: bool = False) -> Rendered:
        """`sheet.labelled_sheet` on a thread."""
        return await self._run(lambda: labelled_sheet(groups, self._form, foot=foot))

    async def single_view(self, data: bytes, max_edge: int = 1024) -> Rendered:
        """`sheet.single_view` on a thread."""
        return await self._run(lambda: single_view(data, max_edge, self._form))

    async def converted(self, data: bytes) -> Rendered:
        """`sheet.converted` on a thread."""
        return await self._run(lambda: converted(data, self._form))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
