"""Work is done once, however many ask for it, and goes on when they leave."""

from __future__ import annotations

import asyncio

import pytest

from mj_mcp.gallery.single_flight import SingleFlight


async def test_many_who_ask_share_one_task_and_the_next_one_begins_anew() -> None:
    flight: SingleFlight[str, int] = SingleFlight()
    begun: list[int] = []

    async def work() -> int:
        begun.append(len(begun))
        await asyncio.sleep(0)
        return begun[-1]

    assert await asyncio.gather(*(flight.run("a", work) for _ in range(5))) == [0] * 5
    assert await flight.run("a", work) == 1


async def test_the_work_goes_on_when_one_who_waits_is_cancelled() -> None:
    flight: SingleFlight[str, bool] = SingleFlight()
    gate = asyncio.Event()
    leaving = asyncio.create_task(flight.run("a", gate.wait))
    staying = asyncio.create_task(flight.run("a", gate.wait))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    gate.set()
    assert leaving.cancelled()
    assert await staying


async def test_a_failure_reaches_all_who_wait_and_is_not_remembered() -> None:
    flight: SingleFlight[str, float] = SingleFlight()

    async def fail() -> float:
        await asyncio.sleep(0)
        return 1 / 0

    found = await asyncio.gather(flight.run("a", fail), flight.run("a", fail), return_exceptions=True)
    assert [type(one) for one in found] == [ZeroDivisionError] * 2
    with pytest.raises(ZeroDivisionError):
        await flight.run("a", fail)


async def test_closing_cancels_what_runs() -> None:
    flight: SingleFlight[str, bool] = SingleFlight()
    task = flight.begin("a", asyncio.Event().wait)
    await flight.aclose()
    assert task.cancelled()
