"""Calls that wait: they end in time, show progress, and name the next call.

Every test speaks to the server as a process on pipes, in both generations of the protocol, and to a simulated
proxy over real HTTP. A job moves when the test says so; nothing here sleeps.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import anyio
import pytest
from conftest import LOAD_SECONDS, PROTOCOLS, Caller
from mcp_types import CallToolResult
from views import bounded, finished, view, within

from mj_mcp.simulator import Simulator, faults

pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and asyncio pipes are of POSIX"),
]

Spawn = Callable[..., AbstractAsyncContextManager[Caller]]

both_protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


@both_protocols
async def test_a_wait_that_ends_answers_in_time_with_the_task_and_the_next_call(
    protocol: str, sim: Simulator, spawn: Spawn
) -> None:
    async with spawn(sim, protocol=protocol) as caller:
        await caller.task("list_tasks")  # the journal is open
        with within(4):
            task = await caller.task("generate_image", prompt="a mug", wait_seconds=3)
        # Looked at, so it says what the proxy says.
        assert task == view(task_id=task["task_id"], prompt="a mug", upstream_status="TASK_STATUS_QUEUED")
        assert len(sim.polls(task["task_id"])) >= 1

        sim.process(task["task_id"], progress=40, eta=55)
        (follow_up,) = task["next"]
        with within(2):
            task = await caller.task(follow_up["tool"], **{**follow_up["arguments"], "wait_seconds": 1})
        assert task == view(
            task_id=task["task_id"],
            prompt="a mug",
            status="processing",
            upstream_status="TASK_STATUS_PROCESSING",
            progress=40,
            eta_seconds=55,
        )

        # A wait ends when the job ends, long before its time is up.
        async with anyio.create_task_group() as group, bounded():
            before = len(sim.polls())

            async def end() -> None:
                await sim.until(lambda: len(sim.polls()) > before)
                sim.finish(task["task_id"])

            group.start_soon(end)
            with within(10):
                done = await caller.task("get_task", task_id=task["task_id"], wait_seconds=600)
        assert done == finished(sim, task["task_id"], prompt="a mug")

        # A call that does not wait answers as soon as the proxy has.
        sim.inject("submit", faults.delay(1.0))
        began = time.monotonic()
        queued = await caller.task("generate_image", prompt="a jug", wait_seconds=0)
        assert 1.0 <= time.monotonic() - began <= 3.0 + LOAD_SECONDS
        assert queued == view(task_id=sim.ledger[-1].task_id, prompt="a jug")
        assert sim.fired == {"delay": 1}


@both_protocols
async def test_a_submit_that_hangs_holds_no_call_beyond_its_time(protocol: str, sim: Simulator, spawn: Spawn) -> None:
    async with spawn(sim, protocol=protocol) as caller:
        await caller.task("list_tasks")  # the journal is open
        answer = asyncio.Event()
        sim.inject("submit", faults.held(answer))
        with within(2):
            task = await caller.task("generate_image", prompt="a mug", wait_seconds=1)
        handle = task["submission_id"]
        assert task == view(
            status="submitting",
            prompt="a mug",
            eta_seconds=None,
            next=[{"tool": "get_task", "arguments": {"task_id": handle, "wait_seconds": 25}}],
        )
        again = await caller.task("get_task", task_id=handle, wait_seconds=0)
        assert again == task
        # The same request meanwhile is the same purchase.
        same = await caller.task("generate_image", prompt="a mug", wait_seconds=0.1)
        assert (same["duplicate_of"], same["duplicate_of_open_task"]) == (handle, True)
        assert same["message"].startswith("Nothing new was started: the same request is open already.")

        (charge,) = sim.ledger
        answer.set()
        sim.finish(charge.task_id)
        done = await caller.task("get_task", task_id=handle, wait_seconds=30)
        assert done == finished(sim, charge.task_id, prompt="a mug", submission_id=handle)
        assert sim.fired == {"held": 1}
        # When no answer ever comes, it is in doubt, and waiting for it ends.
        sim.inject("submit", faults.hang())
        hung = await caller.task("generate_image", prompt="a jug", wait_seconds=0.2)
        assert (hung["status"], hung["task_id"]) == ("submitting", None)
        await sim.stop_listening(abort=True)
        lost = await caller.task("get_task", task_id=hung["submission_id"], wait_seconds=10)
        assert lost["status"] == "unconfirmed"
        assert sim.fired == {"held": 1, "hang": 1}
        assert len(sim.submits()) == 2


@both_protocols
async def test_progress_rises_strictly_and_says_what_it_is_based_on(
    protocol: str, sim: Simulator, spawn: Spawn
) -> None:
    reports: list[tuple[float, float | None, str | None]] = []
    heard = anyio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        nonlocal heard
        reports.append((progress, total, message))
        heard.set()
        heard = anyio.Event()

    async def until(message: str) -> None:
        while not any(message in (said or "") for _, _, said in reports):
            await heard.wait()

    async with spawn(sim, protocol=protocol) as caller, bounded(), anyio.create_task_group() as group:
        results: list[CallToolResult] = []

        async def call() -> None:
            arguments = {"prompt": "a mug", "wait_seconds": 20}
            results.append(await caller.client.call_tool("generate_image", arguments, progress_callback=hear))

        sim.inject("submit", faults.delay(1.5))
        group.start_soon(call)
        await until("submitting")
        await until("queued")
        (charge,) = sim.ledger
        sim.process(charge.task_id)
        await until("usually done in about")
        sim.process(charge.task_id, progress=35)
        await until("35 % by the proxy")
        sim.process(charge.task_id, progress=70)
        await until("70 % by the proxy")
        # A proxy that takes it back: what was shown stays.
        sim.process(charge.task_id, progress=20)
        shown = len(reports)
        while len(reports) == shown:
            await heard.wait()
        sim.finish(charge.task_id)
    (result,) = results
    assert result.structured_content == finished(sim, charge.task_id, prompt="a mug")
    values = [value for value, _, _ in reports]
    assert all(before < after for before, after in itertools.pairwise(values))
    assert {total for _, total, _ in reports} == {100}
    for value, _, message in reports:
        by_proxy = re.fullmatch(r"(\d+) % by the proxy", message or "")
        assert by_proxy is None or value == pytest.approx(int(by_proxy[1]), abs=0.5)
        assert by_proxy or value < 35
