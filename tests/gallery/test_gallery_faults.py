"""Pictures when hosts are hostile, disks are full, and the server is killed: late never, broken never, always with a
reason.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import KEY, LOAD_SECONDS, Caller, facts_of
from folders import small_files
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ImageContent, TextContent
from PIL import Image

from mj_mcp.app import Timings
from mj_mcp.gallery.sheets import STILL_FETCHING
from mj_mcp.simulator import Simulator, faults

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]

EDGE = 160
KILLS = int(os.environ.get("MJ_TEST_KILLS", "10"))
"""Read at import: no MJ_ variable of a developer's reaches a test itself."""

HOSTILE = {
    "private": "10.0.0.1 leads to an address that is not public",
    "metadata": "169.254.169.254 leads to an address that is not public",
    "redirect-private": "10.0.0.1 leads to an address that is not public",
    "redirect-metadata": "169.254.169.254 leads to an address that is not public",
    "redirect-loop": "redirects more than 3 times",
    "missing": "expired or is refused (HTTP 404)",
    "html": "not a PNG, JPEG, WebP or GIF",
    "truncated": "cut off or damaged",
    "endless": "larger than 67,108,864 bytes",
    "drip": "less than 65,536 bytes came in 5 s",
    "pixel-bomb": "more than 50,000,000",
    "gzip-bomb": "an encoding that was not asked for",
}
HARMLESS = ["wrong-extension", "redirect-ok", "jpeg", "webp", "gif", "noise", "dark", "light"]


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(key=KEY, job_seconds=None, image_edge=EDGE) as simulator:
        yield simulator


IMPATIENT = Timings(stalled_picture=5.0)
"""A picture is given up after 5 seconds without a byte instead of 20."""


async def finished(sim: Simulator, caller: Caller, prompt: str = "a mug", **kinds: str) -> str:
    """A grid that has just finished at the proxy; `p2="html"` makes its second picture hostile."""
    task = await caller.task("generate_image", prompt=prompt, wait_seconds=0)
    for name, kind in kinds.items():
        sim.picture(task["task_id"], int(name[1:]), kind)
    sim.finish(task["task_id"])
    return str(task["task_id"])


async def shown(caller: Caller, task_id: str, seconds: float = 15.0) -> CallToolResult:
    result = await caller.call("get_task", task_id=task_id, wait_seconds=seconds)
    assert not result.is_error, result.content
    return result


task_of = facts_of


def sheet_of(result: CallToolResult) -> Image.Image:
    (block,) = [block for block in result.content if isinstance(block, ImageContent)]
    image = Image.open(io.BytesIO(base64.b64decode(block.data)))
    image.load()
    return image


