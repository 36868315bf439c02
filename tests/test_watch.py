"""The watch as a whole: what it survives, its ceiling of looks, and what those who wait are told meanwhile."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path

import anyio
import pytest
from conftest import Caller
from lives import PATIENCE

from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio

Spawn = Callable[..., AbstractAsyncContextManager[Caller]]
Connect = Callable[..., AbstractAsyncContextManager[Caller]]


async def imagine(caller: Caller, prompt: str = "a mug") -> str:
    return str((await caller.task("generate_image", prompt=prompt, wait_seconds=0))["task_id"])


def change(home: Path, task_id: str, what: str, *values: str) -> str:
    """Change a row past the program under test; its body as it was."""
    with closing(sqlite3.connect(home / "data" / "journal.db", timeout=PATIENCE)) as db, db:
        (before,) = db.execute("SELECT body FROM tasks WHERE task_id = ?", (task_id,)).fetchone()
        db.execute(f"UPDATE tasks SET {what} WHERE task_id = ?", (*values, task_id))
    return str(before)


async def test_a_damaged_row_hides_no_other_and_is_watched_again_once_it_is_mended(
    sim: Simulator, spawn: Spawn, tmp_path: Path
) -> None:
    """By somebody else's hand, while no server runs; mended while one does."""

    async with spawn(sim) as caller:
        damaged, sound = await imagine(caller), await imagine(caller, "a jug")
    body = change(tmp_path, damaged, "body = ?", "no task at all")
    async with spawn(sim) as caller:
        refused = await caller.error("get_task", task_id=damaged, wait_seconds=0)
        assert refused["code"] == "storage_unavailable"
        assert "`mj-mcp journal check`" in refused["message"]
        # Whether it was paid for cannot be told, so it is not paid for again.
        again = await caller.error("generate_image", prompt="a mug", wait_seconds=0)
        assert again["code"] == "storage_unavailable"
        assert len(sim.submits()) == 2
        listed = (await caller.call("list_tasks")).structured_content
        assert listed is not None
        assert [task["task_id"] for task in listed["tasks"]] == [sound]
        for task_id in (damaged, sound):
            sim.finish(task_id)
        done = await caller.task("get_task", task_id=sound, wait_seconds=PATIENCE, include_image=False)
        assert done["status"] == "succeeded"
        assert len(caller.logged("row_damaged")) == 1, "told once, not at every sweep"
        change(tmp_path, damaged, "body = ?", body)
        done = await caller.task("get_task", task_id=damaged, wait_seconds=PATIENCE, include_image=False)
        assert done["status"] == "succeeded"


async def test_a_row_that_is_damaged_while_it_is_watched_is_let_go_and_taken_up_again(
    sim: Simulator, spawn: Spawn, tmp_path: Path
) -> None:
    async with spawn(sim) as caller:
        task_id = await imagine(caller)
        written = "body = ?, seq = seq + 1"
        body = change(tmp_path, task_id, written, "no task at all")
        with anyio.fail_after(PATIENCE):
            while not caller.logged("row_damaged"):
                await caller.call("list_tasks")
        change(tmp_path, task_id, written, body)
        sim.finish(task_id)
        done = await caller.task("get_task", task_id=task_id, wait_seconds=PATIENCE, include_image=False)
        assert done["status"] == "succeeded"
        assert not caller.logged("sweep_failed")


async def test_a_sweep_that_breaks_is_followed_by_the_next(sim: Simulator, spawn: Spawn, tmp_path: Path) -> None:
    """A lease has a holder whom no system call can be asked about, until somebody's hand puts it right."""

    async with spawn(sim) as caller:
        held, free = await imagine(caller), await imagine(caller, "a jug")
    change(tmp_path, held, "holder = 'a' || char(0), lease_until = 2e9")
    async with spawn(sim) as caller:
        with anyio.fail_after(PATIENCE):
            while len(caller.logged("sweep_failed")) < 2:
                await caller.task("get_task", task_id=free, wait_seconds=0)
        change(tmp_path, held, "holder = NULL")
        for task_id in (held, free):
            sim.finish(task_id)
            done = await caller.task("get_task", task_id=task_id, wait_seconds=PATIENCE, include_image=False)
            assert done["status"] == "succeeded"


async def test_however_many_ask_at_once_looks_keep_to_their_ceiling(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, MJ_MAX_OPEN_TASKS="100") as caller:
        ids = [await imagine(caller, f"mug {number}") for number in range(100)]
        began = len(sim.looks())
        async with anyio.create_task_group() as group:
            for task_id in ids:
                group.start_soon(caller.client.call_tool, "get_task", {"task_id": task_id, "wait_seconds": 2})
        at = [look.at for look in sim.looks()[began:]]
    assert len(at) >= 50
    # In any second: the ceiling, and those that were under way when it began.
    for first in at:
        assert sum(first <= look < first + 1 for look in at) <= 63 + 16


async def test_progress_is_told_at_most_once_a_second_however_often_a_task_is_looked_at(
    sim: Simulator, spawn: Spawn
) -> None:
    told: list[str | None] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    async with spawn(sim) as caller:
        task_id = await imagine(caller)
        looks, began = len(sim.looks(task_id)), time.monotonic()
        async with anyio.create_task_group() as group:

            async def hurry() -> None:
                for percent in range(1, 100):
                    sim.process(task_id, progress=percent)
                    await caller.call("get_task", task_id=task_id, include_image=False, wait_seconds=0)

            group.start_soon(hurry)
            await caller.client.call_tool(
                "get_task", {"task_id": task_id, "wait_seconds": 5, "include_image": False}, progress_callback=hear
            )
            group.cancel_scope.cancel()
        passed = time.monotonic() - began
        assert len(sim.looks(task_id)) - looks > passed + 2, "it was looked at more often than once a second"
    assert 2 <= len(told) <= passed + 1


async def test_a_server_has_set_its_start_aside_before_it_serves(sim: Simulator, spawn: Spawn) -> None:
    async with spawn(sim, MJ_LOG_LEVEL="debug") as caller:
        await caller.task("list_tasks")
        (line,) = caller.logged("serving")
    assert line["frozen"] > 50_000, "garbage collection never walks what the start has made"
