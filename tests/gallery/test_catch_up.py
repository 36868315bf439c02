"""Originals that could not be archived when their task ended are tried again, by themselves, while their links live."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from galleries import Clock, Host, opened, task

from mj_mcp.errors import StorageUnavailable
from mj_mcp.gallery import Gallery
from mj_mcp.gallery.catch_up import LINK_SECONDS, LONGEST_SECONDS, SCAN_SECONDS, CatchUp
from mj_mcp.journal import Page
from mj_mcp.tasks import Task

pytestmark = pytest.mark.anyio


async def round_of(gallery: Gallery) -> float:
    """One round of catching up; seconds until the next."""
    return await gallery._catch_up.round(gallery._sheets.make)


async def test_a_picture_that_could_not_be_fetched_is_archived_later_though_nobody_asks(tmp_path: Path) -> None:
    host, clock = Host(), Clock()
    grid = task(1, clock.now, pictures=4)
    host.down = {grid.images[1].url}
    async with opened(tmp_path, host, clock) as at:
        await at.add(grid)
        await at.gallery._sheets.make(grid)
        assert [image.path is None for image in (await at.row("sub_1")).images] == [False, True, False, False]
        assert await round_of(at.gallery) == pytest.approx(30)
        assert len(host.asked) == 4, "it is not due yet"
        clock.now += 31
        await round_of(at.gallery)
        assert host.asked[4:] == [grid.images[1].url], "what is archived is not fetched again"
        host.down.clear()
        clock.now += 3600
        await round_of(at.gallery)
        assert await at.archived() == {"sub_1"}
        clock.now += 3600
        await round_of(at.gallery)
        assert len(host.asked) == 6, "nothing is owed any more"


@pytest.mark.slow
async def test_all_that_a_dead_process_left_is_archived_at_the_start_however_much_it_is(tmp_path: Path) -> None:
    host, clock = Host(), Clock()
    async with opened(tmp_path, host, clock) as at:
        await at.add(*[task(number, clock.now - 60 * number) for number in range(1, 231)])
        await round_of(at.gallery)
        assert len(await at.archived()) == 230
        assert len(host.asked) == 230


async def test_what_another_process_leaves_is_found_by_a_later_scan(tmp_path: Path) -> None:
    host, clock = Host(), Clock()
    async with opened(tmp_path, host, clock) as at:
        assert await round_of(at.gallery) == pytest.approx(SCAN_SECONDS)
        await at.add(task(1, clock.now + 100))
        clock.now += SCAN_SECONDS
        await round_of(at.gallery)
        assert await at.archived() == {"sub_1"}


async def test_a_task_that_has_just_ended_is_left_to_the_process_that_saw_it(tmp_path: Path) -> None:
    host, clock = Host(), Clock()
    async with opened(tmp_path, host, clock) as at:
        await at.add(task(1, clock.now - 1))
        assert await round_of(at.gallery) == pytest.approx(4)
        assert host.asked == []


class Attempts:
    """Stands in for the development of a task that never succeeds; remembers when it was tried."""

    def __init__(self, clock: Clock) -> None:
        self.at: list[tuple[str, float]] = []
        self._clock = clock
        self.catch_up: CatchUp | None = None

    async def __call__(self, task: Task) -> None:
        self.at.append((task.submission_id, self._clock.now))
        assert self.catch_up is not None
        self.catch_up.add(task)


async def test_a_dead_link_is_tried_ever_more_seldom_for_a_day_and_then_no_more(tmp_path: Path) -> None:
    clock = Clock()
    end = clock.now
    async with opened(tmp_path, Host(), clock) as at:
        await at.add(task(1, end))
        attempts = Attempts(clock)
        attempts.catch_up = CatchUp(at.journal, clock)
        attempts.catch_up.add(task(1, end))
        while clock.now < end + 3 * LINK_SECONDS:
            clock.now += max(1.0, await attempts.catch_up.round(attempts))
        ages = [when - end for _, when in attempts.at]
        gaps = [later - earlier for earlier, later in itertools.pairwise(ages)]
        assert ages[:5] == pytest.approx([30, 60, 120, 240, 480], abs=2)
        assert max(gaps) <= LONGEST_SECONDS + 1
        assert max(ages) <= LINK_SECONDS
        assert 24 <= len(ages) <= 40


async def test_what_another_process_has_archived_meanwhile_is_not_tried(tmp_path: Path) -> None:
    host, clock = Host(), Clock()
    grid = task(1, clock.now)
    host.down = {grid.images[0].url}
    async with opened(tmp_path, host, clock) as at:
        await at.add(grid)
        await at.gallery._sheets.make(grid)
        host.down.clear()
        async with opened(tmp_path, host, clock) as other:
            await other.gallery._sheets.make(grid)
            assert len(host.asked) == 2
        clock.now += 60
        await round_of(at.gallery)
        assert len(host.asked) == 2


class Away:
    """A journal that does not answer."""

    asked = 0

    async def page(self, *_arguments: object) -> Page:
        self.asked += 1
        raise StorageUnavailable("it is away")


async def test_while_the_journal_is_away_it_is_asked_again_half_a_minute_later() -> None:
    clock, away = Clock(), Away()
    attempts = Attempts(clock)
    catch_up = CatchUp(away, clock)  # type: ignore[arg-type]  # as much of a journal as it uses
    assert await catch_up.round(attempts) == 30
    assert away.asked == 1
