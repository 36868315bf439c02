"""Originals in a folder of replicas or in a bucket: kept, found by others, sent at last, and never waited for.

The bucket is a real S3 server over loopback; the pictures are the simulator's.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from buckets import KEY_ID, SECRET, BucketServer, aws, refusing, scripted_server, silent
from conftest import KEY, LOAD_SECONDS, Caller, environment
from lives import live
from PIL import Image
from structlog.testing import capture_logs

from mj_mcp.app import Timings
from mj_mcp.archive.bucket import Bucket, BucketUnavailable, open_bucket
from mj_mcp.archive.folder import SHEET, What
from mj_mcp.archive.store import RETRY_SECONDS, Store
from mj_mcp.background import Background
from mj_mcp.errors import ImageUnavailable
from mj_mcp.pictures import MAX_BYTES, SHEET_BYTES, PictureWorkers
from mj_mcp.settings import SettingsError, read_settings
from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]
PATIENCE = 20.0
ROOM = 10**8


def png(shade: int, edge: int = 16) -> bytes:
    data = io.BytesIO()
    Image.new("L", (edge, edge), shade).save(data, "PNG")
    return data.getvalue()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another process or task does."""
    with anyio.fail_after(PATIENCE):
        while not await anyio.to_thread.run_sync(condition):  # noqa: ASYNC110 - there is no event to wait for
            await anyio.sleep(0.02)


