"""Tasks that run as long as the server: none ends unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from mj_mcp.background import FIRST_SECONDS, LONGEST_SECONDS, STEADY_SECONDS, Background

pytestmark = pytest.mark.anyio


class Clock:
    """Time that passes only in pauses, and while a task runs that says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.paused, self.go_on = asyncio.Event(), asyncio.Event()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        self.paused.set()
        await self.go_on.wait()
        self.go_on.clear()


class Work:
    """A task that ends as the test says, once for each of `ends`, and then runs until it is cancelled."""

    def __init__(self, *ends: Callable[[], None]) -> None:
        self.ends = list(ends)
        self.runs = 0
        self.steady, self.cancelled = asyncio.Event(), False

    async def __call__(self) -> None:
        self.runs += 1
        if self.ends:
            self.ends.pop(0)()
            return
        self.steady.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled = True


def fail() -> None:
    raise RuntimeError("a defect")


def be_cancelled() -> None:
    raise asyncio.CancelledError  # by a stranger: nobody has cancelled this task


def just_return() -> None:
    pass


@asynccontextmanager
async def running(work: Work, clock: Clock) -> AsyncIterator[Background]:
    async with asyncio.timeout(30), Background(clock, clock.sleep) as background:
        background.start("work", work)
        yield background


@pytest.mark.parametrize(
    ("end", "reason"), [(fail, RuntimeError), (be_cancelled, asyncio.CancelledError), (just_return, type(None))]
)
async def test_a_task_that_ends_is_logged_and_down_until_it_is_started_again(
    end: Callable[[], None], reason: type[object]
) -> None:
    work, clock = Work(end), Clock()
    with capture_logs() as logs:
        async with running(work, clock) as background:
            assert background.down == set()
            await clock.paused.wait()
            assert (background.down, work.runs) == ({"work"}, 1)
            clock.go_on.set()
            await work.steady.wait()
            assert (background.down, work.runs) == (set(), 2)
    assert [(line["event"], line["task"], type(line["exc_info"])) for line in logs] == [
        ("background_task_ended", "work", reason)
    ]


async def test_a_task_that_ends_again_and_again_is_started_less_and_less_often_until_it_has_held() -> None:
    clock = Clock()

    def hold() -> None:
        clock.now += STEADY_SECONDS + 1

    work = Work(*[fail] * 8, hold, fail)
    async with running(work, clock):
        while not work.steady.is_set():
            await asyncio.sleep(0)
            clock.go_on.set()
    longer = [FIRST_SECONDS * 2**n for n in range(6)]
    assert clock.pauses == [*longer, LONGEST_SECONDS, LONGEST_SECONDS, FIRST_SECONDS, 2 * FIRST_SECONDS]


async def test_leaving_ends_what_runs_and_what_pauses() -> None:
    steady, pausing, clock = Work(), Work(fail), Clock()
    with capture_logs() as logs:
        async with running(steady, clock) as background:
            background.start("pausing", pausing)
            await steady.steady.wait()
            await clock.paused.wait()
    assert steady.cancelled
    assert (steady.runs, pausing.runs) == (1, 1)
    assert [line["task"] for line in logs] == ["pausing"]