def tile_is_empty(sheet: Image.Image, index: int) -> bool:
    """Whether a tile of a two by two sheet is of one flat grey, away from its number and its words."""
    width, height = sheet.size
    left, top = (index - 1) % 2 * (width // 2 + 3), (index - 1) // 2 * (height // 2 + 3)
    part = sheet.crop((left + 20, top + height // 3, left + width // 2 - 20, top + height // 2 - 20)).convert("RGB")
    spread = [high - low for low, high in part.getextrema()]  # type: ignore[misc]  # three bands
    return max(spread) <= 12


# ------------------------------------------------------------------------------------------------- hostile


@pytest.mark.parametrize(("kind", "reason"), HOSTILE.items())
@pytest.mark.slow
async def test_the_others_are_shown_beside_an_empty_tile_and_the_reason_is_said(
    kind: str, reason: str, sim: Simulator, connect: Connect
) -> None:
    async with connect(sim, timings=IMPATIENT) as caller:
        task_id = await finished(sim, caller, p2=kind)
        result = await shown(caller, task_id)
        assert [type(block) for block in result.content] == [TextContent, ImageContent]
        sheet = sheet_of(result)
        assert [tile_is_empty(sheet, index) for index in (1, 2, 3, 4)] == [False, True, False, False]
        task = task_of(result)
        (warning,) = task["warnings"]
        assert warning.startswith("picture 2: ")
        assert reason in warning
        assert warning in result.content[0].text  # type: ignore[union-attr]  # seen above
        assert [image["path"] is None for image in task["images"]] == [False, True, False, False]
        error = await caller.error("view_image", task_id=task_id, index=2)
        assert error["code"] == "image_unavailable"
        assert reason in error["message"]
        error = await caller.error("save_images", task_id=task_id)
        assert error["code"] == "image_unavailable"
        assert error["message"].startswith("picture 2: ")
        assert len((await caller.task("save_images", task_id=task_id, indexes=[1, 3, 4]))["files"]) == 3


@pytest.mark.parametrize("kind", HARMLESS)
async def test_what_only_seems_odd_is_shown(kind: str, sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        task = task_of(await shown(caller, await finished(sim, caller, p2=kind)))
        assert task["warnings"] == []
        assert all(image["path"] for image in task["images"])


async def test_a_result_without_any_picture_has_its_links_and_the_reasons(sim: Simulator, connect: Connect) -> None:
    kinds = ("metadata", "html", "drip", "truncated")
    async with connect(sim, timings=IMPATIENT) as caller:
        task_id = await finished(sim, caller, **{f"p{n}": kind for n, kind in enumerate(kinds, 1)})
        result = await shown(caller, task_id)
        assert [type(block) for block in result.content] == [TextContent]
        task = task_of(result)
        assert task["status"] == "succeeded"
        assert all(image["url"].startswith("http") for image in task["images"])
        for kind, warning in zip(kinds, task["warnings"], strict=True):
            assert HOSTILE[kind] in warning


@pytest.mark.parametrize("wait_seconds", [0, 1])
async def test_a_call_ends_in_its_time_while_pictures_hang(wait_seconds: int, sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        sim.inject("picture", faults.hang(), times=4)
        task_id = await finished(sim, caller)
        began = time.perf_counter()
        result = await shown(caller, task_id, wait_seconds)
        assert time.perf_counter() - began <= wait_seconds + 1.0 + LOAD_SECONDS
        await sim.until(lambda: sim.fired["hang"] == 4)
        for _ in range(2):  # it has succeeded by now, and hangs still
            began = time.perf_counter()
            result = await shown(caller, task_id, wait_seconds)
            assert time.perf_counter() - began <= wait_seconds + 1.0 + LOAD_SECONDS
        assert [type(block) for block in result.content] == [TextContent]
        assert task_of(result)["status"] == "succeeded"
        assert task_of(result)["warnings"] == [STILL_FETCHING]


async def test_a_slow_poll_and_hanging_pictures_share_the_time_of_one_call(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        sim.inject("picture", faults.hang(), times=4)
        task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        sim.inject("fetch", faults.delay(0.6))
        sim.finish(task["task_id"])
        await sim.until(lambda: sim.fired["delay"] == 1)
        began = time.perf_counter()
        await shown(caller, task["task_id"], 0)
        assert time.perf_counter() - began <= 1.0 + LOAD_SECONDS
        assert sim.fired["delay"] == 1


async def test_viewing_and_saving_end_before_a_host_gives_up(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, timings=Timings(pictures=0.5), MJ_ARCHIVE="0") as caller:
        task_id = await finished(sim, caller)
        await caller.task("get_task", task_id=task_id, wait_seconds=10, include_image=False)
        sim.inject("picture", faults.hang(), times=4)
        for tool, arguments in (("view_image", {"index": 1}), ("save_images", {})):
            began = time.perf_counter()
            error = await caller.error(tool, task_id=task_id, **arguments)
            assert time.perf_counter() - began <= 0.5 + LOAD_SECONDS
            assert error["code"] == "image_unavailable"
            assert "did not arrive within 0.5 s" in error["message"]
        await sim.until(lambda: sim.fired["hang"] == 4)  # the first picture is asked for once, for both


@pytest.mark.parametrize(("seconds", "filled"), [(0.0, True), (30.0, False)])
async def test_a_hole_is_tried_again_later_and_shown_until_it_is_filled(
    seconds: float, filled: bool, sim: Simulator, connect: Connect
) -> None:
    async with connect(sim, timings=Timings(sheet_again=seconds)) as caller:
        task_id = await finished(sim, caller, p2="html")
        assert task_of(await shown(caller, task_id))["warnings"] != []
        sim.picture(task_id, 2, None)
        result = await shown(caller, task_id)
        assert (task_of(result)["warnings"] == []) == filled
        assert tile_is_empty(sheet_of(result), 2) != filled


# --------------------------------------------------------------------------------------------------- disks


def wrong_files(folder: Path) -> list[str]:
    """What is neither whole nor an unfinished file under its temporary name."""
    wrong = []
    for path in sorted(folder.rglob("*")) if folder.exists() else []:
        if path.is_dir() or path.name.startswith(".mj-part-"):
            continue
        try:
            if path.suffix == ".json":
                story = json.loads(path.read_text())
                picture = path.with_suffix("")
                if hashlib.sha256(picture.read_bytes()).hexdigest() != story["sha256"]:
                    wrong.append(f"{path.name}: of another picture")
            else:
                Image.open(path).load()
        except (OSError, ValueError, KeyError, SyntaxError) as failure:
            wrong.append(f"{path.name}: {failure}")
    return wrong


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[None]:
    """A folder that is a disk of its own."""
    mount = shutil.which("mount")
    if sys.platform != "linux" or mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root; the file size limit stands in")
    folder.mkdir(parents=True)
    if subprocess.run([mount, "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("this machine lets even root mount no tmpfs; the file size limit stands in")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def is_clear(error: dict[str, Any]) -> bool:
    """Whether a save that could not be written says so, and nothing of a submit."""
    assert error["code"] == "storage_unavailable"
    assert error["message"].startswith("the output folder cannot be written (")
    return "submitted" not in error["next_step"] and "doctor" in error["next_step"]


async def test_a_full_output_disk_is_a_clear_error_and_leaves_whole_files(
    sim: Simulator, connect: Connect, tmp_path: Path
) -> None:
    sim.pictures_are("noise")  # 77 KB each
    out = tmp_path / "pictures"
    with small_disk(out, 200):
        async with connect(sim) as caller:
            task_id = await finished(sim, caller)
            await shown(caller, task_id)
            error = await caller.error("save_images", task_id=task_id)
            assert is_clear(error)
            assert "No space left" in error["message"]
            assert wrong_files(out) == []
            assert len(list(out.glob("*.png"))) < 4
            assert list(out.glob(".mj-part-*")) == []
            # Once there is room, the same call works.
            await anyio.run_process(["mount", "-o", "remount,size=2m", str(out)])
            assert len((await caller.task("save_images", task_id=task_id))["files"]) == 4
            assert wrong_files(out) == []


async def test_a_full_archive_disk_costs_the_archive_only(sim: Simulator, connect: Connect, tmp_path: Path) -> None:
    sim.pictures_are("noise")
    archive = tmp_path / "data" / "archive"
    with small_disk(archive, 200):
        async with connect(sim) as caller:
            result = await shown(caller, await finished(sim, caller))
            assert [tile_is_empty(sheet_of(result), index) for index in (1, 2, 3, 4)] == [False] * 4
            task = task_of(result)
            paths = [image["path"] for image in task["images"]]
            assert None in paths
            assert {path for path in paths if path} == {str(path) for path in archive.glob("*+[1-4].png")}
            assert all(image["width"] == EDGE for image in task["images"])
            assert wrong_files(archive) == []
            assert list(archive.glob(".mj-part-*")) == []
            assert len((await caller.task("save_images", task_id=task["task_id"]))["files"]) == 4


async def test_a_write_that_stops_half_way_leaves_nothing(sim: Simulator, connect: Connect, tmp_path: Path) -> None:
    async with connect(sim, MJ_ARCHIVE="0") as caller:
        sim.pictures_are("noise")
        task_id = await finished(sim, caller)
        await shown(caller, task_id)
        with small_files(40_000):
            assert is_clear(await caller.error("save_images", task_id=task_id))
        assert list((tmp_path / "pictures").iterdir()) == []
        assert len((await caller.task("save_images", task_id=task_id))["files"]) == 4


async def test_an_output_folder_that_cannot_be_made_is_a_clear_error(
    sim: Simulator, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "pictures").write_text("a file where the folder should be")
    async with connect(sim) as caller:
        task_id = await finished(sim, caller)
        await shown(caller, task_id)
        assert is_clear(await caller.error("save_images", task_id=task_id))


# --------------------------------------------------------------------------------------------------- kills


def files_in(*folders: Path) -> int:
    return sum(len(list(folder.iterdir())) for folder in folders if folder.exists())


@pytest.mark.timeout(60 + 12 * KILLS)
@pytest.mark.slow
async def test_a_server_killed_while_it_archives_and_saves_leaves_whole_files_or_none(
    spawn: Connect, tmp_path: Path
) -> None:
    """Every life archives one grid and saves the one before; it ends after a random number of files."""
    archive, out = tmp_path / "data" / "archive", tmp_path / "pictures"
    dice = random.Random(3)
    ids: list[str] = []
    cut_short = 0

    async with Simulator(key=KEY, job_seconds=None, image_edge=512) as sim:
        sim.pictures_are("noise")  # 786 KB each: there is something to be cut

        async def live_and_die(caller: Caller) -> None:
            async def save() -> None:
                with suppress(MCPError):
                    await caller.call("save_images", task_id=ids[-2])

            ids.append(await finished(sim, caller, f"grid {len(ids)}"))
            goal = files_in(archive, out) + dice.randrange(1, 9)
            async with anyio.create_task_group() as group:
                if len(ids) > 1:
                    group.start_soon(save)
                with anyio.move_on_after(5):  # a goal beyond all files: it dies when all is done
                    while files_in(archive, out) < goal:
                        await anyio.lowlevel.checkpoint()
                caller.kill()

        for life in range(KILLS):
            with anyio.move_on_after(20), suppress(MCPError, ExceptionGroup):
                async with spawn(sim) as caller:
                    await live_and_die(caller)
            assert len(ids) == life + 1
            assert wrong_files(archive) + wrong_files(out) == []
            ours = [path for path in archive.glob("*") if not path.name.startswith(".")]
            cut_short += len(ours) < 5 * len(ids)
        assert cut_short >= KILLS // 3

        async with spawn(sim) as caller:
            with anyio.fail_after(30 + KILLS):
                for task_id in ids:
                    result = await shown(caller, task_id)
                    assert all(image["path"] for image in task_of(result)["images"])
                    assert len((await caller.task("save_images", task_id=task_id))["files"]) == 4
        assert wrong_files(archive) + wrong_files(out) == []
        assert len(list(archive.glob("*+[1-4].png"))) == len(list(out.glob("*.png"))) == 4 * KILLS
        assert len(list(out.glob("*.json"))) == 4 * KILLS