@pytest.fixture
def place(bucket_server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty bucket, which this process can open too."""
    for name, value in bucket_server.environment().items():
        monkeypatch.setenv(name, value)
    return bucket_server.new()


@asynccontextmanager
async def store(
    folder: Path, bucket: Bucket | None = None, room: int = ROOM, retry_seconds: float = RETRY_SECONDS
) -> AsyncIterator[Store]:
    async with (
        PictureWorkers() as workers,
        Store(folder, room, workers=workers, bucket=bucket, retry_seconds=retry_seconds) as opened,
        Background() as background,
    ):
        if bucket is not None:
            background.start("archive", opened.send)
        yield opened


def at(place: str, **seconds: float) -> Bucket:
    return open_bucket(f"s3://{place}/some/where", over_http=True, **seconds)


def unsent(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "unsent").glob("*+*"))


# ----------------------------------------------------------------------------------- one contract, both places


@pytest.fixture(params=["folder", "bucket"])
def opened(
    request: pytest.FixtureRequest, tmp_path: Path, bucket_server: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], AbstractAsyncContextManager[Store]]:
    """`opened("a")`: the store of replica a. All share a folder, or have one each and share a bucket."""
    if request.param == "folder":
        return lambda _replica: store(tmp_path / "shared")
    for name, value in bucket_server.environment().items():
        monkeypatch.setenv(name, value)
    place = bucket_server.new()
    return lambda replica: store(tmp_path / replica, at(place))


Opened = Callable[[str], AbstractAsyncContextManager[Store]]


async def test_what_one_replica_keeps_another_finds(opened: Opened) -> None:
    """The first one has left: a stop sends what is owed."""
    async with opened("a") as ours:
        assert await ours.get("sub", 1) is None
        path = await ours.put("sub", 1, png(1), "png")
        assert path.read_bytes() == png(1)
        await ours.put("sub", SHEET, png(2), "png")
    async with opened("b") as theirs:
        kept: list[tuple[What, bytes]] = [(1, png(1)), (SHEET, png(2))]
        for what, data in kept:
            found = await theirs.get("sub", what)
            assert found is not None
            assert found.data == data
            assert found.path is not None
            assert found.path.read_bytes() == data
            assert (found.info.media_type, found.info.width) == ("image/png", 16)
        assert await theirs.get("sub", 2) is None
        assert await theirs.get("su", 1) is None


async def test_a_later_picture_replaces_an_earlier_one_of_its_place(opened: Opened) -> None:
    gif = io.BytesIO()
    Image.new("L", (8, 8)).save(gif, "GIF")
    for data, extension in ((png(1), "png"), (gif.getvalue(), "gif")):
        async with opened("a") as ours:
            await ours.put("sub", 1, data, extension)
    async with opened("b") as theirs:
        found = await theirs.get("sub", 1)
        assert found is not None
        assert found.info.media_type == "image/gif"


async def test_ids_that_no_file_could_have_stay_apart_and_inside(opened: Opened) -> None:
    ids = ["a/b", "a_b", "../a", ".", "x" * 300, "x" * 301, "é", "a+1"]
    async with opened("a") as ours:
        for number, one in enumerate(ids):
            await ours.put(one, 1, png(number), "png")
    async with opened("b") as theirs:
        for number, one in enumerate(ids):
            found = await theirs.get(one, 1)
            assert found is not None
            assert found.data == png(number)


async def test_a_picture_that_is_none_is_not_found(opened: Opened) -> None:
    async with opened("a") as ours:
        await ours.put("sub", 1, png(1)[:40], "png")
    async with opened("b") as theirs:
        assert await theirs.get("sub", 1) is None
        await theirs.put("sub", 1, png(1), "png")  # as when it was fetched anew
    async with opened("c") as others:
        assert await others.get("sub", 1) is not None


# -------------------------------------------------------------------------------------------- the bucket alone


async def test_objects_lie_below_the_prefix_and_say_what_they_are(
    place: str, bucket_server: BucketServer, tmp_path: Path
) -> None:
    async with store(tmp_path, at(place)) as ours:
        await ours.put("sub", 1, png(1), "png")
        await until(lambda: bucket_server.objects(place) == {"some/where/sub+1": png(1)})
        await until(lambda: unsent(tmp_path) == [])
    assert bucket_server.media_type(place, "some/where/sub+1") == "image/png"


async def test_what_the_folder_had_no_room_for_comes_back_from_the_bucket(place: str, tmp_path: Path) -> None:
    async with store(tmp_path, at(place), room=1) as ours:
        first = await ours.put("one", 1, png(1), "png")
        await until(lambda: unsent(tmp_path) == [])
        await ours.put("two", 1, png(2), "png")
        assert not first.exists()
        found = await ours.get("one", 1)
        assert found is not None
        assert found.data == png(1)
        assert found.path == first
        assert first.exists()


async def test_no_ceiling_drops_what_the_bucket_does_not_have(
    place: str, bucket_server: BucketServer, tmp_path: Path
) -> None:
    async with store(tmp_path, at(place), room=1, retry_seconds=0.1) as ours:
        with bucket_server.away():
            with capture_logs() as logs:
                for number in range(5):
                    await ours.put("sub", number, png(number), "png")
                await until(lambda: [line for line in logs if line.get("waiting") == 5])
            assert len(list(tmp_path.glob("*+*"))) == 1
            for number in range(5):
                found = await ours.get("sub", number)
                assert found is not None
                assert found.data == png(number)
        await until(lambda: unsent(tmp_path) == [])
    assert bucket_server.objects(place) == {f"some/where/sub+{number}": png(number) for number in range(5)}


async def test_one_object_that_is_refused_for_ever_does_not_hold_up_the_others(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "unsent"
    folder.mkdir()
    for age, name in enumerate(("bad+1.png", "good+1.png", "good+2.png")):
        (folder / name).write_bytes(png(1))
        os.utime(folder / name, ns=(0, age))
    async with scripted_server(refusing("bad")) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        with capture_logs() as logs:
            async with store(tmp_path, at(place), retry_seconds=0.1):
                await until(lambda: unsent(tmp_path) == ["bad+1.png"])
    assert "bad" in server.asked[0]
    assert logs[0] == {
        "event": "bucket_unavailable",
        "verb": "put",
        "reason": "it refuses (KeyTooLongError)",
        "waiting": 3,
        "log_level": "warning",
    }
    assert KEY_ID not in str(logs)


@pytest.mark.parametrize(
    ("what", "size"), [(1, MAX_BYTES + 1), (SHEET, SHEET_BYTES + 1)], ids=["an original", "a sheet"]
)
async def test_an_object_that_is_too_large_is_none_of_ours(
    what: Any, size: int, place: str, bucket_server: BucketServer, tmp_path: Path
) -> None:
    whole = png(1)
    bucket_server.write(place, f"some/where/sub+{what}", whole + bytes(size - len(whole)))
    with capture_logs() as logs:
        async with store(tmp_path, at(place)) as ours:
            assert await ours.get("sub", what) is None
    assert [line["event"] for line in logs] == ["bucket_object_refused"]
    assert list(tmp_path.iterdir()) == []
    bucket_server.write(place, f"some/where/sub+{what}", whole)
    async with store(tmp_path, at(place)) as ours:
        assert await ours.get("sub", what) is not None


async def test_a_bucket_without_a_key_it_knows_and_one_that_is_not_there_say_what_to_do(
    place: str, bucket_server: BucketServer
) -> None:
    with bucket_server.locked():
        with pytest.raises(BucketUnavailable, match=r"check AWS_ACCESS_KEY_ID \(InvalidAccessKeyId\)$"):
            await at(place).put("x", b"x", "text/plain")
        with pytest.raises(BucketUnavailable, match="AWS_ACCESS_KEY_ID"):
            await at(place).get("x", 1)
    for ask in (at("not-there").put("x", b"x", "text/plain"), at("not-there").get("x", 1)):
        with pytest.raises(BucketUnavailable, match=r"no such bucket; check MJ_ARCHIVE_URL.*\(NoSuchBucket\)$"):
            await ask


async def test_a_bucket_that_never_answers_is_given_up_in_time(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted_server(silent) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        bucket = at(place, read_seconds=0.2, write_seconds=0.3)
        asks = [bucket.get("x", 1), bucket.put("x", b"x", "text/plain"), bucket.delete("x")]
        with anyio.fail_after(PATIENCE / 2):
            for ask, seconds in zip(asks, (0.2, 0.3, 0.2), strict=True):
                with pytest.raises(BucketUnavailable, match=f"did not answer within {seconds} s; check") as caught:
                    await ask
                assert not caught.value.refused
        assert [line.split()[0] for line in server.asked] == ["GET", "PUT", "DELETE"]


async def test_an_endpoint_without_tls_is_for_the_operator_to_name(place: str) -> None:
    refused = open_bucket(f"s3://{place}", over_http=False)
    with pytest.raises(BucketUnavailable):
        await refused.put("x", b"x", "text/plain")
    with pytest.raises(BucketUnavailable):
        await refused.get("x", 1)
    assert await open_bucket(f"s3://{place}", over_http=True).get("x", 1) is None


async def test_more_bytes_than_allowed_are_never_read(place: str, bucket_server: BucketServer) -> None:
    bucket_server.write(place, "some/where/x", bytes(11))
    assert await at(place).get("x", 11) == bytes(11)
    with pytest.raises(ImageUnavailable):
        await at(place).get("x", 10)


# ----------------------------------------------------------------------------------------- through the server


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(key=KEY, job_seconds=None, image_edge=96) as simulated:
        yield simulated


async def finished(sim: Simulator, caller: Caller) -> dict[str, Any]:
    """A grid that has succeeded, as its caller sees it."""
    task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
    sim.finish(task["task_id"])
    return await caller.task("get_task", task_id=task["task_id"], wait_seconds=15)


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


async def test_a_picture_of_which_the_journal_was_not_told_is_found_when_its_link_is_dead(
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


# ------------------------------------------------------------------------------------ what an operator is told


def command(*words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mj_mcp", *words], env=env, capture_output=True, text=True, timeout=60, check=False
    )


async def test_the_doctor_writes_reads_and_removes_an_object(
    bucket_server: BucketServer, sim: Simulator, tmp_path: Path
) -> None:
    bucket = bucket_server.new()

    async def line(url: str, **extra: str) -> str:
        env = environment(sim.url, tmp_path, MJ_ARCHIVE_URL=url, **{**bucket_server.environment(), **extra})
        done = await anyio.to_thread.run_sync(lambda: command("doctor", env=env))
        (found,) = [line for line in done.stdout.splitlines() if "archive:" in line]
        assert done.returncode == (1 if "FAIL" in found else 0), done.stdout
        assert "Traceback" not in done.stderr
        for secret in (SECRET, KEY_ID):
            assert secret not in done.stdout + done.stderr
        return found

    well = await line(f"s3://{bucket}/mj")
    assert well == f"ok    archive: s3://{bucket}/mj: written, read and removed one object"
    assert bucket_server.objects(bucket) == {}
    absent = await line("s3://not-there")
    assert absent.startswith("FAIL  archive: s3://not-there: there is no such bucket; check MJ_ARCHIVE_URL")
    with bucket_server.locked():
        assert "check AWS_ACCESS_KEY_ID (InvalidAccessKeyId)" in await line(f"s3://{bucket}")
    with bucket_server.away():
        assert "it does not answer; check AWS_ENDPOINT_URL" in await line(f"s3://{bucket}")
    assert await line((tmp_path / "shared").as_uri()) == f"ok    archive: {tmp_path / 'shared'}"
    (tmp_path / "file").touch()
    assert "set MJ_ARCHIVE_URL" in await line((tmp_path / "file" / "in").as_uri())


async def test_a_bucket_that_refuses_is_logged_with_what_to_do_and_without_the_key(
    bucket_server: BucketServer, sim: Simulator, tmp_path: Path
) -> None:
    url = f"s3://{bucket_server.new()}"
    with bucket_server.locked():
        async with live(sim, tmp_path, MJ_ARCHIVE_URL=url, **bucket_server.environment()) as life:
            task = await finished(sim, life)
            assert all(image["path"] for image in task["images"])
            await until(lambda: life.logged("bucket_unavailable"))
            said = life.logged("bucket_unavailable")[0]
            assert "check AWS_ACCESS_KEY_ID" in said["reason"]
            assert said["level"] == "warning"
            assert said["waiting"] >= 1
    log = (tmp_path / "server.log").read_text()
    assert SECRET not in log
    assert KEY_ID not in log
    assert "Traceback" not in log


def test_a_bucket_without_the_extra_is_refused_with_how_to_get_it(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys\nsys.modules['obstore.store'] = None\n")
    env = environment("http://127.0.0.1:9", tmp_path, MJ_ARCHIVE_URL="s3://pictures", PYTHONPATH=str(hidden))
    for words in ((), ("doctor",)):
        done = command(*words, env=env)
        assert done.returncode == 1
        assert "pip install 'mj-mcp[s3]'" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_a_server_without_a_bucket_does_not_import_its_library() -> None:
    code = "import sys, mj_mcp.app, mj_mcp.server; sys.exit('obstore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


CANARY = "canary-in-url-4d2a"


@pytest.mark.parametrize(
    "url",
    [
        f"gs://{CANARY}",
        f"https://{CANARY}.s3.amazonaws.com",
        f"/{CANARY}/folder",
        f"{CANARY}/folder",
        f"file://{CANARY}/folder",
        "file:///",
        "file:folder",
        "s3://",
        "s3:///prefix",
        "s3://a",
        f"s3://{CANARY}:{CANARY}@bucket/prefix",
        f"s3://{CANARY}@bucket",
        f"s3://bucket?secret={CANARY}",
        f"s3://bucket#{CANARY}",
        f"s3://bucket/../{CANARY}",
        f"s3://bucket/%2e%2e/{CANARY}",
        f"s3://bucket//{CANARY}",
        f"s3://bucket/a {CANARY}",
        f"file:///shared/../{CANARY}",
        "s3://[",
    ],
)
def test_an_archive_elsewhere_is_refused_and_what_is_allowed_is_said(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MJ_API_KEY", KEY)
    monkeypatch.setenv("MJ_ARCHIVE_URL", url)
    with pytest.raises(SettingsError, match=r"^MJ_ARCHIVE_URL is not usable: .*(file:///|must not|be a URL)") as caught:
        read_settings()
    assert CANARY not in str(caught.value)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MJ_API_KEY", KEY)


@pytest.mark.usefixtures("key")
def test_an_archive_is_a_folder_or_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings(data_dir=Path("/data"))
    assert (settings.archive_folder, settings.bucket_url) == (Path("/data/archive"), "")
    settings = read_settings(data_dir=Path("/data"), archive_url="file:///shared/my%20pictures")
    assert (settings.archive_folder, settings.bucket_url) == (Path("/shared/my pictures"), "")
    settings = read_settings(data_dir=Path("/data"), archive_url="s3://my-bucket/a/b/")
    assert (settings.archive_folder, settings.bucket_url) == (Path("/data/archive"), "s3://my-bucket/a/b/")


@pytest.mark.usefixtures("key")
def test_the_endpoint_says_whether_it_goes_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not read_settings().bucket_over_http
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert read_settings().bucket_over_http
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example.com")
    assert not read_settings().bucket_over_http


@pytest.mark.usefixtures("key")
def test_what_opens_the_bucket_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    assert {SECRET, "a-token"} <= set(read_settings().secrets)
