"""Pictures through a real client: seen on one sheet, kept before their links die, viewed, saved, read as resources.

The pictures are the simulator's, over real HTTP. A job moves when the test says so; nothing here sleeps.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import KEY, PROTOCOLS, Caller, facts_of
from mcp.shared.exceptions import MCPError
from mcp_types import BlobResourceContents, CallToolResult, ImageContent, ResourceLink, TextContent
from PIL import Image

from mj_mcp.pictures import sheet as sheets
from mj_mcp.simulator import Simulator, faults

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]

EDGE = 96
"""Pixels. Small pictures are drawn quickly; what needs large ones opens a simulator of its own."""
SHEET_BYTES, RESULT_BYTES = 200 * 1024, 900_000


def simulator(**given: Any) -> Simulator:
    return Simulator(**{"key": KEY, "job_seconds": None, "image_edge": EDGE} | given)


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with simulator() as simulated:
        yield simulated


async def finished(sim: Simulator, caller: Caller, prompt: str = "a mug", **kinds: str) -> str:
    """A grid that has just finished at the proxy; `p2="html"` makes its second picture hostile."""
    task = await caller.task("generate_image", prompt=prompt, wait_seconds=0)
    for name, kind in kinds.items():
        sim.picture(task["task_id"], int(name[1:]), kind)
    sim.finish(task["task_id"])
    return str(task["task_id"])


async def seen(caller: Caller, task_id: str, **more: Any) -> CallToolResult:
    """The task once it has succeeded, with its pictures."""
    result = await caller.call("get_task", task_id=task_id, **{"wait_seconds": 15} | more)
    assert not result.is_error, result.content
    assert task_of(result)["status"] == "succeeded"
    return result


task_of = facts_of


def sheet_of(result: CallToolResult) -> bytes:
    """The one picture of a result."""
    (block,) = [block for block in result.content if isinstance(block, ImageContent)]
    data = base64.b64decode(block.data, validate=True)
    assert Image.MIME[opened(data).format or ""] == block.mime_type
    return data


def opened(data: bytes) -> Image.Image:
    """Decoded to the last pixel."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def weight(result: CallToolResult) -> int:
    """Bytes on the wire."""
    return len(result.model_dump_json(by_alias=True, exclude_none=True).encode())


def pictures_asked(sim: Simulator) -> int:
    return sum("/pictures/" in seen.path for seen in sim.requests)


async def archived(caller: Caller, task_id: str) -> list[dict[str, Any]]:
    """The task's pictures once every one is archived, as a call tells that fetches nothing itself."""
    with anyio.fail_after(15):
        while True:
            task = await caller.task("get_task", task_id=task_id, wait_seconds=0, include_image=False)
            if task["images"] and all(image["path"] for image in task["images"]):
                found: list[dict[str, Any]] = task["images"]
                return found


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def is_file(path: str) -> bool:
    return Path(path).is_file()


def archive_of(tmp_path: Path) -> list[str]:
    folder = tmp_path / "data" / "archive"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# ------------------------------------------------------------------------------------------------ the sheet


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_finished_task_is_text_then_one_sheet_then_links_that_can_be_read(
    protocol: str, spawn: Connect
) -> None:
    linked = {"MJ_RESOURCE_LINKS": "1"}
    async with simulator(image_edge=640) as sim, spawn(sim, protocol=protocol, **linked) as caller:
        task_id = await finished(sim, caller)
        result = await seen(caller, task_id)
        assert [type(block) for block in result.content] == [TextContent, ImageContent, *[ResourceLink] * 4]
        sheet = sheet_of(result)
        assert len(sheet) <= SHEET_BYTES
        assert max(opened(sheet).size) == 768
        links = [block for block in result.content if isinstance(block, ResourceLink)]
        assert [str(link.uri) for link in links] == [f"mj://tasks/{task_id}/images/{n}" for n in (1, 2, 3, 4)]
        task = task_of(result)
        assert base64.b64encode(sheet).decode()[:100] not in json.dumps(task)
        assert weight(result) < RESULT_BYTES
        for link, image in zip(links, task["images"], strict=True):
            (content,) = (await caller.client.read_resource(str(link.uri))).contents
            assert isinstance(content, BlobResourceContents)
            assert base64.b64decode(content.blob) == read(image["path"])
            assert content.mime_type == link.mime_type == image["media_type"] == "image/png"


