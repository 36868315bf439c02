"""The poller as a whole: what it survives, its ceiling, what it knows after a restart, and what callers hear."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import Caller
from lives import PATIENCE, rows, until

from mj_mcp.app import Timings
from mj_mcp.polling.open_jobs import PollTimings
from mj_mcp.polling.poller import CHANGES_REMEMBERED, Poller
from mj_mcp.simulator import Simulator
from mj_mcp.tasks import Failure, Status, Task, accept, refuse

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


def queue(home: Path) -> int:
    """How many requests wait for a slot."""
    with closing(sqlite3.connect(home / "data" / "journal.db", timeout=PATIENCE)) as db:
        return int(db.execute("SELECT count(*) FROM waiting").fetchone()[0])


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
        # Whether it was paid for cannot be known, so it is not paid for again.
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
        assert len(caller.logged("row_damaged")) == 1, "logged once, not at every sweep"
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


@pytest.mark.slow
async def test_however_many_ask_at_once_polls_keep_to_their_ceiling(sim: Simulator, connect: Connect) -> None:
    async with connect(sim, MJ_MAX_OPEN_TASKS="100", MJ_MAX_POLLS_PER_SECOND="20") as caller:
        ids = [await imagine(caller, f"mug {number}") for number in range(60)]
        began = len(sim.polls())
        async with anyio.create_task_group() as group:
            for task_id in ids:
                group.start_soon(caller.client.call_tool, "get_task", {"task_id": task_id, "wait_seconds": 60})
            await until(lambda: len(sim.polls()) >= began + 80)
            group.cancel_scope.cancel()
        at = [poll.at for poll in sim.polls()[began:]]
    assert len(at) <= 20 * (at[-1] - at[0] + 2)
    polled = [sum(poll.at >= at[0] for poll in sim.polls(task_id)) for task_id in ids]
    assert max(polled) - min(polled) <= 1, "whoever was not seen for longest goes first"


def idle_poller() -> Poller:
    """One that polls nothing: only what is published reaches those who wait."""
    nobody: Any = None
    return Poller(
        nobody,
        nobody,
        poll_seconds=5,
        polls_per_second=50,
        now=time.time,
        on_end=lambda task: None,
        notify=lambda task: None,
        timings=PollTimings(),
    )


ROW = Task(submission_id="sub_1", status=Status.SUBMITTING, updated_at=0.0)


async def test_a_change_between_the_read_of_a_row_and_the_wait_is_not_missed() -> None:
    poller = idle_poller()
    poller.publish(refuse(ROW, Failure("rejected", "no"), 1.0))
    until = asyncio.get_running_loop().time() + PATIENCE
    with anyio.fail_after(PATIENCE / 2):
        answered, _ = await poller.wait(ROW, until, enough=lambda task: task.status is not Status.SUBMITTING)
    assert answered.status is Status.REFUSED


async def test_a_later_caller_with_an_older_row_takes_nothing_back() -> None:
    """Also when so many other tasks have changed since that the last change of this one is forgotten."""
    poller, now = idle_poller(), asyncio.get_running_loop().time()
    first = asyncio.create_task(poller.wait(ROW, now + PATIENCE, enough=lambda _task: False))
    await asyncio.sleep(0)
    poller.publish(accept(ROW, "77", 1.0))
    for number in range(CHANGES_REMEMBERED):
        poller.publish(replace(ROW, submission_id=f"sub_other_{number}"))
    answered, _ = await poller.wait(ROW, now)
    first.cancel()
    assert answered.task_id == "77"


@pytest.mark.slow
async def test_a_defect_in_a_poll_ends_the_polling_of_that_task_only_until_the_next_sweep(
    sim: Simulator, spawn: Spawn, tmp_path: Path
) -> None:
    """A task has an id that no URL may hold, until somebody's hand puts it right."""

    async with spawn(sim) as caller:
        broken, sound = await imagine(caller), await imagine(caller, "a jug")
    body = change(tmp_path, broken, "body = replace(body, task_id, 'a/b')")
    async with spawn(sim) as caller:
        with anyio.fail_after(PATIENCE):
            while len(caller.logged("poll_failed")) < 2:
                await caller.task("get_task", task_id=sound)
        change(tmp_path, broken, "body = ?, seq = seq + 1", body)
        for task_id in (broken, sound):
            sim.finish(task_id)
            done = await caller.task("get_task", task_id=task_id, wait_seconds=PATIENCE, include_image=False)
            assert done["status"] == "succeeded"


