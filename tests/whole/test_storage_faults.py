"""Nothing is bought that cannot be written down: the journal's disk full, read-only, locked, broken or too new."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from lives import PATIENCE, Life, live, outcome_of, rows

from mj_mcp.simulator import Simulator, faults

if sys.platform != "linux":
    pytest.skip("fills a disk in ways of Linux", allow_module_level=True)

import resource

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

JOURNAL = "journal.db"


@contextlib.contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own. The rlimit twin of each test runs everywhere, so that nothing is left untested."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small tmpfs; the limit on file sizes stands in")
    folder.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"root may not mount here ({done.stderr.strip()}); the limit on file sizes stands in")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class SmallDisk:
    """A tmpfs that is filled to the last byte."""

    def __init__(self, data: Path) -> None:
        self._filler = data / "filler"

    def fill(self, _life: Life) -> None:
        with self._filler.open("wb", buffering=0) as file:
            for size in (65536, 4096, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"x" * size):
                        pass

    def free(self, _life: Life) -> None:
        self._filler.unlink()


class SizeLimit:
    """No file of the server may grow beyond what the journal's log has now."""

    def __init__(self, data: Path) -> None:
        self._log = data / f"{JOURNAL}-wal"

    def fill(self, life: Life) -> None:
        resource.prlimit(life.pid, resource.RLIMIT_FSIZE, (self._log.stat().st_size, resource.RLIM_INFINITY))

    def free(self, life: Life) -> None:
        resource.prlimit(life.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


Disk = SmallDisk | SizeLimit


@pytest.fixture(params=["tmpfs", "rlimit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    data = tmp_path / "data"
    if request.param == "rlimit":
        yield SizeLimit(data)
        return
    with tmpfs(data, "1m"):
        yield SmallDisk(data)


async def refused(life: Life, sim: Simulator, prompt: str = "a mug") -> str:
    """A submit that is refused for the journal's sake, without a POST; what it says."""
    posts = len(sim.submits())
    with anyio.fail_after(PATIENCE):
        error = await life.error("generate_image", prompt=prompt, wait_seconds=20)
    assert error["code"] == "storage_unavailable"
    assert "journal" in error["message"]
    assert "Traceback" not in error["message"]
    assert "Nothing was submitted" in error["next_step"]
    assert len(sim.submits()) == posts
    return str(error["message"])


async def test_a_full_disk_refuses_submits_and_room_lets_them_through(
    disk: Disk, sim: Simulator, tmp_path: Path
) -> None:
    async with live(sim, tmp_path, MJ_LOG_LEVEL="error") as life:
        first = await life.task("generate_image", prompt="a cup", wait_seconds=0)
        disk.fill(life)
        await refused(life, sim)
        sim.finish(first["task_id"])
        task = await life.task("get_task", task_id=first["task_id"], wait_seconds=PATIENCE, include_image=False)
        assert task["status"] == "succeeded", "who waits is answered although it cannot be written"
        listed = await life.task("list_tasks")
        assert [task["task_id"] for task in listed["tasks"]] == [first["task_id"]]
        disk.free(life)
        second = await life.task("generate_image", prompt="a mug", wait_seconds=0)
        assert second["task_id"] == sim.ledger[1].task_id
        before = len(sim.polls(first["task_id"]))
        await sim.until(lambda: len(sim.polls(first["task_id"])) > before, PATIENCE)
        await life.task("generate_image", prompt="a jug", wait_seconds=0)
    assert [row["task_id"] for row in rows(tmp_path)] == [charge.task_id for charge in sim.ledger]
    assert rows(tmp_path)[0]["status"] == "succeeded", "and it is written down once there is room"


@pytest.mark.parametrize("wait_seconds", [0, 3])
async def test_a_disk_that_fills_during_the_post_loses_neither_the_answer_nor_the_row(
    wait_seconds: float, disk: Disk, sim: Simulator, tmp_path: Path
) -> None:
    sim.inject("submit", faults.delay(0.5))
    answers = []

    async def submit(life: Life) -> None:
        answers.append(await life.task("generate_image", prompt="a mug", wait_seconds=wait_seconds))

    async with live(sim, tmp_path, MJ_LOG_LEVEL="error") as life:
        async with anyio.create_task_group() as group:
            group.start_soon(submit, life)
            with anyio.fail_after(PATIENCE):
                await sim.until(lambda: len(sim.ledger) == 1, PATIENCE)
            disk.fill(life)
        (charge,) = sim.ledger
        assert [answer["task_id"] for answer in answers] == [charge.task_id]
        assert [(row["status"], row["task_id"]) for row in rows(tmp_path)] == [("submitting", None)]
        assert {line["task_id"] for line in life.logged("outcome_not_recorded")} == {charge.task_id}
        disk.free(life)
        sim.finish(charge.task_id)
        with anyio.fail_after(PATIENCE):
            await sim.until(lambda: bool(sim.polls(charge.task_id)), PATIENCE)
        task = await life.task("get_task", task_id=answers[0]["submission_id"], wait_seconds=PATIENCE)
        assert task["status"] == "succeeded"
    assert [(row["status"], row["task_id"]) for row in rows(tmp_path)] == [("succeeded", charge.task_id)]
    assert sim.fired["delay"] == 1


async def test_a_disk_that_is_full_before_the_start_refuses_everything_clearly(sim: Simulator, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "data", "16k"):
        async with live(sim, tmp_path) as life:
            await refused(life, sim)
            assert (await life.error("list_tasks"))["code"] == "storage_unavailable"
    assert sim.ledger == []


async def test_a_read_only_journal_refuses_submits(sim: Simulator, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:
            stack.enter_context(tmpfs(data, "4m"))
        async with live(sim, tmp_path) as life:
            first = await life.task("generate_image", prompt="a cup", wait_seconds=0)
        if os.geteuid() == 0:
            await anyio.run_process(["mount", "-o", "remount,ro", str(data)])
        else:
            for path, mode in ((data / JOURNAL, 0o400), (data, 0o500)):
                stack.callback(path.chmod, path.stat().st_mode)
                path.chmod(mode)
        async with live(sim, tmp_path) as life:
            await refused(life, sim)
            result = await life.call("get_task", task_id=first["task_id"], wait_seconds=0)
            assert outcome_of(result) in {"queued", "storage_unavailable"}, "the last known, or a clear error"
    assert len(sim.ledger) == 1


async def test_a_journal_that_is_locked_for_longer_than_five_seconds_refuses_submits(
    sim: Simulator, tmp_path: Path
) -> None:
    async with live(sim, tmp_path) as life:
        first = await life.task("generate_image", prompt="a cup", wait_seconds=0)
        with contextlib.closing(sqlite3.connect(tmp_path / "data" / JOURNAL, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await refused(life, sim)
            listed = await life.task("list_tasks")
            assert [task["task_id"] for task in listed["tasks"]] == [first["task_id"]], "reading goes on"
            other.execute("ROLLBACK")
        second = await life.task("generate_image", prompt="a mug", wait_seconds=0)
        assert second["task_id"] == sim.ledger[1].task_id
    assert len(sim.submits()) == 2


@pytest.mark.parametrize("damage", ["garbage", "torn"])
async def test_a_corrupt_journal_is_kept_aside_and_nothing_is_spent(
    damage: str, sim: Simulator, tmp_path: Path
) -> None:
    async with live(sim, tmp_path) as life:
        first = await life.task("generate_image", prompt="a cup", wait_seconds=0)
    path = tmp_path / "data" / JOURNAL
    whole = path.read_bytes()
    broken = b"no database at all, but long enough " * 200 if damage == "garbage" else whole[:100] + bytes(len(whole))
    path.write_bytes(broken)
    for _ in range(2):  # the second start finds the file gone, and must not begin a new one
        async with live(sim, tmp_path) as life:
            said = await refused(life, sim, "a cup")
            (aside,) = (tmp_path / "data").glob("*broken*.db")
            assert str(aside) in said
            assert aside.read_bytes() == broken
            assert not path.exists()
            assert (await life.error("list_tasks"))["code"] == "storage_unavailable"
            assert (await life.error("get_task", task_id=first["task_id"], wait_seconds=0))[
                "code"
            ] == "storage_unavailable"
    assert len(sim.ledger) == 1


async def test_a_journal_of_a_newer_version_is_refused_and_left_alone(sim: Simulator, tmp_path: Path) -> None:
    async with live(sim, tmp_path) as life:
        await life.task("generate_image", prompt="a cup", wait_seconds=0)
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / JOURNAL, isolation_level=None)) as other:
        other.execute("INSERT INTO migrations (name) VALUES ('9999_from_the_future')")
    async with live(sim, tmp_path) as life:
        said = await refused(life, sim)
        assert "newer version" in said
        assert "9999_from_the_future" in said
        assert (await life.error("list_tasks"))["code"] == "storage_unavailable"
    assert len(rows(tmp_path)) == len(sim.ledger) == 1
