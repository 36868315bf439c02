"""Rows: how they are changed, found and listed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from journals import NOON, Open, bought, claim, done, lost, new, no

from mj_mcp.errors import InvalidRequest, StorageUnavailable
from mj_mcp.journal import Claim, Journal, Page
from mj_mcp.tasks import IllegalMove, Status, Task, accept, move

pytestmark = pytest.mark.anyio


async def test_an_update_is_one_transaction(open_journal: Open) -> None:
    journals = [open_journal(), open_journal()]
    task = await bought(journals[0], new())

    def one_more(known: Task) -> Task:
        return replace(known, progress=(known.progress or 0) + 1)

    await asyncio.gather(*(journals[at % 2].update(task.submission_id, one_more) for at in range(40)))
    assert await journals[1].find(task.submission_id, "local") == replace(task, progress=40)


async def test_an_update_that_breaks_changes_nothing_and_its_error_rises(journal: Journal) -> None:
    task = await bought(journal, new())
    with pytest.raises(IllegalMove):
        await journal.update(task.submission_id, no)
    assert await journal.find(task.submission_id, "local") == task
    assert (await journal.update(task.submission_id, done)).status is Status.SUCCEEDED


async def test_a_row_that_is_not_there_cannot_be_updated(journal: Journal) -> None:
    with pytest.raises(StorageUnavailable, match="sub_nobody"):
        await journal.update("sub_nobody", done)


async def test_a_task_is_found_by_either_id(journal: Journal) -> None:
    task = await bought(journal, new())
    assert task.task_id is not None
    assert await journal.find(task.submission_id, "local") == task
    assert await journal.find(task.task_id, "local") == task
    assert await journal.find("nobody", "local") is None


async def test_an_abandoned_submit_can_be_found_after_its_request_was_bought_again(journal: Journal) -> None:
    first, second = new(), new()
    await claim(journal, first, "key")
    await journal.update(first.submission_id, lambda task: move(lost(task), Status.ABANDONED, NOON))
    assert await claim(journal, second, "key") == Claim(second, is_new=True)
    found = await journal.update(first.submission_id, lambda task: accept(task, "77", NOON))
    assert (found.status, found.task_id) == (Status.QUEUED, "77")
    assert not (await claim(journal, new(), "key")).is_new


async def test_pages_come_newest_first_and_hold_everything_once(journal: Journal) -> None:
    tasks = [new(NOON + at) for at in range(7)]
    for task in tasks:
        await claim(journal, task)
    pages, cursor = [], None
    while True:
        page = await journal.page("local", None, 3, cursor)
        pages.append(page.tasks)
        cursor = page.next_cursor
        if cursor is None:
            break
        await claim(journal, new())  # what comes in between disturbs nothing
    newest = tasks[::-1]
    assert pages == [tuple(newest[:3]), tuple(newest[3:6]), tuple(newest[6:])]


async def test_the_last_page_says_that_it_is_the_last(journal: Journal) -> None:
    assert await journal.page("local", None, 3, None) == Page((), None)
    tasks = [new() for _ in range(3)]
    for task in tasks:
        await claim(journal, task)
    assert await journal.page("local", None, 3, None) == Page(tuple(tasks[::-1]), None)


async def test_refused_submits_are_listed_only_when_asked_for(journal: Journal) -> None:
    kept, refused = new(), new()
    await claim(journal, kept)
    await claim(journal, refused)
    refused = await journal.update(refused.submission_id, no)
    assert await journal.page("local", None, 10, None) == Page((kept,), None)
    assert await journal.page("local", Status.REFUSED, 10, None) == Page((refused,), None)
    assert await journal.page("local", Status.SUBMITTING, 10, None) == Page((kept,), None)
    assert await journal.find(refused.submission_id, "local") == refused


@pytest.mark.parametrize("cursor", ["", "x", "1", "up_x", "\u0661", "\ud83d", "a\0b", "9" * 400, "1; DROP TABLE tasks"])
async def test_a_cursor_that_we_never_gave_is_an_invalid_request(journal: Journal, cursor: str) -> None:
    task = new()
    await claim(journal, task)
    await journal.update(task.submission_id, lambda known: accept(known, "up_x", NOON))
    with pytest.raises(InvalidRequest, match="`cursor` must be the `next_cursor` of an earlier page"):
        await journal.page("local", None, 3, cursor)


async def test_a_cursor_tells_nothing_of_other_owners_and_serves_nobody_else(journal: Journal) -> None:
    mine = [new(owner="me") for _ in range(3)]
    for task in mine:
        await claim(journal, task)
        await claim(journal, new(owner="you"))
    cursor = (await journal.page("me", None, 1, None)).next_cursor
    assert cursor == mine[2].submission_id
    assert await journal.page("me", None, 1, cursor) == Page((mine[1],), mine[1].submission_id)
    refusals = []
    for owner, given in (("you", cursor), ("you", "sub_nobody"), ("me", "sub_nobody")):
        with pytest.raises(InvalidRequest) as refusal:
            await journal.page(owner, None, 1, given)
        refusals.append(str(refusal.value).replace(given, "ID"))
    assert len(set(refusals)) == 1
    assert (await journal.page(None, None, 9, cursor)).tasks[1:3] == (
        mine[1],
        (await journal.page("you", None, 9, None)).tasks[2],
    )


async def test_a_cursor_stays_good_when_its_row_changes(journal: Journal) -> None:
    tasks = [new() for _ in range(3)]
    for task in tasks:
        await claim(journal, task)
    cursor = (await journal.page("local", Status.SUBMITTING, 1, None)).next_cursor
    await journal.update(tasks[2].submission_id, no)
    assert await journal.page("local", Status.SUBMITTING, 5, cursor) == Page((tasks[1], tasks[0]), None)


async def test_a_page_since_a_time_holds_what_was_submitted_from_then_on(journal: Journal) -> None:
    before, at, after = new(NOON - 1), new(NOON), new(NOON + 1)
    late = new(NOON - 2)  # it was asked for before, and waited in the queue
    theirs = new(NOON + 1, owner="you")
    for task in (before, at, after, late, theirs):
        await claim(journal, task)
    after = await journal.update(after.submission_id, lost)
    assert await journal.page("local", None, 10, None, NOON) == Page((after, at), None)
    assert await journal.page("local", None, 10, None, NOON - 2) == Page((late, after, at, before), None)
    assert await journal.page("local", Status.SUBMITTING, 10, None, NOON) == Page((at,), None)
    assert await journal.page(None, None, 10, None, NOON + 1) == Page((theirs, after), None)
    assert await journal.page("local", None, 10, None, NOON + 2) == Page((), None)
    first = await journal.page("local", None, 1, None, NOON)
    assert first == Page((after,), after.submission_id)
    assert await journal.page("local", None, 1, first.next_cursor, NOON) == Page((at,), None)


async def test_a_page_since_a_time_is_right_although_clocks_differ_by_hours(journal: Journal) -> None:
    right, behind = new(NOON), new(NOON - 23 * 3600)
    long_ago = new(NOON - 30 * 86400)
    for task in (long_ago, right, behind):
        await claim(journal, task)
    assert await journal.page("local", None, 10, None, NOON - 60) == Page((right,), None)
    assert await journal.page("local", None, 10, None, NOON - 86400) == Page((behind, right), None)


async def test_a_task_that_was_found_is_listed_since_it_was_taken_in(journal: Journal) -> None:
    found = replace(new(), status=Status.QUEUED, task_id="77", submitted_at=None, updated_at=NOON)
    await journal.adopt(found)
    found = await journal.update(found.submission_id, lambda task: move(task, Status.PROCESSING, NOON + 100))
    assert await journal.page("local", None, 10, None, NOON) == Page((found,), None)
    assert await journal.page("local", None, 10, None, NOON + 1) == Page((), None)
