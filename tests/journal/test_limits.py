"""Limits of open tasks and of submits in a day, and the queue for a free slot: exact over several processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from journals import NOON, Clock, Open, abandoned, bought, claim, done, let_pass, lost, new, no, queued

from mj_mcp.errors import Busy, LimitReached
from mj_mcp.journal import Claim, Journal, Limits, Page, QueueSlot
from mj_mcp.journal.protocol import KEPT_SECONDS, QUEUE_SECONDS, UNCONFIRMED_COUNTS_SECONDS
from mj_mcp.journal.sql import SqlJournal
from mj_mcp.tasks import Status, Task, accept, move

pytestmark = pytest.mark.anyio


async def test_the_limit_of_open_tasks_is_exact_over_two_processes(open_journal: Open) -> None:
    journals = [open_journal(), open_journal()]
    limits = Limits(max_open=7)
    positions = await asyncio.gather(*(queued(journals[at % 2], new(), limits) for at in range(50)))
    assert sorted(positions) == [0] * 7 + list(range(1, 44))
    assert len((await journals[0].page("local", None, 100, None)).tasks) == 7


@pytest.mark.parametrize("settle", [no, lambda task: done(accept(task, "77", NOON))])
async def test_a_settled_task_gives_its_slot_back(journal: Journal, settle: Callable[[Task], Task]) -> None:
    limits = Limits(max_open=1)
    first, second = new(), new()
    await claim(journal, first, limits=limits)
    assert await queued(journal, second, limits) == 1
    await journal.update(first.submission_id, settle)
    assert await queued(journal, second, limits) == 0


async def test_a_stalled_task_gives_its_slot_back(journal: Journal) -> None:
    task = await bought(journal, new())
    await journal.update(task.submission_id, lambda known: move(known, Status.STALLED, NOON))
    assert (await claim(journal, new(), limits=Limits(max_open=1))).is_new


async def test_doubt_counts_as_open_as_long_as_a_job_can_run(journal: Journal, clock: Clock) -> None:
    task = new()
    await claim(journal, task)
    await journal.update(task.submission_id, lost)
    limits = Limits(max_open=1)
    clock.time += UNCONFIRMED_COUNTS_SECONDS - 1
    waiting = new(clock())
    assert await queued(journal, waiting, limits) == 1
    clock.time += 2
    assert await queued(journal, waiting, limits) == 0


async def test_the_daily_limit_is_exact_over_two_processes(open_journal: Open) -> None:
    journals = [open_journal(), open_journal()]
    limits = Limits(max_open=1000, per_day=9)
    claims = await asyncio.gather(
        *(claim(journals[at % 2], new(), limits=limits) for at in range(50)), return_exceptions=True
    )
    refusals = [one for one in claims if isinstance(one, LimitReached)]
    assert len(refusals) == 41
    assert refusals[0].retry_after_seconds == 12 * 3600


async def test_the_day_ends_at_midnight_utc(journal: Journal) -> None:
    midnight = NOON + 12 * 3600
    limits = Limits(max_open=1000, per_day=1)
    await claim(journal, new(midnight - 1), limits=limits)
    with pytest.raises(LimitReached) as refusal:
        await claim(journal, new(midnight - 0.5), limits=limits)
    assert refusal.value.retry_after_seconds in {0, 1}
    assert (await claim(journal, new(midnight), limits=limits)).is_new
    with pytest.raises(LimitReached):
        await claim(journal, new(midnight + 86399), limits=limits)


@pytest.mark.parametrize("settle", [no, abandoned])
async def test_a_refused_or_abandoned_submit_costs_nothing_of_the_day_and_doubt_does(
    journal: Journal, settle: Callable[[Task], Task]
) -> None:
    limits = Limits(max_open=1000, per_day=1, owner_per_day=1)
    first, second = new(), new()
    await claim(journal, first, limits=limits)
    await journal.update(first.submission_id, settle)
    assert (await claim(journal, second, limits=limits)).is_new
    await journal.update(second.submission_id, lost)
    with pytest.raises(LimitReached):
        await claim(journal, new(), limits=limits)


async def test_a_day_without_submits_refuses_them_all(journal: Journal) -> None:
    with pytest.raises(LimitReached):
        await claim(journal, new(), limits=Limits(max_open=10, per_day=0))
    assert await journal.page("local", None, 10, None) == Page((), None)


async def test_owners_alternate_in_the_queue_however_many_requests_one_of_them_has(journal: Journal) -> None:
    limits = Limits(max_open=1)
    running = await bought(journal, new(owner="ann"))
    ann, bob, eve = [new(owner="ann") for _ in range(3)], [new(owner="bob") for _ in range(2)], [new(owner="eve")]
    waiting = [*ann, *bob, *eve]
    for task in waiting:
        assert await queued(journal, task, limits) > 0
    # Everybody's first request goes before anybody's second.
    assert [await queued(journal, task, limits) for task in waiting] == [3, 5, 6, 1, 4, 2]
    served = []
    for _ in range(6):
        await journal.update(running.submission_id, done)
        positions = {task.submission_id: await queued(journal, task, limits) for task in waiting}
        (next_one,) = [task for task in waiting if positions[task.submission_id] == 0]
        waiting.remove(next_one)
        served.append(next_one.owner)
        running = await journal.update(next_one.submission_id, lambda known: accept(known, "up_" + served[-1], NOON))
    assert served == ["bob", "eve", "ann", "bob", "ann", "ann"]


async def test_who_comes_later_never_jumps_the_queue(journal: Journal) -> None:
    limits = Limits(max_open=1)
    running = await bought(journal, new())
    patient = new(owner="ann")
    assert await queued(journal, patient, limits) == 1
    await journal.update(running.submission_id, done)
    assert await queued(journal, new(owner="bob"), limits) == 2
    assert await queued(journal, patient, limits) == 0


async def test_a_queue_slot_is_kept_for_a_while_and_then_given_up(journal: SqlJournal) -> None:
    limits = Limits(max_open=1)
    await bought(journal, new())
    gone, here = new(owner="ann"), new(owner="bob")
    assert await queued(journal, gone, limits) == 1
    assert await queued(journal, here, limits) == 2
    await let_pass(journal, KEPT_SECONDS / 2)
    assert await queued(journal, here, limits) == 2
    await let_pass(journal, KEPT_SECONDS / 2 + 1)
    assert await queued(journal, here, limits) == 1


async def test_a_kept_queue_slot_is_taken_up_by_the_same_request_of_another_call(journal: SqlJournal) -> None:
    limits = Limits(max_open=1)
    running = await bought(journal, new())

    async def ask(owner: str, key: str) -> int:
        made = await journal.claim(new(owner=owner), key, allow_duplicate=False, limits=limits)
        return made.position if isinstance(made, QueueSlot) else 0

    assert await ask("ann", "a mug") == 1
    assert await ask("bob", "a jug") == 2
    await let_pass(journal, KEPT_SECONDS / 2)
    await journal.update(running.submission_id, done)
    assert await ask("bob", "a jug") == 2, "the free slot is ann's"
    assert await ask("ann", "a mug") == 0


async def test_a_queue_slot_is_the_owners_whichever_of_their_requests_asks(journal: SqlJournal) -> None:
    """A caller that changes its request each time it has to wait must not hold the slot back from everybody."""
    limits = Limits(max_open=1)
    running = await bought(journal, new())
    first, other, second = new(owner="ann"), new(owner="bob"), new(owner="ann")
    assert await queued(journal, first, limits) == 1
    assert await queued(journal, other, limits) == 2
    await journal.update(running.submission_id, done)
    assert await queued(journal, second, limits) == 3, "the first one may still be waiting"
    await let_pass(journal, QUEUE_SECONDS + 0.1)
    assert await queued(journal, other, limits) == 2
    assert await queued(journal, second, limits) == 0


async def test_two_accounts_that_want_the_same_queue_apart(open_journal: Open) -> None:
    limits = Limits(max_open=1)
    one, other = open_journal(), open_journal(account="another")
    for journal in (one, other):
        await bought(journal, new())
        assert await queued(journal, replace(new(), submission_id="the same"), limits) == 1
    await one.leave("the same")
    assert await queued(other, replace(new(), submission_id="the next"), limits) == 2


async def test_a_queue_slot_can_be_left(journal: Journal) -> None:
    limits = Limits(max_open=1)
    await bought(journal, new())
    first, second = new(), new()
    assert await queued(journal, first, limits) == 1
    assert await queued(journal, second, limits) == 2
    await journal.leave(first.submission_id)
    assert await queued(journal, second, limits) == 1


async def test_each_owner_has_limits_of_their_own(journal: Journal) -> None:
    limits = Limits(max_open=1000, owner_max_open=1, owner_per_day=2)
    first = await bought(journal, new(owner="ann"))
    with pytest.raises(Busy, match="MJ_MAX_OPEN_TASKS_PER_USER"):
        await claim(journal, new(owner="ann"), limits=limits)
    assert (await claim(journal, new(owner="bob"), limits=limits)).is_new
    await journal.update(first.submission_id, done)
    second = new(owner="ann")
    assert (await claim(journal, second, limits=limits)).is_new
    await journal.update(second.submission_id, lambda task: done(accept(task, "up_2", NOON)))
    with pytest.raises(LimitReached, match="MJ_DAILY_TASK_LIMIT_PER_USER"):
        await claim(journal, new(owner="ann"), limits=limits)


async def test_a_pause_claims_nothing_new_and_still_finds_what_is_open(journal: Journal) -> None:
    first, pause = new(), Busy("paused")
    await claim(journal, first, "key")
    paused = Limits(max_open=10, pause=pause)
    with pytest.raises(Busy, match="paused"):
        await claim(journal, new(), limits=paused)
    assert await claim(journal, new(), "key", limits=paused) == Claim(first, is_new=False)
    assert (await journal.page("local", None, 10, None)).tasks == (first,)


async def test_an_adopted_task_is_no_submit_of_the_day(journal: Journal) -> None:
    await journal.adopt(replace(new(), status=Status.QUEUED, task_id="77", submitted_at=None))
    assert (await claim(journal, new(), limits=Limits(max_open=10, per_day=1))).is_new
