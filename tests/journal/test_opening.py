"""A journal is opened, closed and opened again, also one of an older version."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from journals import NOON, OLD_JOURNAL, Open, Where, bought, claim, done, inside, made, new

import mj_mcp.journal
from mj_mcp.errors import StorageUnavailable
from mj_mcp.journal import Claim, Journal, Page
from mj_mcp.journal.postgres import Postgres
from mj_mcp.journal.protocol import REPEAT_SECONDS
from mj_mcp.journal.sql import SqlJournal
from mj_mcp.journal.sqlite import Sqlite
from mj_mcp.tasks import Status, Task

pytestmark = pytest.mark.anyio


async def test_a_journal_that_is_closed_twice_is_closed(open_journal: Open) -> None:
    journal = open_journal()
    await journal.ready()
    await journal.aclose()
    await journal.aclose()


async def test_a_journal_that_was_never_used_leaves_nothing_behind(open_journal: Open, tmp_path: Path) -> None:
    await open_journal().aclose()
    assert inside(tmp_path) == []


async def test_what_was_written_is_there_after_a_restart(open_journal: Open) -> None:
    first = open_journal()
    task = await bought(first, new())
    await first.aclose()
    second = open_journal()
    assert await second.tend(NOON) == [task]
    assert await second.page("local", None, 10, None) == Page((task,), None)


async def test_a_caller_that_is_cancelled_never_leaves_a_transaction_half_done(open_journal: Open) -> None:
    journal = open_journal()
    task = await bought(journal, new())
    inside, go_on = threading.Event(), threading.Event()

    def slowly(known: Task) -> Task:
        inside.set()
        assert go_on.wait(10)
        return done(known)

    running = asyncio.create_task(journal.update(task.submission_id, slowly))
    assert await asyncio.to_thread(inside.wait, 10)
    waiting = asyncio.create_task(claim(journal, behind := new()))
    await asyncio.sleep(0)  # until it stands in the writer's queue
    running.cancel()
    waiting.cancel()
    outcomes = await asyncio.gather(running, waiting, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    go_on.set()
    assert (await claim(journal, new())).is_new
    # What had begun is done whole; what had not begun never happened.
    assert await journal.find(task.submission_id, "local") == done(task)
    assert await journal.find(behind.submission_id, "local") is None


async def test_a_journal_of_an_older_version_is_read_whole_and_goes_on(where: Where, open_journal: Open) -> None:
    where.load(OLD_JOURNAL)
    journal = open_journal()
    rows = {task.submission_id.removeprefix("sub_"): task for task in await everything(journal)}
    assert len(rows) == 12
    assert {task.status for task in rows.values()} == {*Status}
    assert {name: task.warnings for name, task in rows.items() if task.warnings} == {
        "succeeded": ("queued behind 3 other jobs",),
        "queued": ("queued behind 3 other jobs",),
        "processing": (
            "Invisible characters were removed from the prompt.",
            "the proxy does not know this task; it may have forgotten it \u63d0",
        ),
        "stalled": ("nothing has moved for 31 minutes",),
        "given_up": (
            "nothing has moved for 31 minutes",
            "it is not looked at by itself any more; get_task looks again",
        ),
    }
    assert where.tables() == {"dialects", "migrations", "tasks", "waiting"} | ({"sqlite_sequence"} & where.tables())
    assert rows["succeeded"].images[3].path == "/data/images/1001-4.png"
    watched = {task.submission_id for task in await journal.tend(NOON)}
    assert watched == {"sub_submitting", "sub_queued", "sub_processing", "sub_stalled", "sub_adopted"}
    answers = {}
    for name, task in rows.items():
        answer = await claim(journal, replace(new(), kind=task.kind), f"key of sub_{name}")
        answers[name] = answer.task.submission_id.removeprefix("sub_")
        assert answer.is_new == (answers[name] != name)
    found = {name for name, answer in answers.items() if answer == name}
    assert found == {"upscaled"} | {name for name, task in rows.items() if task.is_open and name != "adopted"}
    newest = await journal.page("local", None, 5, None)
    assert {task.submission_id.removeprefix("sub_") for task in newest.tasks} == {*answers.values()} - found


async def everything(journal: Journal) -> list[Task]:
    """Every row, refused ones too."""
    pages = [await journal.page(None, status, 100, None) for status in (None, Status.REFUSED)]
    return [task for page in pages for task in page.tasks]


async def test_a_success_that_an_older_version_wrote_lately_is_found_by_its_own_clock(
    where: Where, open_journal: Open
) -> None:
    """Such a version may still run, in another host, after this one has brought the journal up to date."""
    journal = open_journal()
    tasks = {at: await made(journal, new(), f"key {at}", time.time() - at) for at in (0.0, REPEAT_SECONDS + 60)}
    await journal._write(lambda db: db.execute("UPDATE tasks SET settled_at = NULL"))
    assert await claim(journal, new(), "key 0.0") == Claim(tasks[0.0], is_new=False)
    assert (await claim(journal, new(), f"key {REPEAT_SECONDS + 60}")).is_new


async def test_the_url_chooses_the_engine(tmp_path: Path, database_url: str) -> None:
    for url, engine in {"": Sqlite, database_url: Postgres}.items():
        journal = mj_mcp.journal.open_journal(url, tmp_path, "account")
        assert isinstance(journal, SqlJournal)
        assert isinstance(journal._engine, engine)
        await journal.aclose()


async def test_a_url_that_the_driver_cannot_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="colour"):
        mj_mcp.journal.open_journal("postgresql://host/db?colour=red", tmp_path, "account")