async def test_four_pictures_of_noise_still_make_a_small_result(connect: Connect) -> None:
    async with simulator(image_edge=1024) as sim, connect(sim) as caller:
        sim.pictures_are("noise")
        result = await seen(caller, await finished(sim, caller))
        assert len(sheet_of(result)) <= SHEET_BYTES
        assert weight(result) < RESULT_BYTES


async def test_the_call_that_bought_shows_the_sheet_when_the_job_ends_in_its_time(
    sim: Simulator, connect: Connect
) -> None:
    async with connect(sim) as caller, anyio.create_task_group() as group:

        async def finish() -> None:
            await sim.until(lambda: bool(sim.ledger))
            sim.finish(sim.ledger[0].task_id)

        group.start_soon(finish)
        result = await caller.call("generate_image", prompt="a mug", wait_seconds=15)
        assert task_of(result)["status"] == "succeeded"
        assert max(opened(sheet_of(result)).size) == 768


async def test_a_single_picture_is_shown_as_itself(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        grid = await finished(sim, caller)
        await seen(caller, grid)
        upscale = await caller.task("upscale_image", task_id=grid, index=2, wait_seconds=0)
        sim.finish(upscale["task_id"])
        result = await seen(caller, upscale["task_id"])
        assert opened(sheet_of(result)).size == (2 * EDGE, 2 * EDGE)
        assert [call["tool"] for call in task_of(result)["next"]] == ["view_image", "save_images"]


async def test_include_image_false_leaves_the_picture_out(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        result = await seen(caller, await finished(sim, caller), include_image=False)
        assert [type(block) for block in result.content] == [TextContent]


async def test_the_list_of_tasks_never_carries_pictures(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        await seen(caller, await finished(sim, caller))
        page = await caller.call("list_tasks")
        assert [type(block) for block in page.content] == [TextContent]


async def test_the_sheet_is_made_once_and_outlives_the_server_and_the_links(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        task_id = await finished(sim, caller)
        first = sheet_of(await seen(caller, task_id))
        assert sheet_of(await seen(caller, task_id)) == first
        for image in task_of(await seen(caller, task_id))["images"]:
            Path(image["path"]).unlink()  # as when room was needed
    assert pictures_asked(sim) == 4
    sim.forget(task_id)  # and with it its pictures
    async with connect(sim) as caller:
        result = await seen(caller, task_id)
        assert sheet_of(result) == first
        assert [image["path"] for image in task_of(result)["images"]] == [None] * 4
    assert pictures_asked(sim) == 4


async def test_pictures_are_shown_although_the_journal_cannot_be_written(
    sim: Simulator, connect: Connect, tmp_path: Path
) -> None:
    async with connect(sim, MJ_ARCHIVE="0") as caller:
        task_id = await finished(sim, caller)
        await seen(caller, task_id, include_image=False)
        (path,) = (tmp_path / "data").glob("journal*.db")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert max(opened(sheet_of(await seen(caller, task_id))).size) == 768
            with closing(sqlite3.connect(path, timeout=0)) as third, pytest.raises(sqlite3.OperationalError):
                third.execute("BEGIN IMMEDIATE")  # it was locked all the time
            other.execute("ROLLBACK")


# ---------------------------------------------------------------------------------------------- the archive

KINDS = {
    "png": ("image/png", "png"),
    "jpeg": ("image/jpeg", "jpg"),
    "webp": ("image/webp", "webp"),
    "gif": ("image/gif", "gif"),
}


async def test_what_a_picture_is_comes_from_its_bytes(sim: Simulator, connect: Connect) -> None:
    """Every link ends in .png, and one host says image/png of a JPEG."""
    kinds = [*KINDS.values()]
    async with connect(sim) as caller:
        pictures = dict(zip(("p1", "p2", "p3", "p4"), KINDS, strict=True))
        task = task_of(await seen(caller, await finished(sim, caller, "a mug --ar 16:9", **pictures)))
        for image, (media_type, extension) in zip(task["images"], kinds, strict=True):
            path = Path(image["path"])
            assert (image["media_type"], path.suffix) == (media_type, f".{extension}")
            assert Image.MIME[opened(path.read_bytes()).format or ""] == media_type
            assert (image["width"], image["height"]) == opened(path.read_bytes()).size == (96, 54)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            uri = f"mj://tasks/{task['task_id']}/images/{image['index']}"
            (content,) = (await caller.client.read_resource(uri)).contents
            assert content.mime_type == media_type
        task = task_of(await seen(caller, await finished(sim, caller, "a jug", p1="wrong-extension")))
        assert task["images"][0]["url"].split("?")[0].endswith(".png")
        assert task["images"][0]["media_type"] == "image/jpeg"


async def test_originals_are_archived_although_nobody_waits(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        task_id = await finished(sim, caller)
        await sim.until(lambda: pictures_asked(sim) == 4)
        images = await archived(caller, task_id)
        assert [opened(read(image["path"])).size for image in images] == [(EDGE, EDGE)] * 4
    assert pictures_asked(sim) == 4


async def test_no_picture_is_asked_for_with_the_key(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        await seen(caller, await finished(sim, caller))
    asked = [seen for seen in sim.requests if "/pictures/" in seen.path]
    assert len(asked) == 4
    assert [seen.headers for seen in asked if "authorization" in seen.headers or KEY in str(seen.headers)] == []


async def test_an_archive_that_is_off_keeps_nothing_and_fetches_when_asked(
    sim: Simulator, connect: Connect, tmp_path: Path
) -> None:
    async with connect(sim, MJ_ARCHIVE="0") as caller:
        task_id = await finished(sim, caller)
        await seen(caller, task_id, include_image=False)
        assert pictures_asked(sim) == 0
        task = task_of(await seen(caller, task_id))
        assert pictures_asked(sim) == 4
        assert [(image["path"], image["width"], image["media_type"]) for image in task["images"]] == [
            (None, EDGE, "image/png")
        ] * 4
    assert archive_of(tmp_path) == []


async def test_the_ceiling_drops_what_was_used_least_lately(connect: Connect, tmp_path: Path) -> None:
    """Room for ten pictures: when the third task comes, it is the second one's that go."""
    archive = tmp_path / "data" / "archive"
    room = 10 * 512 * 512 * 3
    async with simulator(image_edge=512) as sim, connect(sim, MJ_ARCHIVE_MAX_BYTES=str(room)) as caller:
        sim.pictures_are("noise")
        first, second = [task_of(await seen(caller, await finished(sim, caller, name))) for name in ("first", "second")]
        for index in (1, 2, 3, 4):
            await caller.call("view_image", task_id=first["task_id"], index=index)  # used again
        third = task_of(await seen(caller, await finished(sim, caller, "third")))
        kept = {}
        for task_id in (first["task_id"], second["task_id"], third["task_id"]):
            task = task_of(await seen(caller, task_id, include_image=False))
            kept[task_id] = [image["path"] for image in task["images"]]
        assert kept[first["task_id"]] == [image["path"] for image in first["images"]]
        assert kept[third["task_id"]] == [image["path"] for image in third["images"]]
        assert None in kept[second["task_id"]]
        for path, image in zip(kept[second["task_id"]], second["images"], strict=True):
            assert is_file(image["path"]) is (path is not None)
        assert sum(path.stat().st_size for path in archive.iterdir()) <= room


class Clock:
    """The simulator's time."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_an_expired_link_is_fetched_anew_once(connect: Connect) -> None:
    clock = Clock()
    async with (
        simulator(link_seconds=60, now=clock) as sim,
        connect(sim, MJ_ARCHIVE="0") as caller,
    ):
        task_id = await finished(sim, caller)
        await seen(caller, task_id, include_image=False)
        clock.now += 61
        before = len(sim.polls())
        result = await seen(caller, task_id)
        assert max(opened(sheet_of(result)).size) == 768
        assert task_of(result)["warnings"] == []
        assert (pictures_asked(sim), len(sim.polls()) - before) == (8, 1)  # four expired, one poll, four fresh


async def test_an_expired_link_that_has_no_successor_is_said_to_be_expired(connect: Connect) -> None:
    clock = Clock()
    async with (
        simulator(link_seconds=60, now=clock) as sim,
        connect(sim, MJ_ARCHIVE="0") as caller,
    ):
        task_id = await finished(sim, caller)
        await seen(caller, task_id, include_image=False)
        sim.forget(task_id)
        clock.now += 61
        result = await seen(caller, task_id)
        assert [type(block) for block in result.content] == [TextContent]
        assert len([text for text in task_of(result)["warnings"] if "expired" in text]) == 4
        error = await caller.error("view_image", task_id=task_id, index=1)
        assert error["code"] == "image_unavailable"
        assert "expired" in error["message"]


@pytest.mark.slow
async def test_a_server_killed_before_it_archived_catches_up_at_the_next_start(
    spawn: Connect, tmp_path: Path, sim: Simulator
) -> None:
    sim.inject("picture", faults.hang(), times=4)
    with anyio.move_on_after(20):  # the client of a killed server ends as it can
        async with spawn(sim) as caller:
            task_id = await finished(sim, caller)
            await seen(caller, task_id, include_image=False)
            await sim.until(lambda: sim.fired["hang"] == 4)
            caller.kill()
    assert sim.fired["hang"] == 4
    assert [name for name in archive_of(tmp_path) if not name.startswith(".")] == []
    async with spawn(sim) as caller:
        images = await archived(caller, task_id)
        assert [opened(read(image["path"])).size for image in images] == [(EDGE, EDGE)] * 4


async def test_an_archived_file_that_was_damaged_or_taken_away_is_fetched_anew(
    sim: Simulator, connect: Connect
) -> None:
    async with connect(sim) as caller:
        task_id = await finished(sim, caller)
        task = task_of(await seen(caller, task_id))
        damaged, gone = (Path(task["images"][n]["path"]) for n in (0, 1))
        was = damaged.read_bytes()
        damaged.write_bytes(was[: len(was) // 2])
        gone.unlink()
        with anyio.fail_after(15):
            while task_of(await seen(caller, task_id))["images"][1].get("path"):
                pass  # which files are gone is remembered for two seconds
        for index in (1, 2):
            await caller.call("view_image", task_id=task_id, index=index)
        assert damaged.read_bytes() == was
        assert gone.exists()
    assert pictures_asked(sim) == 6


# ---------------------------------------------------------------------------------------------- one picture


async def test_one_picture_is_shown_large_enough_to_judge(connect: Connect) -> None:
    async with simulator(image_edge=1200) as sim, connect(sim) as caller:
        task_id = await finished(sim, caller, "a mug --ar 3:2")
        for arguments, size in (({}, (1024, 683)), ({"max_edge": 256}, (256, 171)), ({"max_edge": 2048}, (1200, 800))):
            await seen(caller, task_id)
            result = await caller.call("view_image", task_id=task_id, index=3, **arguments)
            assert [type(block) for block in result.content] == [TextContent, ImageContent]
            assert opened(sheet_of(result)).size == size
            assert result.structured_content is None
            assert f"Picture 3 of task {task_id}, {size[0]}x{size[1]}." in str(result.content[0])


@pytest.mark.slow
async def test_a_large_view_of_noise_keeps_to_its_bytes(connect: Connect) -> None:
    async with simulator(image_edge=1024) as sim, connect(sim) as caller:
        grid = await finished(sim, caller)
        await seen(caller, grid)
        sim.pictures_are("noise")
        upscale = await caller.task("upscale_image", task_id=grid, index=1, wait_seconds=0)
        sim.finish(upscale["task_id"])
        await seen(caller, upscale["task_id"])
        result = await caller.call("view_image", task_id=upscale["task_id"], index=1, max_edge=2048)
        assert len(sheet_of(result)) <= sheets.VIEW_BYTES <= 700 * 1024
        assert sheets.VIEW_BYTES * 4 / 3 + 2_000 < RESULT_BYTES  # whatever the picture is
        assert weight(result) < RESULT_BYTES


@pytest.mark.parametrize("max_edge", [255, 2049, True, 0.5])
async def test_a_view_has_bounds(max_edge: object, sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        error = await caller.error("view_image", task_id="1", index=1, max_edge=max_edge)
        assert error["code"] == "invalid_request"
        assert "max_edge" in error["message"]
    assert sim.requests == []


@pytest.mark.parametrize(("tool", "index"), [("view_image", {"index": 5}), ("save_images", {"indexes": [1, 5]})])
async def test_a_picture_that_is_not_there_is_refused(
    tool: str, index: dict[str, Any], sim: Simulator, connect: Connect, tmp_path: Path
) -> None:
    async with connect(sim) as caller:
        task_id = await finished(sim, caller)
        await seen(caller, task_id)
        error = await caller.error(tool, task_id=task_id, **index)
        assert error["code"] == "invalid_request"
        assert "1, 2, 3, 4" in error["message"]
        assert "submitted" not in error["next_step"]
    assert not (tmp_path / "pictures").exists()


@pytest.mark.parametrize(("tool", "index"), [("view_image", {"index": 1}), ("save_images", {})])
async def test_an_open_task_has_no_pictures_yet_and_an_unknown_one_none(
    tool: str, index: dict[str, Any], sim: Simulator, connect: Connect
) -> None:
    async with connect(sim) as caller:
        task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        error = await caller.error(tool, task_id=task["task_id"], **index)
        assert (error["code"], error["next_step"]) == (
            "not_ready",
            "Wait with get_task until the task has succeeded, then call again.",
        )
        assert (await caller.error(tool, task_id="nobodys", **index))["code"] == "task_not_found"
        sim.fail(task["task_id"])
        await caller.task("get_task", task_id=task["task_id"], wait_seconds=10)
        error = await caller.error(tool, task_id=task["task_id"], **index)
        assert error["code"] == "invalid_request"
        assert "no pictures" in error["message"]


async def test_the_id_of_the_submission_leads_to_the_pictures_too(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        task = task_of(await seen(caller, await finished(sim, caller)))
        view = await caller.call("view_image", task_id=task["submission_id"], index=1)
        assert f"Picture 1 of task {task['task_id']}" in str(view.content[0])
        saved = await caller.task("save_images", task_id=task["submission_id"], indexes=[1])
        assert Path(saved["files"][0]["path"]).name == f"{task['task_id']}-1.png"


@pytest.mark.parametrize("uri", ["mj://tasks/{}/images/5", "mj://tasks/{}/images/x", "mj://tasks/nobodys/images/1"])
async def test_a_resource_that_is_not_there_is_not_found(uri: str, sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        task_id = await finished(sim, caller)
        await seen(caller, task_id)
        with pytest.raises(MCPError) as failure:
            await caller.client.read_resource(uri.format(task_id))
        assert failure.value.error.code == -32602


# --------------------------------------------------------------------------------------------------- saving


async def test_originals_are_saved_whole_with_what_leads_back_to_their_task(
    sim: Simulator, connect: Connect, tmp_path: Path
) -> None:
    async with connect(sim) as caller:
        grid = task_of(await seen(caller, await finished(sim, caller, "a mug")))
        varied = await caller.task("vary_image", task_id=grid["task_id"], index=3, wait_seconds=0)
        sim.finish(varied["task_id"])
        task = task_of(await seen(caller, varied["task_id"]))
        saved = await caller.task("save_images", task_id=task["task_id"])
        assert saved["task_id"] == task["task_id"]
        for file, image in zip(saved["files"], task["images"], strict=True):
            path = Path(file["path"])
            data = path.read_bytes()
            assert data == read(image["path"])
            assert path == tmp_path / "pictures" / f"{task['task_id']}-{image['index']}.png"
            assert file == {
                "index": image["index"],
                "path": str(path),
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "media_type": "image/png",
            }
            story = json.loads(path.with_name(path.name + ".json").read_text())
            assert story | {"url_host": None} == {
                "task_id": task["task_id"],
                "index": image["index"],
                "kind": "variation",
                "parent_id": grid["task_id"],
                "prompt": "a mug",
                "url_host": None,
                "media_type": "image/png",
                "bytes": len(data),
                "sha256": file["sha256"],
            }


async def test_some_pictures_can_be_saved_into_a_folder_inside(
    sim: Simulator, connect: Connect, tmp_path: Path
) -> None:
    async with connect(sim) as caller:
        task_id = await finished(sim, caller)
        await seen(caller, task_id)
        saved = await caller.task("save_images", task_id=task_id, indexes=[4, 2, 4], folder="mugs/blue")
        assert [file["path"] for file in saved["files"]] == [
            str(tmp_path / "pictures" / "mugs" / "blue" / f"{task_id}-{index}.png") for index in (4, 2)
        ]


async def test_saving_twice_writes_once_and_never_over_a_different_file(
    sim: Simulator, connect: Connect, tmp_path: Path
) -> None:
    async with connect(sim) as caller:
        task_id = await finished(sim, caller)
        await seen(caller, task_id)
        taken = tmp_path / "pictures" / f"{task_id}-1.png"
        taken.parent.mkdir()
        taken.write_bytes(b"a person's own file")
        first = await caller.task("save_images", task_id=task_id)
        names = sorted(path.name for path in taken.parent.iterdir())
        assert await caller.task("save_images", task_id=task_id) == first
        assert sorted(path.name for path in taken.parent.iterdir()) == names
        assert taken.read_bytes() == b"a person's own file"
        assert Path(first["files"][0]["path"]).name == f"{task_id}-1-2.png"


@pytest.mark.parametrize("folder", ["..", "a/../..", "/tmp/elsewhere", "~", "out", "out/deeper", "a\\b", ".hidden"])
async def test_nothing_is_saved_outside_the_output_folder(
    folder: str, sim: Simulator, connect: Connect, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "out").symlink_to(outside)
    before = sorted(tmp_path.glob("*"))
    async with connect(sim) as caller:
        task_id = await finished(sim, caller)
        await seen(caller, task_id)
        error = await caller.error("save_images", task_id=task_id, folder=folder)
        assert error["code"] == "invalid_request"
        assert "folder" in error["message"]
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["out"]
    assert list(outside.iterdir()) == []
    assert sorted(tmp_path.glob("*")) == sorted([*before, tmp_path / "data"])


async def test_pictures_come_only_from_the_hosts_that_a_person_names(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, MJ_IMAGE_HOSTS="cdn.example.com, *.example.org") as caller:
        result = await seen(caller, await finished(sim, caller, p2="private"))
        (warning,) = task_of(result)["warnings"]
        assert warning == "picture 2: the picture's host 10.0.0.1 is not among the hosts that are allowed"
        assert [image["path"] is None for image in task_of(result)["images"]] == [False, True, False, False]
