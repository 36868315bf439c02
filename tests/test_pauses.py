"""After a refused key, or five submits in a row that came to nothing, submits pause; looks go on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import anyio
import pytest
from conftest import Caller

from mj_mcp import submits
from mj_mcp.simulator import Fault, Simulator, faults

pytestmark = pytest.mark.anyio

Connect = Callable[..., AbstractAsyncContextManager[Caller]]

UNREADABLE = [faults.reset_after_accept(), faults.status(500), faults.half_body(), faults.code(4), faults.html(502)]


async def paused(caller: Caller, sim: Simulator, code: str) -> float:
    """A submit that the pause refuses, without a POST; for how long it is told to wait."""
    posts = len(sim.submits())
    error = await caller.error("generate_image", prompt="another one", wait_seconds=0)
    assert error["code"] == code
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


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_one_refused_key_pauses_submits_for_a_minute(status: int, connect: Connect, sim: Simulator) -> None:
    async with connect(sim) as caller:
        assert await fail(caller, sim, faults.status(status), "one") == "unauthorized"
        assert 50 < await paused(caller, sim, "unauthorized") <= 60


async def test_five_submits_in_a_row_that_came_to_nothing_pause_the_next(connect: Connect, sim: Simulator) -> None:
    async with connect(sim) as caller:
        for number, fault in enumerate(UNREADABLE):
            assert await fail(caller, sim, fault, f"{number}") in {"unconfirmed", "rejected"}
        assert 50 < await paused(caller, sim, "busy") <= 60
    assert len(sim.submits()) == len(UNREADABLE)


async def test_a_proxy_that_cannot_be_reached_pauses_them_too(connect: Connect, sim: Simulator) -> None:
    async with connect(sim) as caller:
        await sim.stop_listening()
        for number in range(5):
            error = await caller.error("generate_image", prompt=f"{number}", wait_seconds=0)
            assert error["code"] == "upstream_unreachable"
        await sim.start_listening()
        await paused(caller, sim, "busy")
    assert sim.submits() == []


async def test_one_success_in_between_begins_the_count_anew(connect: Connect, sim: Simulator) -> None:
    async with connect(sim, MJ_MAX_OPEN_TASKS="100") as caller:
        for turn in range(2):
            for number, fault in enumerate(UNREADABLE[:4]):
                await fail(caller, sim, fault, f"{turn} {number}")
            await caller.task("generate_image", prompt=f"good {turn}", wait_seconds=0)


@pytest.mark.parametrize("fault", [faults.code(24), faults.code(23), faults.retry_after("1")], ids=lambda f: f.name)
async def test_a_refused_prompt_or_a_full_queue_is_no_reason_to_pause(
    fault: Fault, connect: Connect, sim: Simulator
) -> None:
    async with connect(sim) as caller:
        for number in range(6):
            assert await fail(caller, sim, fault, f"{number}") in {"prompt_refused", "busy"}
        await caller.task("generate_image", prompt="a mug", wait_seconds=0)


async def test_during_a_pause_open_tasks_are_found_and_watched(connect: Connect, sim: Simulator) -> None:
    async with connect(sim) as caller:
        first = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        await fail(caller, sim, faults.status(401), "one")
        again = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        assert (again["task_id"], again["duplicate_of_open_task"]) == (first["task_id"], True)
        sim.finish(first["task_id"])
        looked = await caller.task("get_task", task_id=first["task_id"], wait_seconds=30)
        assert looked["status"] == "succeeded"
        posts = len(sim.submits())
        error = await caller.error("upscale_image", task_id=first["task_id"], index=1, wait_seconds=0)
        assert error["code"] == "unauthorized"
        assert len(sim.submits()) == posts


@pytest.mark.parametrize("code", ["unauthorized", "busy"])
async def test_a_pause_ends_when_it_said(
    code: str, connect: Connect, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submits, "PAUSE_SECONDS", 0.9)
    async with connect(sim) as caller:
        if code == "unauthorized":
            await fail(caller, sim, faults.status(403), "one")
        else:
            for number in range(5):
                await fail(caller, sim, faults.code(4), f"{number}")
        seconds = await paused(caller, sim, code)
        assert 0 < seconds <= 1
        await anyio.sleep(seconds)  # as an agent does that was told to
        task = await caller.task("generate_image", prompt="another one", wait_seconds=0)
        assert task["task_id"] == sim.ledger[-1].task_id
