"""The grid in one picture, and the four links where a proxy gives them."""

from __future__ import annotations

import statistics

import httpx
import pytest
from PIL import Image
from simulators import SECRET, FlatAgent, image

from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}


def quarter(grid: Image.Image, number: int) -> Image.Image:
    width, height = grid.size[0] // 2, grid.size[1] // 2
    left, top = (number - 1) % 2 * width, (number - 1) // 2 * height
    return grid.crop((left, top, left + width, top + height))


def hue(picture: Image.Image) -> float:
    """The mean hue of the sky's top row, 0 to 255."""
    return statistics.mean(picture.convert("HSV").crop((0, 0, picture.size[0], 1)).tobytes()[::3])


def distance(one: Image.Image, other: Image.Image) -> float:
    pairs = zip(one.convert("RGB").tobytes(), other.convert("RGB").tobytes(), strict=True)
    return statistics.mean(abs(left - right) for left, right in pairs)


@pytest.mark.parametrize("dialect", ["classic", "plus"])
async def test_a_grid_is_one_picture_of_four_that_nobody_mistakes_for_each_other(
    http: httpx.AsyncClient, dialect: str
) -> None:
    async with Simulator(dialect="plus" if dialect == "plus" else "classic", job_seconds=None, image_edge=64) as sim:
        agent = FlatAgent(sim, http, SECRET)
        link = (await agent.task(await agent.grid("a cat --ar 2:1")))["imageUrl"]
        grid = image((await http.get(link)).content)
    assert (grid.format, grid.size) == ("PNG", (128, 64))
    hues = [hue(quarter(grid, number)) for number in range(1, 5)]
    steps = [(hues[number] - hues[0]) % 256 for number in range(4)]
    assert steps == pytest.approx([0, 64, 128, 192], abs=4)


async def test_an_upscale_shows_its_own_quarter_of_the_grid(http: httpx.AsyncClient) -> None:
    async with Simulator(dialect="plus", job_seconds=None, image_edge=64) as sim:
        plus = FlatAgent(sim, http, SECRET)
        upscale = await plus.task(await plus.upscale())
        parent = await plus.task(upscale["parentId"])
        grid, large = [image((await http.get(task["imageUrl"])).content) for task in (parent, upscale)]
    assert large.size == (128, 128)
    sky = (0, 0, 64, 24)
    apart = [distance(quarter(grid, n).crop(sky), large.resize((64, 64)).crop(sky)) for n in range(1, 5)]
    assert apart.index(min(apart)) == 1
    assert apart[1] < 4


async def test_four_links_show_the_quarters_in_order(http: httpx.AsyncClient) -> None:
    async with Simulator(dialect="plus", four_links=True, job_seconds=None, image_edge=64) as sim:
        plus = FlatAgent(sim, http, SECRET)
        task = await plus.task(await plus.grid())
        grid = image((await http.get(task["imageUrl"])).content)
        singles = [image((await http.get(item["url"])).content) for item in task["imageUrls"]]
    assert [distance(single, quarter(grid, number)) for number, single in enumerate(singles, 1)] == [0] * 4
    assert task["imageUrls"][0].keys() == {"url", "thumbnail"}


async def test_the_host_of_the_four_may_refuse_all_but_browsers_and_never_the_grid(http: httpx.AsyncClient) -> None:
    async with Simulator(dialect="plus", four_links=True, browsers_only=True, job_seconds=None, image_edge=64) as sim:
        plus = FlatAgent(sim, http, SECRET)
        task = await plus.task(await plus.grid())
        first = task["imageUrls"][0]["url"]
        answers = [await http.get(first), await http.get(first, headers=BROWSER), await http.get(task["imageUrl"])]
        assert [answer.status_code for answer in answers] == [403, 200, 200]
        assert sim.fired == {"browsers_only": 1}


@pytest.mark.parametrize(("images", "size"), [(0, None), (1, (64, 64)), (2, (128, 128)), (4, (128, 128))])
async def test_a_job_may_end_with_fewer_pictures(
    http: httpx.AsyncClient, images: int, size: tuple[int, int] | None
) -> None:
    async with Simulator(dialect="classic", job_seconds=None, image_edge=64) as sim:
        classic = FlatAgent(sim, http, SECRET)
        task = await classic.task(await classic.grid(images=images))
        link = task["imageUrl"]
        assert task["status"] == "SUCCESS"
        assert (image((await http.get(link)).content).size if link else None) == size


async def test_a_grid_can_be_replaced_by_a_hostile_picture(http: httpx.AsyncClient) -> None:
    async with Simulator(dialect="classic", job_seconds=None, image_edge=64) as sim:
        classic = FlatAgent(sim, http, SECRET)
        task_id = await classic.grid()
        sim.picture(task_id, 0, "html")
        link = (await classic.task(task_id))["imageUrl"]
        assert (await http.get(link)).content.startswith(b"<!DOCTYPE html>")
        sim.picture(task_id, 0, "private")
        assert (await classic.task(task_id))["imageUrl"] == "http://10.0.0.1/x.png"
