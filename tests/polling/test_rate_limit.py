"""The ceiling of polls, in a time that passes at once."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

from mj_mcp.polling.rate_limit import POLLS_AT_ONCE, RateLimit


class Jumping(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.SelectSelector):
    def __init__(self, loop: Jumping) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        self._loop.now += timeout or 0.0
        return super().select(0)


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Jumping) as runner:
        runner.run(work)


def test_no_second_has_more_than_the_ceiling_and_no_slot_is_wasted() -> None:
    at: list[float] = []

    async def poll(limit: RateLimit) -> None:
        async with limit.slot(0.0):
            at.append(asyncio.get_running_loop().time())

    async def main() -> None:
        limit = RateLimit(5)
        async with asyncio.TaskGroup() as group:
            for _ in range(23):
                group.create_task(poll(limit))

    run(main())
    assert all(sum(first <= other < first + 1 for other in at) <= 5 for first in at)
    assert at[0] == 0.0
    assert max(at) < 4 * 1.1


def test_whoever_was_not_seen_for_longest_goes_first() -> None:
    order: list[float] = []

    async def poll(limit: RateLimit, seen_at: float) -> None:
        async with limit.slot(seen_at):
            order.append(seen_at)

    async def main() -> None:
        limit = RateLimit(1)
        async with asyncio.TaskGroup() as group:
            for seen_at in (50.0, 30.0, 40.0, 10.0, 20.0):
                group.create_task(poll(limit, seen_at))
                await asyncio.sleep(0)

    run(main())
    assert order == [50.0, 10.0, 20.0, 30.0, 40.0], "the first found a free slot"


def test_a_proxy_that_does_not_answer_is_not_asked_ever_more() -> None:
    under_way, most = 0, 0

    async def poll(limit: RateLimit) -> None:
        nonlocal under_way, most
        async with limit.slot(0.0):
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(30)
            under_way -= 1

    async def main() -> None:
        limit = RateLimit(50)
        async with asyncio.TaskGroup() as group:
            for _ in range(3 * POLLS_AT_ONCE):
                group.create_task(poll(limit))

    run(main())
    assert most == POLLS_AT_ONCE


def test_who_is_cancelled_takes_no_slot_along() -> None:
    got = 0

    async def poll(limit: RateLimit) -> None:
        nonlocal got
        async with limit.slot(0.0):
            got += 1
            await asyncio.sleep(1)

    async def main() -> None:
        limit = RateLimit(1000)
        holding = [asyncio.create_task(poll(limit)) for _ in range(POLLS_AT_ONCE)]
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(poll(limit)) for _ in range(POLLS_AT_ONCE)]
        await asyncio.sleep(0.5)
        for task in waiting + holding[:3]:
            task.cancel()
        async with asyncio.TaskGroup() as group:
            for _ in range(POLLS_AT_ONCE):
                group.create_task(poll(limit))

    run(main())
    assert got == 2 * POLLS_AT_ONCE
