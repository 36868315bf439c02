"""Files and parts of grids as image prompts: what is sent, what the row keeps, and which files are never read."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from conftest import IMAGE_EDGE, KEY, PROTOCOLS, Caller
from galleries import png
from lives import rows

from mj_mcp.app import open_studio
from mj_mcp.errors import InvalidRequest, NotReady
from mj_mcp.prompts import Options
from mj_mcp.settings import Settings
from mj_mcp.simulator import Simulator, faults
from mj_mcp.studio import Call
from mj_mcp.studio.references import KEY_CHARACTERS, MAX_UPLOAD_BYTES, MAX_UPLOADS
from mj_mcp.tasks import LOCAL_OWNER

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]

AUTO = {"MJ_PROXY_DIALECT": "auto"}
HUGE = MAX_UPLOAD_BYTES + 1


def proxy(dialect: Any = "plus", **habits: Any) -> Simulator:
    return Simulator(dialect=dialect, key=KEY, job_seconds=None, image_edge=IMAGE_EDGE, **habits)


def data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def sent(sim: Simulator) -> list[dict[str, Any]]:
    """The body of every submit, without our mark."""
    return [{name: value for name, value in seen.json.items() if name != "state"} for seen in sim.submits()]


async def grid(sim: Simulator, caller: Caller) -> str:
    """The id of a grid that has succeeded."""
    begun = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
    sim.finish(begun["task_id"])
    await caller.task("get_task", task_id=begun["task_id"], wait_seconds=20)
    return str(begun["task_id"])


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """The input folder, with one picture."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "cat.png").write_bytes(png())
    return folder


# --- what is sent


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_file_is_uploaded_and_the_row_has_its_digest(
    protocol: str, spawn: Connect, inputs: Path, tmp_path: Path
) -> None:
    async with proxy() as sim, spawn(sim, protocol=protocol, MJ_INPUT_DIR=str(inputs), **AUTO) as caller:
        made = await caller.task("generate_image", prompt="in a hat", image_urls=["cat.png"], wait_seconds=0)
        assert sent(sim) == [{"prompt": "in a hat", "base64Array": [data_url(png())]}]
        name, _, words = made["prompt"].partition(" ")
        assert (name.startswith("upload:"), len(name), words) == (True, len("upload:") + KEY_CHARACTERS, "in a hat")
        (inputs / "other name.png").write_bytes(png())
        same = await caller.task(
            "generate_image", prompt="in a hat", image_urls=[str(inputs / "other name.png")], wait_seconds=0
        )
        assert same["duplicate_of"] == made["submission_id"]
        (inputs / "cat.png").write_bytes(png(shade=91))
        other = await caller.task("generate_image", prompt="in a hat", image_urls=["cat.png"], wait_seconds=0)
        assert (other["duplicate_of"], len(sim.submits())) == (None, 2)
    assert all(len(str(row)) < 2000 and str(inputs) not in str(row) for row in rows(tmp_path))


@pytest.mark.parametrize("dialect", ["classic", "plus", "newapi"])
async def test_a_saved_picture_and_a_url_go_together_in_the_order_given(
    dialect: str, connect: Connect, tmp_path: Path
) -> None:
    async with proxy(dialect) as sim, connect(sim, **AUTO) as caller:
        saved = await caller.call("save_images", task_id=await grid(sim, caller), indexes=[2], name="mine")
        (path,) = (tmp_path / "pictures").glob("mine-2.png")
        assert not saved.is_error
        (tmp_path / "pictures" / "b.png").write_bytes(png(1))
        images = [str(path), "https://example.org/a.png", "b.png"]
        await caller.task("generate_image", prompt="both", image_urls=images, image_weight=2, wait_seconds=0)
        assert sent(sim)[-1] == {
            "prompt": "https://example.org/a.png both --iw 2",
            "base64Array": [data_url(path.read_bytes()), data_url(png(1))],
        }


async def test_the_part_of_a_grid_is_uploaded_and_its_name_stays_its_own(connect: Connect) -> None:
    async with proxy() as sim, connect(sim, **AUTO) as caller:
        task_id = await grid(sim, caller)
        again = {"prompt": "moodier", "wait_seconds": 0}
        made = await caller.task("generate_image", image_urls=[f"{task_id}#2"], **again)
        body = sent(sim)[-1]
        assert (body["prompt"], made["prompt"]) == ("moodier", f"{task_id}#2 moodier")
        (upload,) = body["base64Array"]
        assert upload.startswith("data:image/png;base64,")
        same = await caller.task("generate_image", image_urls=[f"mj://tasks/{task_id}/images/2"], **again)
        assert same["duplicate_of"] == made["submission_id"]
        error = await caller.error("generate_image", style_reference=f"{task_id}#2", **again)
        assert (error["code"], "upscale it first" in error["message"]) == ("image_unavailable", True)
        assert len(sim.submits()) == 2


