"""The claim: one purchase for one request, however many ask for it at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from journals import NOON, Clock, Open, abandoned, age, bought, claim, done, failed, lost, made, new, no

from mj_mcp.errors import Busy, StorageUnavailable
from mj_mcp.journal import Claim, Journal, Limits, QueueSlot
from mj_mcp.journal.protocol import REPEAT_SECONDS
from mj_mcp.tasks import Image, Kind, Status, Task, accept

pytestmark = pytest.mark.anyio


async def test_a_claim_is_dated_when_it_is_made_and_not_when_it_was_asked_for(journal: Journal, clock: Clock) -> None:
    task = new()
    clock.time = NOON + 300  # in our own queue
    made = await claim(journal, task)
    assert (made.task.submitted_at, made.task.claimed_at) == (NOON, NOON + 300)
    assert await journal.find(task.submission_id, "local") == made.task


async def test_a_claim_writes_the_task_down_whole(open_journal: Open) -> None:
    task = replace(new(), parent_id="77", index=2, warnings=("w", "提"), kind=Kind.UPSCALE)
    assert await claim(open_journal(), task) == Claim(task, is_new=True)
    assert await open_journal().find(task.submission_id, "local") == task


@pytest.mark.parametrize("settle", [None, lost, lambda task: accept(task, "77", NOON)])
async def test_an_identical_request_finds_the_one_that_is_open(
    open_journal: Open, settle: Callable[[Task], Task] | None
) -> None:
    first = new()
    assert (await claim(open_journal(), first, "key")).is_new
    if settle:
        first = await open_journal().update(first.submission_id, settle)
    again = await claim(open_journal(), new(), "key", limits=Limits(max_open=1, per_day=1))
    assert again == Claim(first, is_new=False)


@pytest.mark.parametrize("settle", [no, failed, abandoned])
@pytest.mark.parametrize("kind", [Kind.IMAGINE, Kind.UPSCALE])
async def test_a_request_that_came_to_nothing_is_bought_again(
    journal: Journal, settle: Callable[[Task], Task], kind: Kind
) -> None:
    first = replace(new(), kind=kind)
    await claim(journal, first, "key")
    await journal.update(first.submission_id, settle)
    second = replace(new(), kind=kind)
    assert await claim(journal, second, "key") == Claim(second, is_new=True)


@pytest.mark.parametrize("kind", Kind)
async def test_a_repeat_within_ten_minutes_of_success_finds_it_whatever_the_limits(
    open_journal: Open, kind: Kind
) -> None:
    first, second = open_journal(), open_journal()
    task = await made(first, replace(new(), kind=kind), "key")
    await age(first, task, REPEAT_SECONDS - 60)
    limits = Limits(max_open=0, per_day=0, owner_max_open=0, owner_per_day=0, pause=Busy("paused"))
    for journal in (first, second):
        repeat = await claim(journal, replace(new(), kind=kind), "key", limits=limits)
        assert repeat == Claim(task, is_new=False)


@pytest.mark.parametrize("kind", Kind)
async def test_later_a_repeat_buys_but_never_the_same_upscale(open_journal: Open, kind: Kind) -> None:
    journal = open_journal()
    task = await made(journal, replace(new(), kind=kind), "key")
    await age(journal, task, 86400.0 if kind is Kind.UPSCALE else REPEAT_SECONDS + 1)
    repeat = replace(new(), kind=kind)
    bought_again = Claim(repeat, is_new=True)
    assert await claim(journal, repeat, "key") == (Claim(task, is_new=False) if kind is Kind.UPSCALE else bought_again)


@pytest.mark.parametrize("hours", [-1, 1])
async def test_the_age_of_a_success_is_taken_by_the_storages_clock(open_journal: Open, hours: int) -> None:
    """The process that saw it has a clock that is an hour off."""
    journal = open_journal()
    task = await made(journal, new(), "key", at=time.time() + hours * 3600)
    assert await claim(journal, new(), "key") == Claim(task, is_new=False)
    await age(journal, task, REPEAT_SECONDS + 1)
    assert (await claim(journal, new(), "key")).is_new


async def test_what_is_written_after_the_success_does_not_renew_it(open_journal: Open) -> None:
    journal = open_journal()
    task = await made(journal, new(), "key")
    await age(journal, task, REPEAT_SECONDS + 1)
    await journal.update(task.submission_id, lambda known: replace(known, images=(Image(1, "https://x.example/2"),)))
    assert (await claim(journal, new(), "key")).is_new


async def test_the_newest_answers_whether_it_is_open_or_finished(open_journal: Open) -> None:
    journal = open_journal()
    oldest, finished, running = [new() for _ in range(3)]
    for task in (oldest, finished):
        await claim(journal, task, "key", allow_duplicate=True)
    finished = await journal.update(finished.submission_id, lambda task: done(accept(task, "77", NOON)))
    assert await claim(journal, new(), "key") == Claim(finished, is_new=False)
    await claim(journal, running, "key", allow_duplicate=True)
    assert await claim(journal, new(), "key") == Claim(running, is_new=False)
    oldest = await journal.update(oldest.submission_id, lambda task: done(accept(task, "78", NOON)))
    assert await claim(journal, new(), "key") == Claim(running, is_new=False)
    await journal.update(running.submission_id, no)
    assert await claim(journal, new(), "key") == Claim(finished, is_new=False)
    await age(journal, finished, REPEAT_SECONDS + 1)
    assert await claim(journal, new(), "key") == Claim(oldest, is_new=False)


@pytest.mark.parametrize("kind", [Kind.IMAGINE, Kind.UPSCALE])
async def test_who_wants_another_one_buys_it(journal: Journal, kind: Kind) -> None:
    await made(journal, replace(new(), kind=kind), "key")
    another = replace(new(), kind=kind)
    assert await claim(journal, another, "key", allow_duplicate=True) == Claim(another, is_new=True)


async def test_the_success_of_another_account_or_of_another_request_answers_nobody(open_journal: Open) -> None:
    await made(open_journal("theirs"), new(), "key")
    journal = open_journal()
    for key in ("key", "another key"):
        task = new()
        assert await claim(journal, task, key) == Claim(task, is_new=True)


async def test_a_repeat_leaves_the_queue_once_its_twin_has_succeeded(journal: Journal) -> None:
    limits = Limits(max_open=1)
    running, twin, other = await bought(journal, new()), new(), new()
    first = new()
    for task, key in ((first, "key"), (twin, "key"), (other, "other")):
        assert isinstance(await journal.claim(task, key, allow_duplicate=False, limits=limits), QueueSlot)
    await journal.update(running.submission_id, done)
    assert (await claim(journal, first, "key", limits=limits)).is_new
    first = await journal.update(first.submission_id, lambda task: done(accept(task, "77", NOON)))
    assert await claim(journal, twin, "key", limits=limits) == Claim(first, is_new=False)
    await journal.update((await claim(journal, other, "other", limits=limits)).task.submission_id, no)
    assert (await claim(journal, new(), limits=limits)).is_new, "nobody is before it in the queue"


async def test_repeats_that_meet_the_end_of_the_first_over_two_processes_buy_nothing(open_journal: Open) -> None:
    journals = [open_journal(), open_journal()]
    first = await bought(journals[0], new(), "key")
    claims, ended = [], asyncio.Event()

    async def repeat(journal: Journal) -> None:
        while not ended.is_set():
            claims.append(await claim(journal, new(), "key"))
        claims.append(await claim(journal, new(), "key"))

    repeats = [asyncio.create_task(repeat(journal)) for journal in journals for _ in range(3)]
    while len(claims) < 10:  # noqa: ASYNC110 - they run
        await asyncio.sleep(0)
    over = await journals[1].update(first.submission_id, done)
    ended.set()
    await asyncio.gather(*repeats)
    assert {(one.task.status, one.is_new) for one in claims} == {(Status.QUEUED, False), (Status.SUCCEEDED, False)}
    assert claims[-1] == Claim(over, is_new=False)


async def test_who_asks_for_a_duplicate_gets_one_and_it_is_found_too(journal: Journal) -> None:
    first, second, third = new(), new(), new()
    await claim(journal, first, "key")
    assert await claim(journal, second, "key", allow_duplicate=True) == Claim(second, is_new=True)
    assert await claim(journal, third, "key", allow_duplicate=True) == Claim(third, is_new=True)
    assert await claim(journal, new(), "key") == Claim(third, is_new=False)
    await journal.update(third.submission_id, no)
    assert await claim(journal, new(), "key") == Claim(second, is_new=False)


async def test_fifty_identical_requests_at_once_over_two_processes_are_one_purchase(open_journal: Open) -> None:
    journals = [open_journal(), open_journal()]
    claims = await asyncio.gather(*(claim(journals[at % 2], new(), "key") for at in range(50)))
    assert [one.is_new for one in claims].count(True) == 1
    assert len({one.task.submission_id for one in claims}) == 1


async def test_a_submission_id_is_never_used_twice(journal: Journal) -> None:
    task = new()
    await claim(journal, task)
    with pytest.raises(StorageUnavailable):
        await claim(journal, task, "another key")
    assert (await journal.page("local", None, 10, None)).tasks == (task,)
