"""The queue for a free slot: who waits gets one in order, in the time of the call, and hears its position."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import anyio
import pytest
from conftest import Caller

from mj_mcp.app import open_studio
from mj_mcp.errors import Busy, TaskNotFound
from mj_mcp.events import OnProgress
from mj_mcp.journal.protocol import KEPT_SECONDS
from mj_mcp.prompts import Options
from mj_mcp.settings import Settings
from mj_mcp.simulator import Simulator
from mj_mcp.studio import Call, Purchase, Result, Studio
from mj_mcp.tasks import Status, Task

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

Connect = Callable[..., AbstractAsyncContextManager[Caller]]
PATIENCE = 30.0


async def until(true: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    """Wait until it is true; what never becomes true is a defect."""
    with anyio.fail_after(PATIENCE):
        while True:
            answer = true()
            if answer if isinstance(answer, bool) else await answer:
                return
            await anyio.sleep(0.01)


async def test_a_call_that_waits_gets_the_slot_that_becomes_free(sim: Simulator, spawn: Connect) -> None:
    heard: list[str | None] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    async with spawn(sim, MJ_MAX_OPEN_TASKS="1") as caller, anyio.create_task_group() as group:
        first = await caller.task("generate_image", prompt="a mug", wait_seconds=0)

        async def second() -> None:
            arguments = {"prompt": "a jug", "wait_seconds": PATIENCE}
            result = await caller.client.call_tool("generate_image", arguments, progress_callback=hear)
            assert not result.is_error
            assert (result.structured_content or {})["status"] == "succeeded"

        group.start_soon(second)
        await until(lambda: any("number 1 in the queue" in (message or "") for message in heard))
        assert len(sim.submits()) == 1
        sim.finish(first["task_id"])
        await until(lambda: len(sim.ledger) == 2)
        sim.finish(sim.ledger[1].task_id)


async def test_a_call_whose_time_ends_in_the_queue_has_bought_nothing_and_says_its_position(
    sim: Simulator, connect: Connect
) -> None:
    async with connect(sim, MJ_MAX_OPEN_TASKS="1") as caller:
        first = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        error = await caller.error("generate_image", prompt="a jug", wait_seconds=0.6)
        assert error["code"] == "busy"
        assert "number 1 in the queue" in error["message"]
        assert 0 < error["retry_after_seconds"] < KEPT_SECONDS
        # Its slot is kept: the next one is second, and the same call again goes on from there.
        error = await caller.error("generate_image", prompt="a jar", wait_seconds=0.6)
        assert "number 2 in the queue" in error["message"]
        sim.finish(first["task_id"])
        assert (await caller.task("generate_image", prompt="a jug", wait_seconds=PATIENCE))["task_id"]
    assert [charge.body["prompt"] for charge in sim.ledger] == ["a mug", "a jug"]


async def test_a_call_that_is_cancelled_in_the_queue_leaves_it(sim: Simulator, spawn: Connect) -> None:
    heard = anyio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        if "queue" in (message or ""):
            heard.set()

    async with spawn(sim, MJ_MAX_OPEN_TASKS="1") as caller:
        first = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        async with anyio.create_task_group() as group:

            async def second() -> None:
                arguments = {"prompt": "a jug", "wait_seconds": PATIENCE}
                await caller.client.call_tool("generate_image", arguments, progress_callback=hear)

            group.start_soon(second)
            with anyio.fail_after(PATIENCE):
                await heard.wait()
            group.cancel_scope.cancel()

        async def next_is_first() -> bool:
            error = await caller.error("generate_image", prompt="a jar", wait_seconds=0.6)
            return "number 1 in the queue" in error["message"]

        await until(next_is_first)
        sim.finish(first["task_id"])
        assert (await caller.task("generate_image", prompt="a jar", wait_seconds=PATIENCE))["task_id"]
    assert [charge.body["prompt"] for charge in sim.ledger] == ["a mug", "a jar"]


SettingsFor = Callable[..., Settings]


async def buy(
    studio: Studio,
    owner: str,
    prompt: str,
    wait_seconds: float = PATIENCE,
    *,
    allow_duplicate: bool = False,
    on_progress: OnProgress | None = None,
) -> Result:
    call = Call(owner=owner, wait_seconds=wait_seconds, on_progress=on_progress)
    return await studio.wait(
        call, await studio.imagine(call, prompt, Options(), Purchase(allow_duplicate=allow_duplicate))
    )


async def succeeded(studio: Studio, owner: str, task: Task) -> None:
    seen = await studio.recall(Call(owner=owner, wait_seconds=PATIENCE), task.submission_id)
    assert seen.task.status is Status.SUCCEEDED


async def test_callers_alternate_whoever_asks_more(sim: Simulator, settings_for: SettingsFor) -> None:
    async with open_studio(settings_for(sim.url, MJ_MAX_OPEN_TASKS="1")) as studio:
        positions: dict[str, int] = {}

        async def wait_for(owner: str, prompt: str) -> None:
            async def hear(_task: object, position: int = 0, /) -> None:
                positions[prompt] = position

            await buy(studio, owner, prompt, on_progress=hear)

        await buy(studio, "ann", "ann 0", 0)
        async with asyncio.TaskGroup() as group:
            for prompt in ("ann 1", "ann 2", "ann 3", "eve 1", "bob 1"):
                group.create_task(wait_for(prompt[:3], prompt))
                await until(lambda prompt=prompt: positions.get(prompt, 0) > 0)
            for number in range(6):
                await until(lambda number=number: len(sim.ledger) > number)
                sim.finish(sim.ledger[number].task_id)
    order = [charge.body["prompt"] for charge in sim.ledger]
    assert order == ["ann 0", "eve 1", "bob 1", "ann 1", "ann 2", "ann 3"]


async def test_a_repeat_of_what_has_succeeded_needs_no_slot_and_is_its_own_callers_alone(
    sim: Simulator, settings_for: SettingsFor
) -> None:
    async with open_studio(settings_for(sim.url, MJ_MAX_OPEN_TASKS="1")) as studio:
        first = (await buy(studio, "ann", "a mug", 0)).task
        sim.finish(first.task_id or "")
        assert (
            await studio.recall(Call(owner="ann", wait_seconds=PATIENCE), first.submission_id)
        ).task.status is Status.SUCCEEDED
        await buy(studio, "ann", "a jug", 0)
        again = await buy(studio, "ann", "a mug", 0)
        assert (again.task.submission_id, again.task.status) == (first.submission_id, Status.SUCCEEDED)
        with pytest.raises(Busy):
            await buy(studio, "bob", "a mug", 0)
        with pytest.raises(Busy):
            await buy(studio, "ann", "a mug", 0, allow_duplicate=True)
    assert [charge.body["prompt"] for charge in sim.ledger] == ["a mug", "a jug"]


async def test_a_caller_who_does_not_wait_gets_a_slot_while_another_login_queues(
    sim: Simulator, settings_for: SettingsFor
) -> None:
    async with open_studio(settings_for(sim.url, MJ_MAX_OPEN_TASKS="1")) as studio:
        reports = Counter[str]()

        async def wait(prompt: str) -> None:
            async def hear(_task: object, position: int = 0, /) -> None:
                reports[prompt] += position > 0

            await buy(studio, "ann", prompt, on_progress=hear)

        first = (await buy(studio, "ann", "ann 0", 0)).task
        queue = [asyncio.create_task(wait(f"ann {number}")) for number in (1, 2)]
        await until(lambda: len(reports) == len(queue))
        with pytest.raises(Busy, match=f"number 1 in the queue and keeps its slot for {KEPT_SECONDS:g} s"):
            await buy(studio, "bob", "bob 1", 0)
        sim.finish(first.task_id or "")
        assert (
            await studio.recall(Call(owner="ann", wait_seconds=PATIENCE), first.submission_id)
        ).task.status is Status.SUCCEEDED
        # The others ask for the free slot in vain.
        heard = reports.copy()
        await until(lambda: all(reports[prompt] > heard[prompt] + 1 for prompt in heard))
        assert (await buy(studio, "bob", "bob 1", 0)).task.status is Status.QUEUED
        for work in queue:
            work.cancel()
        await asyncio.gather(*queue, return_exceptions=True)
    assert [charge.body["prompt"] for charge in sim.ledger] == ["ann 0", "bob 1"]


async def test_a_server_that_stops_sends_the_queue_off_and_buys_nothing(
    sim: Simulator, settings_for: SettingsFor
) -> None:
    async with open_studio(settings_for(sim.url, MJ_MAX_OPEN_TASKS="1")) as studio:
        await buy(studio, "local", "a mug", 0)
        waiting = anyio.Event()

        async def hear(_task: object, position: int = 0, /) -> None:
            if position:
                waiting.set()

        queued = asyncio.create_task(buy(studio, "local", "a jug", on_progress=hear))
        with anyio.fail_after(PATIENCE):
            await waiting.wait()
    with pytest.raises(Busy, match="stopping"):
        await asyncio.wait_for(queued, PATIENCE)
    assert len(sim.ledger) == 1


async def test_each_caller_has_limits_of_their_own(sim: Simulator, settings_for: SettingsFor) -> None:
    settings = settings_for(sim.url, MJ_MAX_OPEN_TASKS_PER_USER="1")
    async with open_studio(settings) as studio:
        await buy(studio, "ann", "a mug", 0)
        with pytest.raises(Busy, match="MJ_MAX_OPEN_TASKS_PER_USER"):
            await buy(studio, "ann", "a jug")
        assert (await buy(studio, "bob", "a jug", 0)).task.status is Status.QUEUED


async def test_a_task_that_nobody_here_bought_is_adopted_for_the_person_at_the_machine_only(
    sim: Simulator, settings_for: SettingsFor
) -> None:
    async with open_studio(settings_for(sim.url)) as studio:
        bought = (await buy(studio, "ann", "a mug", 0)).task.task_id
        assert bought is not None
        before = len(sim.requests)
        with pytest.raises(TaskNotFound) as theirs:
            await studio.recall(Call(owner="bob"), bought)
        with pytest.raises(TaskNotFound) as nobodys:
            await studio.recall(Call(owner="bob"), "9" * len(bought))
        # The same words, and no poll that would tell by its time.
        assert str(theirs.value).replace(bought, "ID") == str(nobodys.value).replace("9" * len(bought), "ID")
        assert len(sim.requests) == before
