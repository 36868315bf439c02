"""Submits pause when the proxy refuses the key or the account, and for nothing else; polls go on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import anyio
import pytest
from conftest import Caller
from structlog.testing import capture_logs

from mj_mcp.simulator import Fault, Simulator, faults
from mj_mcp.submits import PAUSE_SECONDS

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]
PATIENCE = 30.0


async def paused(caller: Caller, sim: Simulator) -> float:
    """A submit that the pause refuses, without a POST; how long it says to wait."""
    posts = len(sim.submits())
    error = await caller.error("generate_image", prompt="another one", wait_seconds=0)
    assert error["code"] == "unauthorized"
    assert "nothing was submitted" in error["message"]
    assert len(sim.submits()) == posts
    seconds = error["retry_after_seconds"]
    assert isinstance(seconds, float)
    return seconds


async def fail(caller: Caller, sim: Simulator, fault: Fault, prompt: str) -> str:
    fired = sim.fired[fault.name]
    sim.inject("submit", fault)
    error = await caller.error("generate_image", prompt=prompt, wait_seconds=0)
    assert sim.fired[fault.name] == fired + 1
    return str(error["code"])


@pytest.mark.parametrize("status", [401, 402])
async def test_one_refused_key_pauses_submits_for_a_minute(status: int, connect: Connect, sim: Simulator) -> None:
    async with connect(sim) as caller:
        assert await fail(caller, sim, faults.status(status), "one") == "unauthorized"
        assert 0 < await paused(caller, sim) <= PAUSE_SECONDS
    assert sim.polls() == [], "there is nothing to ask"


@pytest.mark.parametrize("answer", [faults.status(403), faults.html(403)], ids=lambda fault: fault.name)
async def test_a_403_pauses_submits_once_a_free_fetch_is_refused_too(
    answer: Fault, connect: Connect, sim: Simulator
) -> None:
    sim.inject("fetch", faults.status(403))
    with capture_logs() as lines:
        async with connect(sim) as caller:
            assert await fail(caller, sim, answer, "one") == "unauthorized"
            with anyio.fail_after(PATIENCE):
                while not [line for line in lines if line["event"] == "submits_paused"]:  # noqa: ASYNC110 - nobody is notified
                    await anyio.sleep(0.01)
            assert 0 < await paused(caller, sim) <= PAUSE_SECONDS
    assert sim.fired["status_403"] == 1 + (answer.name == "status_403")
    assert len(sim.polls()) == 1


@pytest.mark.parametrize("answer", [faults.status(403), faults.html(403)], ids=lambda fault: fault.name)
async def test_a_403_for_one_request_stops_nobody_else(answer: Fault, connect: Connect, sim: Simulator) -> None:
    """A firewall's page, say, for what stands in one prompt."""
    async with connect(sim) as caller:
        assert await fail(caller, sim, answer, "one") == "unauthorized"
        await sim.until(lambda: len(sim.polls()) == 1, PATIENCE)
        for number in range(3):
            await caller.task("generate_image", prompt=f"good {number}", wait_seconds=0)
    assert len(sim.ledger) == 3


NOT_THE_ACCOUNT = [
    faults.code(4),
    faults.code(3),
    faults.code(24),
    faults.code(23),
    faults.code(30, http_status=429),
    faults.retry_after("1"),
    faults.status(400),
    faults.status(404),
    faults.html(404),
    faults.status(500),
    faults.html(502),
    faults.reset_after_accept(),
    faults.half_body(),
    faults.status(
        400, b'{"code": 400, "reason": "BILLING_BALANCE_NOT_ENOUGH", "message": "no credit"}', name="balance"
    ),
]


@pytest.mark.parametrize("fault", NOT_THE_ACCOUNT, ids=lambda fault: fault.name)
async def test_however_often_one_caller_is_refused_the_others_go_on(
    fault: Fault, connect: Connect, sim: Simulator
) -> None:
    async with connect(sim, MJ_MAX_OPEN_TASKS="100") as caller:
        for number in range(6):
            await fail(caller, sim, fault, f"{number}")
        await caller.task("generate_image", prompt="a mug", wait_seconds=0)


@pytest.mark.slow
async def test_a_proxy_that_cannot_be_reached_pauses_nothing(connect: Connect, sim: Simulator) -> None:
    async with connect(sim) as caller:
        await sim.stop_listening()
        for number in range(6):
            error = await caller.error("generate_image", prompt=f"{number}", wait_seconds=0)
            assert error["code"] == "upstream_unreachable"
        await sim.start_listening()
        await caller.task("generate_image", prompt="a mug", wait_seconds=0)
    assert len(sim.submits()) == 1


async def test_during_a_pause_open_tasks_are_found_and_watched(connect: Connect, sim: Simulator) -> None:
    async with connect(sim) as caller:
        first = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        await fail(caller, sim, faults.status(401), "one")
        again = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        assert (again["task_id"], again["duplicate_of_open_task"]) == (first["task_id"], True)
        sim.finish(first["task_id"])
        seen = await caller.task("get_task", task_id=first["task_id"], wait_seconds=30)
        assert seen["status"] == "succeeded"
        posts = len(sim.submits())
        error = await caller.error("upscale_image", task_id=first["task_id"], index=1, wait_seconds=0)
        assert error["code"] == "unauthorized"
        assert len(sim.submits()) == posts
