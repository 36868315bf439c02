"""Pictures of several tasks on one sheet, in the time that a call has: labelled, never twice fetched, holes named."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest
from conftest import KEY, LOAD_SECONDS
from PIL import Image

from mj_mcp.app import open_studio
from mj_mcp.gallery import Gallery, Labelled, Shown
from mj_mcp.gallery.sheets import LATE
from mj_mcp.prompts import Options
from mj_mcp.settings import Settings
from mj_mcp.simulator import Simulator, faults
from mj_mcp.studio import Call, Studio
from mj_mcp.studio.several import overview
from mj_mcp.tasks import Task

pytestmark = pytest.mark.anyio

SettingsFor = Callable[..., Settings]


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(key=KEY, job_seconds=None, image_edge=96) as simulator:
        yield simulator


@asynccontextmanager
async def gallery_of(sim: Simulator, settings_for: SettingsFor, **extra: str) -> AsyncIterator[tuple[Studio, Gallery]]:
    async with open_studio(settings_for(sim.url, **extra)) as studio:
        yield studio, studio._gallery


async def finished(sim: Simulator, studio: Studio, prompt: str, **kinds: str) -> Task:
    """A grid that has succeeded; `p2="html"` makes its second picture hostile."""
    result = await studio.imagine(Call(), prompt, Options())
    task_id = result.task.handle
    for name, kind in kinds.items():
        sim.picture(task_id, int(name[1:]), kind)
    sim.finish(task_id)
    return (await studio.recall(Call(wait_seconds=15), task_id)).task


def sheet_of(shown: Shown) -> Image.Image:
    assert shown.data is not None, shown.missing
    data = base64.b64decode(shown.data)
    assert len(data) <= 200 * 1024
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def labels(groups: list[list[Labelled]]) -> list[list[tuple[str, int | None]]]:
    return [[(item.label, item.index) for item in group] for group in groups]


def pictures_asked(sim: Simulator) -> int:
    return sum("/pictures/" in seen.path for seen in sim.requests)


async def test_up_to_four_tasks_show_every_picture_and_more_one_tile_each(
    sim: Simulator, settings_for: SettingsFor
) -> None:
    async with gallery_of(sim, settings_for) as (studio, gallery):
        wide, square = await finished(sim, studio, "a mug --ar 16:9"), await finished(sim, studio, "a cup")
        few = overview([wide, square])
        assert labels(few) == [[(f"{letter}{n}", n) for n in (1, 2, 3, 4)] for letter in "AB"]
        assert [group[0].task for group in few] == [wide, square]
        shown = await gallery.together(few, 10)
        assert (shown.media_type, shown.missing) == ("image/webp", ())
        assert max(sheet_of(shown).size) in range(1000, 1025)
        many = overview([wide, square] * 10)
        assert labels(many) == [[(letter, None)] for letter in "ABCDEFGHIJKLMNOPQRST"]
        shown = await gallery.together(many, 10)
        assert shown.missing == ()
        assert max(sheet_of(shown).size) in range(1000, 1025)
        assert pictures_asked(sim) == 8


async def test_a_task_that_just_ended_is_fetched_once_for_all_who_want_its_pictures(
    sim: Simulator, settings_for: SettingsFor
) -> None:
    async with gallery_of(sim, settings_for, MJ_ARCHIVE="0") as (studio, gallery):
        task = await finished(sim, studio, "a mug")
        sheets: list[Shown] = []

        async def compare() -> None:
            sheets.append(await gallery.together(overview([task]), 10))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(compare)
            group.start_soon(gallery.show, task, 10)
        assert [shown.missing for shown in sheets] == [()] * 3
        assert pictures_asked(sim) == 4


@pytest.mark.parametrize(("whole", "named"), [(False, "A2: "), (True, "A: picture 2: ")])
async def test_what_cannot_be_had_is_an_empty_tile_and_is_named(
    whole: bool, named: str, sim: Simulator, settings_for: SettingsFor
) -> None:
    async with gallery_of(sim, settings_for) as (studio, gallery):
        task = await finished(sim, studio, "a mug", p2="html")
        groups = [[Labelled("A", task)]] if whole else overview([task])
        shown = await gallery.together(groups, 10)
        assert shown.missing == (f"{named}the file behind the link is not a PNG, JPEG, WebP or GIF",)
        sheet_of(shown)


async def test_a_sheet_is_drawn_in_time_with_what_has_arrived(sim: Simulator, settings_for: SettingsFor) -> None:
    async with gallery_of(sim, settings_for) as (studio, gallery):
        there = await finished(sim, studio, "a mug")
        await gallery.show(there, 10)
        sim.inject("picture", faults.hang(), times=4)
        hung = await finished(sim, studio, "a cup")
        with anyio.fail_after(4 + LOAD_SECONDS):
            shown = await gallery.together(overview([there, hung]), 4)
        assert sim.fired["hang"] == 4
        assert shown.missing == tuple(f"B{n}: {LATE}" for n in (1, 2, 3, 4))
        sheet_of(shown)


async def test_a_sheet_without_any_picture_is_none_and_says_why(sim: Simulator, settings_for: SettingsFor) -> None:
    async with gallery_of(sim, settings_for) as (studio, gallery):
        task = await finished(sim, studio, "a mug", p1="html", p2="html", p3="html", p4="html")
        shown = await gallery.together(overview([task, replace(task, images=())]), 10)
        assert shown.data is None
        assert [line.split(":")[0] for line in shown.missing] == ["A1", "A2", "A3", "A4", "B"]
        assert (
            (await gallery.together([[Labelled("1", task, 9)]], 10))
            .missing[0]
            .startswith("1: `index` must be one of 1, 2, 3, 4")
        )


async def test_a_kept_sheet_is_shown_in_the_format_of_today(sim: Simulator, settings_for: SettingsFor) -> None:
    async with gallery_of(sim, settings_for) as (studio, gallery):
        task = await finished(sim, studio, "a mug")
        assert (await gallery.show(task, 10)).media_type == "image/webp"
        task = (await studio.recall(Call(), task.handle)).task
    asked = pictures_asked(sim)
    async with gallery_of(sim, settings_for) as (_, gallery):
        gallery._workers._form = "png"
        shown = await gallery.show(task, 10)
        assert shown.media_type == "image/png"
        assert sheet_of(shown).format == "PNG"
    assert pictures_asked(sim) == asked
