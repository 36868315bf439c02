"""Four pictures from one grid are like four pictures from four links, and the grid is fetched once for all of them.

The grids come over real HTTP; what is asked of their host is counted.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from connections import listening
from galleries import Alive, Clock, Host, Opened, Weighed, opened, task
from picture_hosts import ok, status
from pictures import encoded, flat, near
from PIL import Image as Drawn

from mj_mcp.errors import ImageUnavailable
from mj_mcp.gallery import Labelled
from mj_mcp.gallery.sheets import GRIDS_AT_ONCE
from mj_mcp.pictures import PictureClient, contact_sheet, tile
from mj_mcp.tasks import Image, Observation, Status, Task
from mj_mcp.urls import with_part

pytestmark = pytest.mark.anyio

COLOURS = ((200, 30, 30), (30, 160, 40), (30, 30, 200), (230, 200, 40))
NUMBERS = (1, 2, 3, 4)
WIDTH, HEIGHT = 65, 49
SIZES = [(32, 24), (33, 24), (32, 25), (33, 25)]


def grid(form: str = "PNG", size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    image = flat(*size, COLOURS[3])
    x, y = size[0] // 2, size[1] // 2
    image.paste(COLOURS[0], (0, 0, x, y))
    image.paste(COLOURS[1], (x, 0, size[0], y))
    image.paste(COLOURS[2], (0, y, x, size[1]))
    return encoded(image, form, **({"quality": 95} if form != "PNG" else {}))


def single(number: int) -> bytes:
    """The picture behind a link of its own: larger than the grid's part."""
    return encoded(flat(80, 60, COLOURS[number - 1]))


class Site:
    """A host of pictures on this machine: what each path answers, and the request lines that it got."""

    def __init__(self, url: str = "") -> None:
        self.url = url
        self.answers: dict[str, bytes] = {}
        self.lines: list[str] = []
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    def asked(self, path: str) -> int:
        return self.lines.count(f"GET {path} HTTP/1.1")

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode()
        self.lines.append(line)
        self.reached.set()
        await self.open.wait()
        writer.write(self.answers.get(line.split(" ")[1], status(404)))
        await writer.drain()


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    there = Site()
    async with listening(there.answer) as port:
        there.url = f"http://127.0.0.1:{port}"
        yield there


@asynccontextmanager
async def shop(folder: Path, **more: Any) -> AsyncIterator[tuple[Site, Opened]]:
    """A gallery whose pictures come from a site."""
    async with (
        site() as there,
        PictureClient(there.url) as client,
        opened(folder, client, Clock(), **more) as at,
    ):
        yield there, at


def cut_task(there: Site, path: str = "/grid.png", number: int = 1) -> Task:
    """A task whose four pictures are the parts of one grid."""
    done = task(number, Clock().now, pictures=4)
    return replace(done, images=tuple(Image(n, with_part(there.url + path, n)) for n in NUMBERS))


def linked_task(there: Site) -> Task:
    """A task with four links of their own, and the grid behind them."""
    done = task(1, Clock().now, pictures=4)
    links = [(f"{there.url}/{n}.png", with_part(f"{there.url}/grid.png", n)) for n in NUMBERS]
    return replace(
        done, images=tuple(Image(n, url, fallback_url=other) for n, (url, other) in enumerate(links, start=1))
    )


def colours_of(pictures: Sequence[bytes | Path]) -> list[int]:
    """For each picture, the number of the quarter whose colour it has."""
    found = []
    for picture in pictures:
        image = Drawn.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture).convert("RGB")
        corners = [image.getpixel((x, y)) for x in (2, image.width - 3) for y in (2, image.height - 3)]
        found += [n for n in NUMBERS if all(near(pixel, COLOURS[n - 1]) for pixel in corners)]
    return found


def archive_of(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "archive").glob("*+[1-4].*"))


