"""Several server processes on one journal, as the windows of an IDE start them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import LOAD_SECONDS, error_of
from lives import PATIENCE, Life, broken_promises, live, outcome_of, rows

from mj_mcp.simulator import Simulator, faults

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

PROCESSES = 8
TAKEOVER_SECONDS = 10.0
HEARD_SECONDS = 1.0


@asynccontextmanager
async def lives(count: int, sim: Simulator, home: Path, **extra: str) -> AsyncIterator[list[Life]]:
    """So many servers at once, each entered and left in this task."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(live(sim, home, f"server-{n}", **extra)) for n in range(count)]


async def all_at_once(calls: list[tuple[Life, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each life generates; their structured contents in order, errors too."""
    answers: list[dict[str, Any]] = [{}] * len(calls)

    async def one(number: int, life: Life, arguments: dict[str, Any]) -> None:
        result = await life.call("generate_image", **arguments)
        answers[number] = {"error": error_of(result)} if result.is_error else result.structured_content or {}

    with anyio.fail_after(2 * PATIENCE):
        async with anyio.create_task_group() as group:
            for number, (life, arguments) in enumerate(calls):
                group.start_soon(one, number, life, arguments)
    assert "locked" not in str(answers)
    return answers


def codes(answers: list[dict[str, Any]]) -> list[str]:
    return sorted({answer["error"]["code"] for answer in answers if "error" in answer})


async def test_eight_processes_ask_for_the_same_at_once_and_one_claim_wins(sim: Simulator, tmp_path: Path) -> None:
    async with lives(PROCESSES, sim, tmp_path) as group:
        for number in range(5):
            answers = await all_at_once([(life, {"prompt": f"number {number}", "wait_seconds": 0}) for life in group])
            assert len(sim.submits()) == len(sim.ledger) == number + 1
            assert {answer["task_id"] for answer in answers} == {sim.ledger[-1].task_id}
            assert sum("duplicate_of" not in answer for answer in answers) == 1
        assert broken_promises(sim, tmp_path) == []


async def test_a_lost_answer_is_doubt_in_every_process(sim: Simulator, tmp_path: Path) -> None:
    sim.inject("submit", faults.reset_after_accept())
    async with lives(3, sim, tmp_path) as group:
        answers = await all_at_once([(life, {"prompt": "a mug", "wait_seconds": 0}) for life in group])
    assert codes(answers) == ["unconfirmed"]
    assert len({answer["error"]["submission_id"] for answer in answers}) == 1
    assert len(sim.submits()) == sim.fired["reset_after_accept"] == 1
    assert broken_promises(sim, tmp_path) == []


async def test_the_limit_of_open_tasks_holds_exactly_under_parallel_calls(sim: Simulator, tmp_path: Path) -> None:
    limit = 5
    async with lives(4, sim, tmp_path, MJ_MAX_OPEN_TASKS=str(limit)) as group:
        wanted = [(life, {"prompt": f"{n} of {life.pid}", "wait_seconds": 0}) for life in group for n in range(4)]
        answers = await all_at_once(wanted)
        assert len(sim.submits()) == len(sim.ledger) == limit
        assert codes(answers) == ["busy"]
        assert sum("error" in answer for answer in answers) == len(wanted) - limit
        done = sim.ledger[0].task_id
        sim.finish(done)
        for life in group:
            assert (await life.task("get_task", task_id=done, wait_seconds=PATIENCE))["status"] == "succeeded"
        # Who was answered `busy` keeps its queue slot, so a repeat of those requests takes the slot that is free.
        refused = [asked for asked, answer in zip(wanted, answers, strict=True) if "error" in answer]
        answers = await all_at_once(refused)
        assert sum("error" not in answer for answer in answers) == 1
    assert len(sim.ledger) == limit + 1


async def test_the_daily_limit_holds_exactly_under_parallel_calls(sim: Simulator, tmp_path: Path) -> None:
    limit = 6
    async with lives(4, sim, tmp_path, MJ_MAX_OPEN_TASKS="100", MJ_DAILY_TASK_LIMIT=str(limit)) as group:
        wanted = [(life, {"prompt": f"{n} of {life.pid}", "wait_seconds": 0}) for life in group for n in range(4)]
        answers = await all_at_once(wanted)
    # At midnight UTC the count begins anew: then both days' limits hold.
    days = {time.strftime("%F", time.gmtime(charge.at)) for charge in sim.ledger}
    assert len(sim.submits()) == len(sim.ledger)
    assert len(sim.ledger) == limit or (len(days) == 2 and len(sim.ledger) <= 2 * limit)
    assert codes(answers) == ["limit_reached"]


async def test_each_open_task_is_polled_by_one_process_at_a_time(sim: Simulator, tmp_path: Path) -> None:
    poll = 2.0
    async with lives(4, sim, tmp_path, MJ_POLL_SECONDS=str(poll)) as group:
        answers = await all_at_once([(life, {"prompt": f"{life.pid}", "wait_seconds": 0}) for life in group])
        ids = {answer["task_id"] for answer in answers}
        began = len(sim.requests)
        async with anyio.create_task_group() as waiting:
            for life in group:  # everybody waits for everything: the pace is that of an attended task
                for task_id in ids:
                    waiting.start_soon(life.client.call_tool, "get_task", {"task_id": task_id, "wait_seconds": 6})
        polls = {task_id: sim.polls(task_id) for task_id in ids}
        assert all(polls.values())
        # A first and a last poll are asked for; between them there is one pace. Four processes would make four times as
        # many polls, and a busy machine brings some late.
        for seen in polls.values():
            at = [poll.at for poll in seen if poll in sim.requests[began:]]
            assert len(at) <= 2 * (2 + (at[-1] - at[0]) / poll)
        holders = [row["holder"] for row in rows(tmp_path)]
        assert None not in holders


async def test_when_the_holder_is_killed_another_takes_over_and_everybody_hears_of_the_end(
    sim: Simulator, tmp_path: Path
) -> None:
    async with lives(3, sim, tmp_path) as (holder, second, third):
        (answer,) = await all_at_once([(holder, {"prompt": "a mug", "wait_seconds": 0})])
        task_id = answer["task_id"]
        with anyio.fail_after(PATIENCE):
            await sim.until(lambda: bool(sim.polls(task_id)))
        (row,) = rows(tmp_path)
        heard: dict[str, float] = {}

        async def wait(name: str, life: Life) -> None:
            task = await life.task("get_task", task_id=task_id, wait_seconds=2 * PATIENCE)
            assert task["status"] == "succeeded"
            heard[name] = time.monotonic()

        async with anyio.create_task_group() as group:
            group.start_soon(wait, "second", second)
            group.start_soon(wait, "third", third)
            await sim.until(lambda: len(sim.polls(task_id)) > 1, PATIENCE)
            holder.kill()
            before = len(sim.polls(task_id))
            await sim.until(lambda: len(sim.polls(task_id)) > before, TAKEOVER_SECONDS)
            (taken,) = rows(tmp_path)
            sim.finish(task_id)
        assert row["holder"] not in {None, taken["holder"]}
        assert abs(heard["second"] - heard["third"]) <= HEARD_SECONDS + LOAD_SECONDS
        assert [row["status"] for row in rows(tmp_path)] == ["succeeded"]


async def test_a_process_hears_of_the_end_that_another_one_saw(sim: Simulator, tmp_path: Path) -> None:
    async with lives(2, sim, tmp_path) as (first, second):
        (answer,) = await all_at_once([(first, {"prompt": "a mug", "wait_seconds": 0})])
        ended: list[float] = []

        async def wait() -> None:
            task = await second.task("get_task", task_id=answer["task_id"], wait_seconds=2 * PATIENCE)
            ended.append(time.monotonic())
            assert task["status"] == "succeeded"

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await sim.until(lambda: bool(sim.polls()), PATIENCE)
            sim.finish(answer["task_id"])
            task = await first.task("get_task", task_id=answer["task_id"], wait_seconds=PATIENCE)
            known = time.monotonic()
            assert task["status"] == "succeeded"
        assert ended[0] - known <= HEARD_SECONDS + LOAD_SECONDS


async def test_a_dead_process_leaves_doubt_that_the_others_report_at_once(sim: Simulator, tmp_path: Path) -> None:
    sim.inject("submit", faults.hang())
    async with lives(2, sim, tmp_path) as (first, second):
        async with anyio.create_task_group() as group:

            async def submit() -> None:
                await first.call_or_die("generate_image", prompt="a mug", wait_seconds=PATIENCE)

            group.start_soon(submit)
            await sim.until(lambda: len(sim.ledger) == 1, PATIENCE)
            first.kill()
        with anyio.fail_after(TAKEOVER_SECONDS):
            result = await second.call("generate_image", prompt="a mug", wait_seconds=PATIENCE)
        assert outcome_of(result) == "unconfirmed"
    assert len(sim.submits()) == sim.fired["hang"] == 1
    assert broken_promises(sim, tmp_path) == []
