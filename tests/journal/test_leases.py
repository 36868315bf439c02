"""Leases: one process polls a task, and another takes over when it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from journals import NOON, Open, bought, claim, done, let_pass, lost, new, no

from mj_mcp.journal import Claim, Journal
from mj_mcp.journal.protocol import LEASE_SECONDS
from mj_mcp.tasks import Status, Task, accept, give_up, mark_unconfirmed, resume, stall

pytestmark = pytest.mark.anyio


async def test_an_open_task_is_watched_by_one_process(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await bought(first, new())
    for _ in range(2):
        assert await first.tend(NOON) == [task]
        assert await second.tend(NOON) == []


async def test_an_adopted_task_is_watched_by_whoever_comes_first(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await first.adopt(replace(new(), status=Status.QUEUED, task_id="77"))
    held = await asyncio.gather(first.tend(NOON), second.tend(NOON))
    assert sorted(held, key=len) == [[], [task]]


async def test_a_lease_that_is_kept_is_never_taken_over(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await bought(first, new())
    for _ in range(20):
        await let_pass(first, LEASE_SECONDS / 2)
        assert await first.tend(NOON) == [task]
        assert await second.tend(NOON) == []


async def test_a_lease_that_lapsed_is_taken_over_and_the_old_holder_lets_go(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await bought(first, new())
    assert await first.tend(NOON) == [task]
    await let_pass(first, LEASE_SECONDS + 1)
    assert await second.tend(NOON) == [task]
    assert await first.tend(NOON) == []
    assert await second.tend(NOON) == [task]


async def test_a_clock_that_was_set_back_does_not_hold_a_lease_for_ever(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await bought(first, new())
    assert await first.tend(NOON) == [task]
    await let_pass(first, -86400)
    assert await second.tend(NOON) == [task]


async def test_a_process_that_leaves_gives_its_tasks_back_at_once(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await bought(first, new())
    assert await second.tend(NOON) == []
    await first.aclose()
    assert await second.tend(NOON) == [task]


async def test_a_submit_under_way_is_left_to_the_process_that_makes_it(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = new()
    await claim(first, task)
    for _ in range(20):
        await let_pass(first, LEASE_SECONDS / 2)
        assert await first.tend(NOON) == []
        assert await second.tend(NOON) == []
    assert await second.find(task.submission_id, "local") == task


async def settled_by(journal: Journal, task: Task) -> Task:
    """The row after `journal` has tended to it; it tells its caller of what it settles."""
    (changed,) = await journal.tend(NOON)
    assert await journal.find(task.submission_id, "local") == changed
    return changed


async def test_a_submit_of_a_process_that_left_is_in_doubt(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = new()
    await claim(first, task, "key")
    await first.aclose()
    doubtful = await settled_by(second, task)
    assert doubtful == mark_unconfirmed(task, "the server stopped before the proxy's answer was recorded", NOON)
    assert await claim(second, new(), "key") == Claim(doubtful, is_new=False)


async def test_doubt_that_is_resolved_is_watched_again(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = new()
    await claim(first, task)
    await first.update(task.submission_id, lost)
    assert await second.tend(NOON) == []
    found = await second.update(task.submission_id, lambda known: accept(known, "77", NOON))
    assert await second.tend(NOON) == [found]


@pytest.mark.parametrize("settle", [no, lost, lambda task: done(accept(task, "77", NOON))])
async def test_what_is_settled_is_watched_by_nobody(open_journal: Open, settle: Callable[[Task], Task]) -> None:
    first, second = open_journal(), open_journal()
    task = new()
    await claim(first, task)
    await first.update(task.submission_id, settle)
    await let_pass(first, 100 * LEASE_SECONDS)
    assert await first.tend(NOON) == []
    assert await second.tend(NOON) == []


async def test_a_task_that_was_given_up_is_nobodys_until_somebody_asks(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await bought(first, new())
    assert await first.tend(NOON) == [task]
    task = await first.update(task.submission_id, lambda known: stall(known, "nothing moves", NOON))
    assert await first.tend(NOON) == [task]
    left = await first.update(task.submission_id, lambda known: give_up(known, NOON))
    assert (left.status, left.given_up_at) == (Status.STALLED, NOON)
    for later in (1, 100 * LEASE_SECONDS):
        await let_pass(first, later)
        assert await first.tend(NOON) == await second.tend(NOON) == []
    assert await second.find(task.submission_id, None) == left
    taken_up = await second.update(task.submission_id, resume)
    assert taken_up == task
    assert await second.tend(NOON) == [task]
    assert await first.tend(NOON) == []