ARCHIVED = [f"sub_1+{n}.png" for n in NUMBERS]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
async def test_four_parts_are_measured_archived_and_shown_from_one_fetch(form: str, tmp_path: Path) -> None:
    async with shop(tmp_path) as (there, at):
        there.answers["/grid.png"] = ok(grid(form))
        await at.add(cut_task(there))
        shown = await at.gallery.show(cut_task(there), 20)
        assert there.lines == ["GET /grid.png HTTP/1.1"]
        assert (shown.missing, shown.data is None) == ((), False)
        row = await at.row("sub_1")
        assert [(one.media_type, one.width, one.height) for one in row.images] == [
            ("image/png", *size) for size in SIZES
        ]
        assert [one.url for one in row.images] == [one.url for one in cut_task(there).images]
        files = [Path(one.path or "") for one in row.images]
        assert [path.name for path in files] == ARCHIVED
        assert colours_of(files) == list(NUMBERS)
        for one, path in zip(row.images, files, strict=True):
            data = path.read_bytes()
            assert (one.size, one.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        sheet = await at.workers.contact_sheet([await at.workers.tile(path.read_bytes(), 4) for path in files])
        assert shown.data == base64.b64encode(sheet.data).decode()


async def test_parts_are_viewed_served_and_saved_like_pictures_of_their_own(tmp_path: Path) -> None:
    async with shop(tmp_path) as (there, at):
        there.answers["/grid.png"] = ok(grid())
        await at.add(cut_task(there))
        await at.gallery.show(cut_task(there), 20)
        row = await at.row("sub_1")
        viewed = await at.gallery.view(row, 2, 256)
        assert ((viewed.width, viewed.height), colours_of([viewed.data])) == (SIZES[1], [2])
        assert [(await at.gallery.file(row, n)).content for n in NUMBERS] == [
            Path(one.path or "") for one in row.images
        ]
        saved = await at.gallery.save(row, None, None)
        assert [file.sha256 for file in saved] == [one.sha256 for one in row.images]
        assert colours_of([file.path for file in saved]) == list(NUMBERS)
        assert len(there.lines) == 1


async def test_a_part_that_is_asked_for_alone_archives_all_four(tmp_path: Path) -> None:
    async with shop(tmp_path) as (there, at):
        there.answers["/grid.png"] = ok(grid())
        done = cut_task(there)
        await at.add(done)
        picture = await at.gallery.original(done, 3)
        assert (colours_of([picture.data]), picture.path) == ([3], tmp_path / "archive" / "sub_1+3.png")
        assert archive_of(tmp_path) == ARCHIVED
        assert colours_of([(await at.gallery.original(done, n)).data for n in NUMBERS]) == list(NUMBERS)
        assert (await at.gallery.show(done, 20)).missing == ()
        assert len(there.lines) == 1


@pytest.mark.parametrize("archive", [True, False])
async def test_however_many_ask_at_the_same_time_the_grid_is_fetched_once(archive: bool, tmp_path: Path) -> None:
    async with shop(tmp_path, archive=archive) as (there, at):
        there.answers["/grid.png"] = ok(grid())
        there.open.clear()
        done = cut_task(there)
        await at.add(done)
        asks = [asyncio.create_task(at.gallery.original(done, n)) for n in NUMBERS * 3]
        labels = [Labelled(f"A{n}", done, n) for n in NUMBERS]
        sheets = [
            asyncio.create_task(at.gallery.show(done, 20)),
            asyncio.create_task(at.gallery.together([labels], 20)),
            asyncio.create_task(at.gallery.together([labels[1:2]], 20)),
        ]
        await asyncio.wait_for(there.reached.wait(), 20)
        there.open.set()
        found = await asyncio.gather(*asks)
        assert colours_of([picture.data for picture in found]) == list(NUMBERS * 3)
        assert [shown.missing for shown in await asyncio.gather(*sheets)] == [()] * 3
        assert len(there.lines) == 1


async def test_a_part_whose_file_is_gone_is_cut_again_and_the_others_stay(tmp_path: Path) -> None:
    async with shop(tmp_path) as (there, at):
        there.answers["/grid.png"] = ok(grid())
        await at.add(cut_task(there))
        await at.gallery.show(cut_task(there), 20)
        row = await at.row("sub_1")
        paths = [Path(one.path or "") for one in row.images]
        paths[1].unlink()
        others = [path.stat().st_ino for path in (paths[0], *paths[2:])]
        file = await at.gallery.file(row, 2)
        assert (file.content, file.sha256) == (paths[1], row.images[1].sha256)
        assert [path.stat().st_ino for path in (paths[0], *paths[2:])] == others
        assert await at.row("sub_1") == row
        assert len(there.lines) == 2


@pytest.mark.parametrize("answer", [ok(grid()[:-40]), ok(b"<html>"), status(500)])
async def test_a_grid_that_cannot_be_had_is_asked_for_once_and_all_four_are_missing(
    answer: bytes, tmp_path: Path
) -> None:
    async with shop(tmp_path) as (there, at):
        there.answers["/grid.png"] = answer
        await at.add(cut_task(there))
        shown = await at.gallery.show(cut_task(there), 20)
        assert shown.data is None
        assert [line.split(":")[0] for line in shown.missing] == [f"picture {n}" for n in NUMBERS]
        assert len({line.split(":", 1)[1] for line in shown.missing}) == 1
        assert len(there.lines) == 1
        assert archive_of(tmp_path) == []


class Renewing:
    """A proxy whose tasks have new links; counts how often it is asked."""

    def __init__(self) -> None:
        self.images: tuple[Image, ...] = ()
        self.polls = 0

    async def fetch(self, _task_id: str) -> Observation:
        self.polls += 1
        return Observation(status=Status.SUCCEEDED, images=self.images)


async def test_an_expired_grid_is_found_by_one_poll_for_all_four(tmp_path: Path) -> None:
    proxy = Renewing()
    async with shop(tmp_path, proxy=proxy) as (there, at):
        there.answers = {"/grid.png": status(403), "/new.png": ok(grid())}
        proxy.images = cut_task(there, "/new.png").images
        await at.add(cut_task(there))
        assert (await at.gallery.show(cut_task(there), 20)).missing == ()
        assert (there.asked("/grid.png"), proxy.polls, there.asked("/new.png")) == (1, 1, 1)
        assert len(there.lines) == 2
        row = await at.row("sub_1")
        assert [one.url for one in row.images] == [one.url for one in proxy.images]
        assert colours_of([Path(one.path or "") for one in row.images]) == list(NUMBERS)


async def test_while_four_links_work_their_grid_is_never_asked_for(tmp_path: Path) -> None:
    async with shop(tmp_path) as (there, at):
        there.answers = {f"/{n}.png": ok(single(n)) for n in NUMBERS} | {"/grid.png": ok(grid())}
        await at.add(linked_task(there))
        assert (await at.gallery.show(linked_task(there), 20)).missing == ()
        assert sorted(there.lines) == [f"GET /{n}.png HTTP/1.1" for n in NUMBERS]
        assert [one.width for one in (await at.row("sub_1")).images] == [80] * 4


@pytest.mark.parametrize("answer", [status(403), status(404), status(500), ok(b"<html>")])
async def test_four_links_that_their_host_refuses_are_cut_from_the_grid_without_a_poll(
    answer: bytes, tmp_path: Path
) -> None:
    proxy = Renewing()
    async with shop(tmp_path, proxy=proxy) as (there, at):
        there.answers = {f"/{n}.png": answer for n in NUMBERS} | {"/grid.png": ok(grid())}
        await at.add(linked_task(there))
        assert (await at.gallery.show(linked_task(there), 20)).missing == ()
        row = await at.row("sub_1")
        assert [(one.width, one.height) for one in row.images] == SIZES
        assert colours_of([Path(one.path or "") for one in row.images]) == list(NUMBERS)
        assert [(one.url, one.fallback_url) for one in row.images] == [
            (one.url, one.fallback_url) for one in linked_task(there).images
        ]
        assert ([there.asked(f"/{n}.png") for n in NUMBERS], there.asked("/grid.png"), proxy.polls) == ([1] * 4, 1, 0)


async def test_the_grid_replaces_only_the_picture_whose_link_fails(tmp_path: Path) -> None:
    async with shop(tmp_path) as (there, at):
        there.answers = {f"/{n}.png": ok(single(n)) for n in (1, 2, 3)} | {"/grid.png": ok(grid())}
        done = linked_task(there)
        await at.add(done)
        for n in (1, 2, 3):
            await at.gallery.original(done, n)
        await at.gallery.original(done, 4)
        assert (await at.gallery.show(done, 20)).missing == ()
        assert [one.width for one in (await at.row("sub_1")).images] == [80, 80, 80, SIZES[3][0]]
        assert there.asked("/grid.png") == 1


async def test_links_and_grid_that_expired_together_are_found_by_one_poll(tmp_path: Path) -> None:
    proxy = Renewing()
    async with shop(tmp_path, proxy=proxy) as (there, at):
        there.answers = {"/new.png": ok(grid())}
        proxy.images = tuple(
            Image(n, f"{there.url}/new-{n}.png", fallback_url=with_part(f"{there.url}/new.png", n)) for n in NUMBERS
        )
        await at.add(linked_task(there))
        assert (await at.gallery.show(linked_task(there), 20)).missing == ()
        assert (proxy.polls, there.asked("/grid.png"), there.asked("/new.png")) == (1, 1, 1)
        assert [(one.url, one.fallback_url) for one in (await at.row("sub_1")).images] == [
            (one.url, one.fallback_url) for one in proxy.images
        ]


async def test_a_part_has_no_link_that_the_proxy_could_use(tmp_path: Path) -> None:
    async with shop(tmp_path) as (there, at):
        there.answers = {"/1.png": ok(single(1)), "/grid.png": ok(grid())}
        with pytest.raises(ImageUnavailable) as refused:
            await at.gallery.living_link(cut_task(there), 2)
        assert refused.value.message == (
            "picture 2 of task 1 cannot be used as a reference: it is a part of the proxy's grid and has no link of its"
            " own; upscale it first"
        )
        assert there.lines == []
        assert await at.gallery.living_link(linked_task(there), 1) == f"{there.url}/1.png"


@pytest.mark.parametrize("archive", [True, False])
async def test_of_sixty_grids_that_end_together_a_few_are_held_and_each_is_fetched_once(
    archive: bool, tmp_path: Path
) -> None:
    clock, host = Clock(), Weighed(grid())
    there = Site("https://cdn.example")
    tasks = [cut_task(there, f"/{number}.png", number) for number in range(1, 61)]
    Alive.most = 0
    async with opened(tmp_path, host, clock, archive=archive) as at:
        await at.add(*tasks)
        shown = await asyncio.gather(*(at.gallery.show(one, 50) for one in tasks))
        assert {one.missing for one in shown} == {()}
        assert sorted(host.asked) == sorted(f"https://cdn.example/{number}.png" for number in range(1, 61))
        assert 1 < Alive.most <= GRIDS_AT_ONCE
        assert Alive.now == 0


VIDEO = Image(1, "https://cdn.example/a.mp4", media_type="video/mp4")


async def test_a_video_has_no_sheet_and_nothing_is_wrong_with_that(tmp_path: Path) -> None:
    host, clock = Host(), Clock()
    done = replace(task(1, clock.now), images=(VIDEO,))
    async with opened(tmp_path, host, clock) as at:
        await at.add(done)
        at.gallery.keep(done)
        shown = await at.gallery.show(done, 20)
        assert (shown.data, shown.missing) == (None, ())
        tried: list[Task] = []

        async def make(owed: Task) -> None:
            tried.append(owed)

        for _ in range(3):
            clock.now += await at.gallery._catch_up.round(make)
        assert (tried, host.asked) == ([], [])
        assert await at.row("sub_1") == done


Ask = Callable[[Opened, Task], Any]
ASKS: list[Ask] = [
    lambda at, done: at.gallery.view(done, 1, 256),
    lambda at, done: at.gallery.original(done, 1),
    lambda at, done: at.gallery.file(done, 1),
    lambda at, done: at.gallery.save(done, None, None),
    lambda at, done: at.gallery.living_link(done, 1),
]


@pytest.mark.parametrize("ask", ASKS)
async def test_who_wants_to_see_a_video_is_told_its_link(ask: Ask, tmp_path: Path) -> None:
    host = Host()
    async with opened(tmp_path, host, Clock()) as at:
        with pytest.raises(ImageUnavailable) as refused:
            await ask(at, replace(task(1, Clock().now), images=(VIDEO,)))
        assert refused.value.message == f"picture 1 of task 1 is a video: open its link {VIDEO.url}"
        assert host.asked == []


async def test_the_numbers_on_a_sheet_are_the_numbers_of_the_pictures(tmp_path: Path) -> None:
    """A task whose second link is unusable has pictures 1 and 3."""
    host, clock = Host(), Clock()
    done = task(1, clock.now, pictures=3)
    done = replace(done, images=(done.images[0], done.images[2]))
    async with opened(tmp_path, host, clock) as at:
        await at.add(done)
        shown = await at.gallery.show(done, 20)
        one = tile(host.picture, 2)
        assert shown.data == base64.b64encode(contact_sheet([one, None, one]).data).decode()
