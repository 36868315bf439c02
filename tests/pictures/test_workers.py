"""The picture workers: the same answers off the event loop, two pictures at a time."""

from __future__ import annotations

import asyncio
import threading

import pytest
from pictures import WHOLE, contact_sheet, tiles_of

from mj_mcp.errors import ImageUnavailable
from mj_mcp.pictures import Format, PictureWorkers, inspect, labelled_sheet, single_view
from mj_mcp.pictures import contact_sheet as drawn
from mj_mcp.pictures import tile as tiled

FORMATS: list[Format] = ["webp", "jpeg", "png"]


async def test_the_workers_give_the_same_answers_off_the_event_loop() -> None:
    async with PictureWorkers() as workers:
        assert await workers.inspect(WHOLE["PNG"]) == inspect(WHOLE["PNG"])
        assert await workers.tile(WHOLE["PNG"], 4) == tiled(WHOLE["PNG"], 4)
        tiles = tiles_of([WHOLE["PNG"]])
        assert await workers.contact_sheet(tiles) == drawn(tiles)
        assert await workers.labelled_sheet([[("A", tiles[0])]]) == labelled_sheet([[("A", tiles[0])]])
        assert await workers.single_view(WHOLE["PNG"]) == single_view(WHOLE["PNG"])
        with pytest.raises(ImageUnavailable):
            await workers.inspect(b"junk")


@pytest.mark.parametrize("form", FORMATS)
async def test_workers_have_one_format_for_every_sheet_and_view(form: Format) -> None:
    async with PictureWorkers(form) as workers:
        (tile,) = tiles_of([WHOLE["PNG"]])
        sheet = await workers.contact_sheet([tile, tile])
        for rendered in (
            sheet,
            await workers.labelled_sheet([[("A", tile)]]),
            await workers.single_view(WHOLE["PNG"]),
            await workers.converted(contact_sheet([WHOLE["PNG"]]).data),
        ):
            assert rendered.media_type == f"image/{form}"


async def test_at_most_two_pictures_are_decoded_at_once_even_when_calls_are_cancelled() -> None:
    running = most = 0
    lock, gate, begun = threading.Lock(), threading.Event(), threading.Semaphore(0)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        begun.release()
        gate.wait(30)
        with lock:
            running -= 1

    async with PictureWorkers() as workers:
        tasks = [asyncio.create_task(workers._run(work)) for _ in range(6)]
        for _ in range(2):
            assert await asyncio.to_thread(begun.acquire, timeout=30)
        for task in tasks[:3]:
            task.cancel()
        assert not await asyncio.to_thread(begun.acquire, timeout=0.2), "a cancelled call's thread works on"
        gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 2
