"""Originals of whole servers in a bucket: found by others, sent at last, and never waited for.

The bucket is a real S3 server over loopback; the pictures are the simulator's.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from archives import PATIENCE, finished, png, unsent
from buckets import SECRET, BucketServer, aws, scripted_server, silent
from conftest import KEY, LOAD_SECONDS, Caller
from lives import live, until
from structlog.testing import capture_logs

from mj_mcp.app import Timings
from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(key=KEY, job_seconds=None, image_edge=96) as simulated:
        yield simulated


def pictures_asked(sim: Simulator) -> int:
    return sum("/pictures/" in seen.path for seen in sim.requests)


def has_sheet(result: Any) -> bool:
    return any(block.type == "image" for block in result.content)


@pytest.fixture
def replica(
    connect: Connect, tmp_path: Path, database_url: str, bucket_server: BucketServer
) -> Callable[..., AbstractAsyncContextManager[Caller]]:
    """`replica(sim, "a", MJ_ARCHIVE_URL=...)`: a server with a data folder of its own on the journal of all."""

    def start(sim: Simulator, name: str, **extra: Any) -> AbstractAsyncContextManager[Caller]:
        own = {"MJ_DATA_DIR": str(tmp_path / name), "MJ_DATABASE_URL": database_url}
        return connect(sim, **{**bucket_server.environment(), **own, **extra})

    return start


@pytest.mark.parametrize("kind", ["folder", "bucket"])
async def test_a_picture_that_one_replica_archived_another_serves_after_its_link_died(
    kind: str, replica: Connect, tmp_path: Path, bucket_server: BucketServer
) -> None:
    bucket = bucket_server.new()
    url = f"s3://{bucket}/mj" if kind == "bucket" else (tmp_path / "shared").as_uri()
    clock = Clock()
    async with (
        Simulator(key=KEY, job_seconds=None, image_edge=96, link_seconds=60, now=clock) as sim,
        replica(sim, "a", MJ_ARCHIVE_URL=url) as ours,
    ):
        task = await finished(sim, ours)
        whole = {image["index"]: Path(image["path"]).read_bytes() for image in task["images"]}
        if kind == "bucket":
            await until(lambda: len(bucket_server.objects(bucket)) == 5)
            assert {image["path"] for image in task["images"]} == {
                str(path) for path in (tmp_path / "a" / "archive").glob("*+[1-4].png")
            }
        clock.now += 61
        sim.forget(task["task_id"])
        asked = pictures_asked(sim)
        async with httpx.AsyncClient() as stranger:
            assert (await stranger.get(task["images"][0]["url"])).status_code == 410, "the links are dead"
        async with replica(sim, "b", MJ_ARCHIVE_URL=url) as theirs:
            seen = await theirs.call("get_task", task_id=task["task_id"], wait_seconds=15)
            assert has_sheet(seen)
            saved = await theirs.task("save_images", task_id=task["task_id"])
            assert {file["index"]: Path(file["path"]).read_bytes() for file in saved["files"]} == whole
            again = await theirs.task("get_task", task_id=task["task_id"], wait_seconds=0)
            assert again["warnings"] == []
        assert pictures_asked(sim) == asked + 1, "nobody but this test asked for a dead link"


async def test_a_call_is_answered_in_time_while_the_bucket_is_away_and_the_pictures_arrive_when_it_is_back(
    replica: Connect, tmp_path: Path, bucket_server: BucketServer, sim: Simulator
) -> None:
    bucket = bucket_server.new()
    folder = tmp_path / "a" / "archive"
    with capture_logs() as logs:
        async with replica(sim, "a", timings=Timings(upload_again=0.1), MJ_ARCHIVE_URL=f"s3://{bucket}/mj") as ours:
            with bucket_server.away():
                task = await finished(sim, ours)
                assert all(Path(image["path"]).is_file() for image in task["images"])
                assert has_sheet(await ours.call("get_task", task_id=task["task_id"], wait_seconds=15))
                began = time.monotonic()
                await ours.task("save_images", task_id=task["task_id"])
                assert time.monotonic() - began < LOAD_SECONDS
                await until(lambda: [line for line in logs if line["event"] == "bucket_unavailable"])
                assert len(unsent(folder)) == 5
            await until(lambda: unsent(folder) == [])
    whole = {f"mj/{path.stem}": path.read_bytes() for path in folder.glob("*+*")}
    assert len(whole) == 5
    assert bucket_server.objects(bucket) == whole
    said = str(logs)
    assert "it does not answer; check AWS_ENDPOINT_URL" in said
    assert SECRET not in said


async def test_a_bucket_that_hangs_delays_one_call_a_little_and_the_link_is_taken(
    replica: Connect, bucket_server: BucketServer, sim: Simulator
) -> None:
    """It holds the task's pictures, as the journal knows; the replica that is asked has none of them."""
    url, hasty = f"s3://{bucket_server.new()}", Timings(bucket_read=0.5, bucket_write=0.5)
    async with AsyncExitStack() as stack:
        silence = await stack.enter_async_context(scripted_server(silent))
        ours = await stack.enter_async_context(replica(sim, "a", MJ_ARCHIVE_URL=url))
        task = await finished(sim, ours)
        theirs = await stack.enter_async_context(
            replica(sim, "b", timings=hasty, MJ_ARCHIVE_URL=url, **aws(silence.url))
        )
        asked = pictures_asked(sim)
        for index in (1, 2):
            began = time.monotonic()
            await theirs.call("view_image", task_id=task["task_id"], index=index)
            assert time.monotonic() - began < LOAD_SECONDS
            reads = [line for line in silence.asked if line.startswith("GET ")]
            assert len(reads) == 1, "once is enough to know"
        assert pictures_asked(sim) == asked + 2


