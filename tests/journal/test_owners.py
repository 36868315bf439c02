"""Accounts and owners: none sees another's tasks."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from journals import NOON, Open, bought, claim, done, let_pass, new

from mj_mcp.errors import StorageUnavailable, TaskNotFound
from mj_mcp.journal import Claim, Journal, Limits, Page
from mj_mcp.journal.protocol import LEASE_SECONDS
from mj_mcp.tasks import Status

pytestmark = pytest.mark.anyio


async def test_two_accounts_never_mix(open_journal: Open) -> None:
    ours, theirs = open_journal("ours"), open_journal("theirs")
    task = await bought(ours, new(), "key")
    assert task.task_id is not None
    limits = Limits(max_open=1, per_day=1)
    second = new()
    assert await claim(theirs, second, "key", limits=limits) == Claim(second, is_new=True)
    assert await theirs.find(task.submission_id, "local") is None
    assert await theirs.find(task.task_id, "local") is None
    assert await theirs.page("local", None, 10, None) == Page((second,), None)
    with pytest.raises(StorageUnavailable):
        await theirs.update(task.submission_id, done)
    adopted = replace(task, submission_id="sub_adopted")
    assert await theirs.adopt(adopted) == adopted
    await let_pass(ours, 100 * LEASE_SECONDS)
    assert await theirs.changes() == []
    assert task not in await theirs.tend(NOON)
    assert await ours.find(task.task_id, "local") == task


async def test_owners_never_mix(open_journal: Open) -> None:
    journal = open_journal()
    mine = await bought(journal, new(owner="me"))
    theirs = await bought(journal, new(owner="you"))
    assert mine.task_id is not None
    assert await journal.find(mine.submission_id, "you") is None
    assert await journal.find(mine.task_id, "you") is None
    assert await journal.page("me", None, 10, None) == Page((mine,), None)
    # The person at the machine sees everybody's.
    assert await journal.find(mine.task_id, None) == mine
    assert await journal.page(None, None, 10, None) == Page((theirs, mine), None)
    assert await journal.page("you", None, 10, None) == Page((theirs,), None)
    with pytest.raises(TaskNotFound):
        await journal.adopt(replace(mine, submission_id="sub_adopted", owner="you"))
    assert await journal.page("you", None, 10, None) == Page((theirs,), None)


async def test_a_task_that_is_adopted_twice_is_there_once(open_journal: Open) -> None:
    journals = [open_journal(), open_journal()]
    found = [replace(new(), status=Status.QUEUED, task_id="77") for _ in range(10)]
    rows = await asyncio.gather(*(journals[at % 2].adopt(task) for at, task in enumerate(found)))
    assert len({row.submission_id for row in rows}) == 1
    assert rows[0] in found
    assert (await journals[0].page("local", None, 20, None)).tasks == (rows[0],)


async def test_to_adopt_what_was_submitted_gives_the_submitted_row(journal: Journal) -> None:
    task = await bought(journal, new())
    assert await journal.adopt(replace(new(), status=Status.QUEUED, task_id=task.task_id)) == task