async def test_a_picture_whose_own_link_fails_is_uploaded_from_the_grid(connect: Connect) -> None:
    async with proxy(four_links=True) as sim, connect(sim, **AUTO) as caller:
        task_id = await grid(sim, caller)
        await caller.task("generate_image", prompt="linked", image_urls=[f"{task_id}#2"], wait_seconds=0)
        assert (sent(sim)[-1]["prompt"].startswith("http://"), "base64Array" in sent(sim)[-1]) == (True, False)
        sim.inject("picture", faults.status(403))
        await caller.task("generate_image", prompt="uploaded", image_urls=[f"{task_id}#2"], wait_seconds=0)
        assert (sent(sim)[-1]["prompt"], len(sent(sim)[-1]["base64Array"])) == ("uploaded", 1)
        assert sim.fired["status_403"] == 1


async def test_a_proxy_that_takes_no_uploads_says_so_and_is_sent_nothing(
    sim: Simulator, connect: Connect, inputs: Path
) -> None:
    async with connect(sim, MJ_INPUT_DIR=str(inputs)) as caller:
        error = await caller.error("generate_image", prompt="in a hat", image_urls=["cat.png"])
        assert (error["code"], error["message"]) == (
            "unsupported",
            "this proxy takes no uploaded pictures; it can fetch a public URL",
        )
    assert sim.submits() == []


# --- what is never read