async def test_a_new_picture_does_not_wait_for_the_bucket(
    connect: Connect, bucket_server: BucketServer, sim: Simulator
) -> None:
    async with scripted_server(silent) as silence:
        bucket = {"MJ_ARCHIVE_URL": f"s3://{bucket_server.new()}", **aws(silence.url)}
        with anyio.fail_after(PATIENCE):
            async with connect(sim, **bucket) as caller:
                task = await finished(sim, caller)
                assert all(image["path"] for image in task["images"])
                await silence.heard.wait()
                assert {line.split()[0] for line in silence.asked} == {"PUT"}


async def test_a_damaged_object_is_fetched_anew_and_mended(
    replica: Connect, bucket_server: BucketServer, sim: Simulator
) -> None:
    bucket = bucket_server.new()
    url = f"s3://{bucket}"
    async with replica(sim, "a", MJ_ARCHIVE_URL=url) as ours, replica(sim, "b", MJ_ARCHIVE_URL=url) as theirs:
        task = await finished(sim, ours)
        await until(lambda: len(bucket_server.objects(bucket)) == 5)
        whole = bucket_server.objects(bucket)
        names = sorted(name for name in whole if not name.endswith("+sheet"))
        bucket_server.write(bucket, names[0], whole[names[0]][:200])
        bucket_server.write(bucket, names[1], b"<svg onload=alert(1)>")
        bucket_server.write(bucket, names[2], b"")
        asked = pictures_asked(sim)
        for index in (1, 2, 3, 4):
            await theirs.call("view_image", task_id=task["task_id"], index=index)
        assert pictures_asked(sim) == asked + 3
        await until(lambda: bucket_server.objects(bucket) == whole)


async def test_a_picture_that_the_journal_does_not_know_is_found_when_its_link_is_dead(
    replica: Connect, bucket_server: BucketServer, tmp_path: Path
) -> None:
    bucket = bucket_server.new()
    clock = Clock()
    async with Simulator(key=KEY, job_seconds=None, image_edge=96, link_seconds=60, now=clock) as sim:
        async with replica(sim, "a", MJ_ARCHIVE="0") as ours:
            task = await finished(sim, ours)
            sid = task["submission_id"]
            for image in task["images"]:
                assert image["path"] is None
            bucket_server.write(bucket, f"{sid}+1", png(7))
        clock.now += 61
        sim.forget(task["task_id"])
        async with replica(sim, "b", MJ_ARCHIVE="1", MJ_ARCHIVE_URL=f"s3://{bucket}") as theirs:
            saved = await theirs.task("save_images", task_id=task["task_id"], indexes=[1])
            assert Path(saved["files"][0]["path"]).read_bytes() == png(7)
            error = await theirs.error("save_images", task_id=task["task_id"], indexes=[2])
            assert error["code"] == "image_unavailable"


async def test_a_server_killed_before_the_bucket_had_it_sends_it_after_the_next_start(
    bucket_server: BucketServer, sim: Simulator, tmp_path: Path
) -> None:
    bucket = bucket_server.new()
    url = f"s3://{bucket}"
    folder = tmp_path / "data" / "archive"
    async with scripted_server(silent) as silence:
        with anyio.move_on_after(PATIENCE):  # the client of a killed server ends as it can
            async with live(sim, tmp_path, MJ_ARCHIVE_URL=url, **aws(silence.url)) as life:
                await finished(sim, life)
                with anyio.fail_after(PATIENCE):
                    await silence.heard.wait()
                await until(lambda: len(unsent(folder)) == 5)
                life.kill()
    owed = {path.stem: path.read_bytes() for path in (folder / "unsent").glob("*+*")}
    assert len(owed) == 5
    assert bucket_server.objects(bucket) == {}
    async with live(sim, tmp_path, MJ_ARCHIVE_URL=url, **bucket_server.environment()):
        await until(lambda: unsent(folder) == [])
    assert bucket_server.objects(bucket) == owed
