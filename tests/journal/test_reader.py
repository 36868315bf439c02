"""The journal as a person reads it, in each engine: what a search finds, its pages, and the jobs of each day."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import pytest
from journals import NOON, Open, Where, abandoned, bought, claim, made, new, no

from mj_mcp.errors import TaskNotFound
from mj_mcp.journal import Journal
from mj_mcp.journal.reader import ROWS_AT_ONCE, Reader, Row, Search
from mj_mcp.tasks import Kind, Status, Task

pytestmark = pytest.mark.anyio

Read = Callable[..., AbstractAsyncContextManager[Reader]]

DAY = 86_400


@pytest.fixture
def read(where: Where) -> Read:
    """`async with read("account") as reader`; without an account, all of them."""

    @asynccontextmanager
    async def start(account: str | None = None) -> AsyncIterator[Reader]:
        reader = Reader(where.new_engine(), account)
        yield reader
        await reader.aclose()

    return start


async def found(reader: Reader, limit: int = 10, **search: object) -> list[Task]:
    rows, _ = await reader.search(Search(**search), limit)  # type: ignore[arg-type]  # as the tests write it
    return [row.task for row in rows]


async def test_a_task_is_found_by_either_id_in_its_account_only(open_journal: Open, read: Read) -> None:
    task = await bought(open_journal("mine"), new())
    assert task.task_id is not None
    async with read("mine") as mine, read("other") as other, read() as every:
        for handle in (task.submission_id, task.task_id):
            assert await mine.find(handle) == Row("mine", task)
            assert await every.find(handle) == Row("mine", task)
            with pytest.raises(TaskNotFound):
                await other.find(handle)
        with pytest.raises(TaskNotFound):
            await every.find("nobody")


async def test_a_search_is_narrowed_by_kind_status_time_and_account(open_journal: Open, read: Read) -> None:
    mine, other = open_journal("mine"), open_journal("other")
    early, middle = await bought(mine, new(NOON - 60)), await bought(mine, new(NOON))
    refused = new(NOON)
    await claim(mine, refused)
    refused = await mine.update(refused.submission_id, no)
    late = await made(other, replace(new(NOON + 60), kind=Kind.REROLL))
    async with read() as reader:
        assert await found(reader) == [late, middle, early]
        assert await found(reader, kind=Kind.REROLL) == [late]
        assert await found(reader, status=Status.REFUSED) == [refused]
        assert await found(reader, since=NOON, until=NOON + 60) == [middle]
        assert await found(reader, account="mine") == [middle, early]
        assert await found(reader, words="RED mug") == [late, middle, early]
        assert await found(reader, words="red 100% '") == []
        assert await reader.accounts() == ["mine", "other"]
    async with read("mine") as reader:
        assert await found(reader, account="other") == []
        assert await reader.accounts() == ["mine"]


async def test_words_are_found_beyond_the_rows_that_are_read_at_once(journal: Journal, read: Read) -> None:
    wanted = [await bought(journal, replace(new(), prompt="Ein MÄDCHEN im Regen")) for _ in range(3)]
    for _ in range(ROWS_AT_ONCE + 1):
        await claim(journal, new())
    async with read() as reader:
        first, below = await reader.search(Search(words="mädchen"), 2)
        assert first == [Row("account", wanted[2]), Row("account", wanted[1])]
        assert await reader.search(Search(words="mädchen"), 2, below) == ([Row("account", wanted[0])], None)


async def test_what_was_paid_is_counted_by_the_day_of_its_submit(open_journal: Open, read: Read) -> None:
    mine, other = open_journal("mine"), open_journal("other")
    midnight = NOON + DAY / 2
    for at in (NOON - DAY, midnight - 1, midnight, midnight + 1):
        await bought(mine, new(at))
    await made(other, new(midnight))
    for change in (no, abandoned):
        task = new(midnight)
        await claim(mine, task)
        await mine.update(task.submission_id, change)
    async with read() as reader:
        days = {"2026-11-22": 1, "2026-11-23": 1, "2026-11-24": 3}
        assert await reader.per_day(NOON - DAY) == days
        assert await reader.per_day(NOON) == {day: days[day] for day in ("2026-11-23", "2026-11-24")}
        assert await reader.per_day(NOON, "other") == {"2026-11-24": 1}
