"""Full collections stop every call, so they are made while nobody waits."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from mj_mcp.heap import AT_LAST_SECONDS, CHECK_SECONDS, THRESHOLD, collect_when_idle, collected

pytestmark = pytest.mark.anyio


class Knot:
    """Rubbish that only a collection finds: it holds itself."""

    tied = 0

    def __init__(self) -> None:
        self.self = self
        Knot.tied += 1

    def __del__(self) -> None:
        Knot.tied -= 1


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """As it was before."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()
    gc.enable()


async def found(*, busy: bool, seconds: float) -> list[float]:
    """When rubbish was found in so many seconds of a server that is busy, or is not."""
    clock, times = 0.0, list[float]()

    async def sleep(pause: float) -> None:
        nonlocal clock
        if clock and not Knot.tied:
            times.append(clock)
        if clock >= seconds:
            raise asyncio.CancelledError
        clock += pause
        knot = Knot()
        gc.collect(1)
        del knot  # rubbish from here on, and past the small collections

    gc.set_threshold(*THRESHOLD)
    with pytest.raises(asyncio.CancelledError):
        await collect_when_idle(lambda: busy, now=lambda: clock, sleep=sleep)
    return times


async def test_rubbish_is_found_while_nobody_waits() -> None:
    assert await found(busy=False, seconds=3 * CHECK_SECONDS) == [CHECK_SECONDS * n for n in (1, 2, 3)]


async def test_while_somebody_waits_it_is_left_until_it_has_been_long() -> None:
    assert await found(busy=True, seconds=2 * AT_LAST_SECONDS) == [AT_LAST_SECONDS, 2 * AT_LAST_SECONDS]


async def test_what_was_set_up_is_never_walked_and_no_full_collection_comes_by_itself() -> None:
    async with collected(lambda: True):
        assert gc.isenabled()
        assert gc.get_freeze_count() > 10_000
        full = gc.get_stats()[2]["collections"]
        kept = [[n] for n in range(200_000)]
        assert gc.get_stats()[2]["collections"] == full
    assert len(kept) == 200_000