async def test_the_claim_is_made_after_our_own_queue_and_its_row_says_when(
    sim: Simulator, connect: Connect, tmp_path: Path
) -> None:
    async with connect(sim, MJ_MAX_OPEN_TASKS="1") as caller:
        first = await imagine(caller)
        async with anyio.create_task_group() as group:
            group.start_soon(caller.client.call_tool, "generate_image", {"prompt": "a jug", "wait_seconds": PATIENCE})
            await sim.until(lambda: queue(tmp_path) == 1)
            asked = time.time()
            sim.finish(first)
            await sim.until(lambda: len(sim.ledger) == 2)
            sim.finish(sim.ledger[1].task_id)
    row = rows(tmp_path)[1]
    assert row["submitted_at"] < asked < row["claimed_at"] <= sim.ledger[1].at


async def test_a_later_process_has_learned_what_an_earlier_one_saw(sim: Simulator, connect: Connect) -> None:
    async with connect(sim) as caller:
        task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        assert task["eta_seconds"] > 35, "what such jobs usually take"
        sim.finish(task["task_id"])
        await caller.task("get_task", task_id=task["task_id"], wait_seconds=PATIENCE, include_image=False)
    async with connect(sim) as caller:
        task = await caller.task("generate_image", prompt="a jug", wait_seconds=0)
        with anyio.fail_after(PATIENCE):  # the journal is read beside the first calls
            while (task["eta_seconds"] or 0.0) > 35:
                task = await caller.task("get_task", task_id=task["task_id"], include_image=False)


async def test_a_task_that_has_stood_still_for_a_day_is_left_alone_until_somebody_asks(
    sim: Simulator, connect: Connect, tmp_path: Path
) -> None:
    hasty = Timings(polling=PollTimings(idle=0.0, give_up=0.0, idle_sweep=0.05))
    async with connect(sim, timings=hasty) as caller:
        task_id = await imagine(caller)
        with anyio.fail_after(PATIENCE):
            while rows(tmp_path)[0]["given_up_at"] is None:
                await caller.call("list_tasks")
        (seen,) = (await caller.task("list_tasks"))["tasks"]
        assert seen["status"] == "stalled"
        # Nobody holds it, and neither this server nor the next one polls it by itself.
        polls = len(sim.polls(task_id))
    async with connect(sim, timings=hasty) as caller:
        other = await imagine(caller, "a jug")
        await sim.until(lambda: len(sim.polls(other)) > 0)
        assert len(sim.polls(task_id)) == polls
        assert rows(tmp_path)[0]["holder"] is None
        sim.finish(task_id)
        done = await caller.task("get_task", task_id=task_id, wait_seconds=PATIENCE, include_image=False)
        assert done["status"] == "succeeded"
        assert len(sim.polls(task_id)) > polls


async def test_progress_is_sent_at_most_once_a_second_however_often_a_task_is_polled(
    sim: Simulator, spawn: Spawn
) -> None:
    messages: list[str | None] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        messages.append(message)

    async with spawn(sim) as caller:
        task_id = await imagine(caller)
        before, began = len(sim.polls(task_id)), time.monotonic()
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
        polls = len(sim.polls(task_id)) - before
    assert 2 <= len(messages) <= passed + 1
    assert len(messages) < polls, "it was polled more often than messages were sent"


async def test_a_server_has_set_its_start_aside_before_it_serves(sim: Simulator, spawn: Spawn) -> None:
    async with spawn(sim, MJ_LOG_LEVEL="debug") as caller:
        await caller.task("list_tasks")
        (line,) = caller.logged("serving")
    assert line["frozen"] > 50_000, "garbage collection never walks what the start has made"
