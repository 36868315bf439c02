"""Calls that are cancelled, servers that are killed, answers that are lost: the task stays, and is bought once.

Every test speaks to the server as a process on pipes, in both generations of the protocol, and to a simulated
proxy over real HTTP. A job moves when the test says so; nothing here sleeps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest
from conftest import PROTOCOLS, Caller, error_of
from views import SUBMISSION, Like, bounded, finished, row, texts, view

from mj_mcp.simulator import Simulator, faults

pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and asyncio pipes are of POSIX"),
]

Spawn = Callable[..., AbstractAsyncContextManager[Caller]]

both_protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


@both_protocols
async def test_a_cancelled_call_leaves_its_task_alive_with_its_id_recorded(
    protocol: str, sim: Simulator, spawn: Spawn
) -> None:
    async with spawn(sim, protocol=protocol) as caller, bounded(), anyio.create_task_group() as group:
        # Once while the POST is in flight, once while the job runs.
        for prompt, fault in [("a mug", faults.delay(1.5)), ("a jug", None)]:
            if fault:
                sim.inject("submit", fault)
            scope = anyio.CancelScope()

            async def call(scope: anyio.CancelScope = scope, prompt: str = prompt) -> None:
                with scope:
                    await caller.call("generate_image", prompt=prompt, wait_seconds=60)

            charged, before = len(sim.ledger), len(sim.polls())
            group.start_soon(call)
            await sim.until(lambda charged=charged: len(sim.ledger) > charged)  # type: ignore[misc]
            charge = sim.ledger[-1]
            if not fault:
                await sim.until(lambda before=before: len(sim.polls()) > before)  # type: ignore[misc]
            scope.cancel()
            page = await caller.task("list_tasks", limit=1)
            (task,) = page["tasks"]
            assert task.get("task_id") == (None if fault else charge.task_id)
            assert ("submission_id" in task) is bool(fault)
            sim.finish(charge.task_id)
            handle = task.get("submission_id", charge.task_id)
            done = await caller.task("get_task", task_id=handle, wait_seconds=10)
            assert done == finished(sim, charge.task_id, prompt=prompt)
        assert [line["outcome"] for line in caller.logged("tool_call") if line["tool"] == "generate_image"] == [
            "cancelled",
            "cancelled",
        ]
    assert len(sim.submits()) == len(sim.ledger) == 2


@both_protocols
async def test_a_killed_server_started_again_lists_its_tasks_and_finishes_watching_them(
    protocol: str, sim: Simulator, spawn: Spawn
) -> None:
    async with spawn(sim, protocol=protocol) as caller:
        ids = [
            (await caller.task("generate_image", prompt=prompt, wait_seconds=0))["task_id"]
            for prompt in ("a mug", "a jug")
        ]
        caller.kill()
    async with spawn(sim, protocol=protocol) as caller:
        page = await caller.task("list_tasks")
        assert page == {
            "message": "2 tasks, newest first: 2 queued.",
            "tasks": [row(view(task_id=ids[1], prompt="a jug")), row(view(task_id=ids[0], prompt="a mug"))],
        }
        # Watched to their end although nobody waits.
        sim.finish(ids[0])
        before = len(sim.polls(ids[1]))
        await sim.until(lambda: len(sim.polls(ids[1])) > before and len(sim.polls(ids[0])) > 0)
        sim.finish(ids[1])
        for task_id, prompt in zip(ids, ("a mug", "a jug"), strict=True):
            done = await caller.task("get_task", task_id=task_id, wait_seconds=10)
            assert done == finished(sim, task_id, prompt=prompt)
    assert len(sim.submits()) == len(sim.ledger) == 2


@both_protocols
async def test_a_lost_answer_is_in_doubt_and_never_bought_again_by_itself(
    protocol: str, sim: Simulator, spawn: Spawn
) -> None:
    sim.inject("submit", faults.reset_after_accept())
    async with spawn(sim, protocol=protocol) as caller:
        result = await caller.call("generate_image", prompt="a mug", wait_seconds=5)
        assert result.is_error
        assert [block.type for block in result.content] == ["text"]
        first = error_of(result)
        assert first == {
            "code": "unconfirmed",
            "message": Like("the submit may have been accepted and charged .*"),
            "next_step": Like("Do not submit it again: .*"),
            "retry_after_seconds": None,
            "submission_id": SUBMISSION,
        }
        handle = first["submission_id"]
        assert handle in texts(result)
        assert sim.fired == {"reset_after_accept": 1}
        assert await caller.error("generate_image", prompt="a mug", wait_seconds=0) == first
        page = await caller.task("list_tasks", status="unconfirmed")
        expected = view(
            submission_id=handle,
            status="unconfirmed",
            prompt="a mug",
            failure={"code": "unconfirmed", "message": Like("(?s).+")},
            eta_seconds=None,
            next=[],
        )
        assert page["tasks"] == [row(expected)]
        # Whoever asks how it stands gets an answer, no error.
        assert await caller.task("get_task", task_id=handle, wait_seconds=0) == expected
        assert len(sim.submits()) == 1
        # Killed in mid-POST, the answer is as lost.
        sim.inject("submit", faults.hang())
        async with anyio.create_task_group() as group:

            async def cut_off() -> None:
                await sim.until(lambda: len(sim.ledger) == 2)
                caller.kill()

            group.start_soon(cut_off)
            with pytest.raises(Exception, match=r"(?i)closed"):
                await caller.call("generate_image", prompt="a jug", wait_seconds=0)

    async with spawn(sim, protocol=protocol) as caller:
        assert await caller.error("generate_image", prompt="a mug", wait_seconds=0) == first
        doubt = await caller.error("generate_image", prompt="a jug", wait_seconds=5)
        assert doubt["code"] == "unconfirmed"
        page = await caller.task("list_tasks", status="unconfirmed")
        assert [task["submission_id"] for task in page["tasks"]] == [doubt["submission_id"], handle]
        assert len(sim.submits()) == len(sim.ledger) == 2
        # Only who says so pays for another.
        await caller.task("generate_image", prompt="a mug", wait_seconds=0, allow_duplicate=True)
    assert len(sim.submits()) == len(sim.ledger) == 3


@both_protocols
async def test_an_identical_request_is_the_running_task_unless_another_is_asked_for(
    protocol: str, sim: Simulator, spawn: Spawn
) -> None:
    async with spawn(sim, protocol=protocol) as caller:
        answers: list[dict[str, Any]] = []

        async def call() -> None:
            answers.append(await caller.task("generate_image", prompt="a mug", wait_seconds=0))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            group.start_soon(call)
        first, second = sorted(answers, key=lambda answer: bool(answer["duplicate_of_open_task"]))
        assert first == view(task_id=sim.ledger[0].task_id, prompt="a mug")
        again = {"tool": "generate_image", "arguments": {"prompt": "a mug", "wait_seconds": 0, "allow_duplicate": True}}
        assert second == view(
            task_id=first["task_id"],
            prompt="a mug",
            duplicate_of=first["submission_id"],
            duplicate_of_open_task=True,
            next=[*first["next"], again],
        )
        assert len(sim.submits()) == 1
        another = await caller.task("generate_image", prompt="a mug", wait_seconds=0, allow_duplicate=True)
        assert another == view(task_id=sim.ledger[1].task_id, prompt="a mug")
        assert len(sim.submits()) == 2

        # The same change asked for in two ways is one purchase, also when it is over.
        sim.finish(first["task_id"])
        await caller.task("get_task", task_id=first["task_id"], wait_seconds=10)
        upscale = {"task_id": first["task_id"], "index": 1, "wait_seconds": 0}
        large = await caller.task("upscale_image", **upscale)
        same = await caller.task("simple_change", content=f"{first['task_id']} U1", wait_seconds=0)
        assert (same["task_id"], same["duplicate_of_open_task"]) == (large["task_id"], True)
        assert len(sim.submits()) == 3
        sim.finish(large["task_id"])
        await caller.task("get_task", task_id=large["task_id"], wait_seconds=10)
        over = await caller.task("upscale_image", **upscale)
        assert (over["task_id"], over["duplicate_of_open_task"]) == (large["task_id"], False)
        assert over["message"].startswith("Nothing new was started: the same request finished ")
        assert over["next"][-1] == {"tool": "upscale_image", "arguments": upscale | {"allow_duplicate": True}}
        assert len(sim.submits()) == 3
        again = await caller.task("upscale_image", **upscale, allow_duplicate=True)
        assert again["task_id"] == sim.ledger[3].task_id
    assert len(sim.submits()) == len(sim.ledger) == 4