@pytest.fixture
def traps(inputs: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Names that must not be uploaded."""
    (tmp_path / "secret.png").write_bytes(png())
    (inputs / "out.png").symlink_to(tmp_path / "secret.png")
    (inputs / "up").symlink_to(tmp_path)
    (inputs / "loop.png").symlink_to(inputs / "loop.png")
    (inputs / "dangling.png").symlink_to(inputs / "nothing.png")
    (inputs / "folder.png").mkdir()
    (inputs / "text.png").write_text("no picture")
    (inputs / "empty.png").write_bytes(b"")
    (inputs / "cut.png").write_bytes(png(edge=64)[:-20])
    (inputs / "huge.png").write_bytes(png())
    os.truncate(inputs / "huge.png", HUGE)
    os.mkfifo(inputs / "fifo.png")
    os.mkfifo(inputs / "filled.png")
    pipe = os.open(inputs / "filled.png", os.O_RDWR)  # it has a whole picture, and a writer that never ends it
    os.write(pipe, png())
    (inputs / "closed.png").write_bytes(png() if os.geteuid() else b"root reads everything")
    (inputs / "closed.png").chmod(0)
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(inputs, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/s.png")  # a socket's own path may not be long
        yield {
            "parent": "../secret.png",
            "absolute": str(tmp_path / "secret.png"),
            "absolute_parent": f"{inputs}/../secret.png",
            "link": "out.png",
            "folder_link": "up/secret.png",
            "loop": "loop.png",
            "dangling": "dangling.png",
            "missing": "nothing.png",
            "folder": "folder.png",
            "the_folder_itself": str(inputs),
            "dot": ".",
            "text": "text.png",
            "empty": "empty.png",
            "cut": "cut.png",
            "huge": "huge.png",
            "fifo": "fifo.png",
            "filled_fifo": "filled.png",
            "closed": "closed.png",
            "socket": "s.png",
            "device": "/dev/zero",
            "terminal": "/dev/tty",
            "descriptor": "/dev/fd/0",
            "process": "/proc/self/environ",
            "windows_device": "NUL",
            "windows_path": "C:\\in\\cat.png",
            "home": "~/secret.png",
            "nobody": "~nobody-here/secret.png",
            "long": "a" * 300 + ".png",
            "deep": "a/" * 2000 + "a.png",
            "url": "file:///etc/passwd",
            "zero": "cat.png\0.txt",
            "line": "cat.png\n",
            "data": "data:image/png;base64,iVBORw0KGgo=",
        }
        os.close(here)
        os.close(pipe)


async def test_what_is_no_picture_in_the_folders_is_refused_by_name_before_any_money(
    traps: dict[str, str], inputs: Path, connect: Connect
) -> None:
    async with proxy() as sim, connect(sim, MJ_INPUT_DIR=str(inputs), **AUTO) as caller:
        said = {}
        for trap, name in traps.items():
            error = await caller.error("generate_image", prompt="a hat", image_urls=["cat.png", name])
            assert (trap, error["code"]) == (trap, "invalid_request")
            assert error["message"].startswith("`image_urls` must be ")
            said[trap] = error["message"].partition(" (got ")[0]
        assert sim.submits() == []
    # A file outside is as one that does not exist: nobody can find out what there is.
    outside = ("parent", "absolute", "absolute_parent", "link", "folder_link", "device", "process")
    assert {said[trap] for trap in outside} == {said["missing"]}
    assert str(inputs) in said["missing"]
    unusable = ("folder", "text", "empty", "cut", "huge", "fifo", "filled_fifo", "closed", "socket", "dot")
    assert {said[trap] for trap in unusable} == {
        "`image_urls` must be a PNG, JPEG, WebP or GIF file that is whole, can be read, and has at most 10 MiB"
    }


async def test_all_problems_of_the_prompt_and_its_files_are_said_at_once(connect: Connect, inputs: Path) -> None:
    (inputs / "text.png").write_text("no picture")
    async with proxy() as sim, connect(sim, MJ_INPUT_DIR=str(inputs), **AUTO) as caller:
        error = await caller.error(
            "generate_image", prompt="x --zzz 1", stylize=2000, image_urls=["text.png", "none.png"], version="9"
        )
        alone = await caller.error("generate_image", prompt="x --zzz 1", image_urls=["text.png", "none.png", "cat.png"])
    assert error["code"] == "invalid_request"
    for word in ("`stylize`", "`version`", "`--zzz`"):
        assert word in error["message"]
    for word in ("`--zzz`", '(got "text.png")', '(got "none.png")'):
        assert word in alone["message"]
    assert sim.submits() == []


async def test_a_submit_takes_five_pictures_and_twenty_mebibytes(connect: Connect, inputs: Path) -> None:
    names = [f"{number}.png" for number in range(MAX_UPLOADS + 1)]
    for number, name in enumerate(names):
        (inputs / name).write_bytes(png(number).ljust(4_700_000, b"\0") if number else png())
    async with proxy() as sim, connect(sim, MJ_INPUT_DIR=str(inputs), **AUTO) as caller:
        for images in (names, names[1:]):
            error = await caller.error("generate_image", prompt="x", image_urls=images)
            assert error["message"].startswith("`image_urls` must be at most 5 pictures to upload, with at most 20 MiB")
        assert sim.submits() == []
        await caller.task("generate_image", prompt="x", image_urls=names[:MAX_UPLOADS], wait_seconds=0)
        assert len(sent(sim)[-1]["base64Array"]) == MAX_UPLOADS


async def test_a_picture_that_is_not_finished_is_not_ready(connect: Connect) -> None:
    async with proxy() as sim, connect(sim, **AUTO) as caller:
        begun = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        error = await caller.error("generate_image", prompt="x", image_urls=[f"{begun['task_id']}#1"])
        assert (error["code"], len(sim.submits())) == (NotReady.code, 1)


# --- who may use files


async def test_a_caller_who_logs_in_has_the_input_folder_only(
    settings_for: Callable[..., Settings], inputs: Path, tmp_path: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "saved.png").write_bytes(png(2))
    async with proxy() as sim:

        async def imagine(owner: str, name: str, *, shared: str) -> str:
            async with open_studio(settings_for(sim.url, MJ_INPUT_DIR=shared, **AUTO)) as studio:
                try:
                    await studio.imagine(Call(owner=owner), "x", Options(image_urls=(name,)))
                except InvalidRequest as refusal:
                    return refusal.message
            return "sent"

        saved = str(tmp_path / "pictures" / "saved.png")
        assert await imagine("token:ann", "cat.png", shared=str(inputs)) == "sent"
        for name in ("saved.png", saved):
            said = await imagine("token:ann", name, shared=str(inputs))
            assert "or the name of a file in this server's input folder (got " in said
            said = await imagine("token:ann", name, shared="")
            assert "must be an http:// or https:// URL, a picture of a task (`TASK_ID#1`) (got " in said
        assert await imagine(LOCAL_OWNER, saved, shared="") == "sent"
        assert len(sim.submits()) == 2
