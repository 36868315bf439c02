"""A database that takes connections and says nothing: every call is answered in time, with what to do next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import error_of
from databases import PATIENCE, Relay
from lives import Life, live

from mj_mcp.errors import StorageUnavailable
from mj_mcp.journal import UNREAD, Claim, Journal, Limits
from mj_mcp.journal.engine import WRITE_SECONDS
from mj_mcp.journal.postgres import Postgres
from mj_mcp.journal.sql import SqlJournal
from mj_mcp.server.render.warnings import worded
from mj_mcp.simulator import Simulator
from mj_mcp.tasks import Status, Task, warn

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

ANSWER_SECONDS = 4.0
"""A call that does not wait is answered by then."""

SLACK = 3.0
"""Seconds that a busy machine may add; without a deadline of ours there is no answer at all."""

numbers = count(1)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[SqlJournal]:
    journal = SqlJournal(Postgres(url), "account")
    yield journal
    await journal.aclose()


async def bought(journal: Journal) -> Task:
    now = time.time()
    task = Task(submission_id=f"sub_{next(numbers)}", status=Status.SUBMITTING, submitted_at=now, updated_at=now)
    claim = await journal.claim(task, task.submission_id, allow_duplicate=False, limits=Limits(100))
    assert isinstance(claim, Claim)
    return claim.task


async def failed(*calls: Awaitable[object]) -> float:
    """How long these calls took that all found no database."""
    began = time.monotonic()
    async with asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {(type(answer), str(answer)) for answer in answers} == {
        (StorageUnavailable, "the journal cannot be used: the database does not answer")
    }
    return time.monotonic() - began


async def again(journal: Journal, task: Task) -> Task:
    """The row, as soon as it can be read again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await journal.find(task.submission_id, None)
            if found is not None and UNREAD not in found.warnings:
                return found


async def test_reads_of_a_frozen_database_end_in_time_however_many_there_are(database_url: str) -> None:
    async with Relay(database_url) as way, opened(way.url) as journal:
        task = await bought(journal)
        await asyncio.gather(*(journal.page(None, None, 10, None) for _ in range(10)))  # on several connections
        with way.frozen():
            reads = [journal.find(f"sub_unknown_{number}", None) for number in range(50)]
            assert await failed(*reads, journal.page(None, None, 10, None)) < ANSWER_SECONDS + SLACK
            assert way.swallowed > 0
            began = time.monotonic()
            for _ in range(4):
                assert await journal.find(task.submission_id, None) == warn(task, UNREAD)
            assert time.monotonic() - began < ANSWER_SECONDS + SLACK, "one call may read several times"
            assert await failed(bought(journal)) < WRITE_SECONDS + SLACK
        assert await again(journal, task) == task
        assert (await bought(journal)).status is Status.SUBMITTING


async def test_a_database_that_is_frozen_at_the_start_is_waited_for_by_all_calls_together(database_url: str) -> None:
    async with Relay(database_url) as way, opened(way.url) as journal:
        with way.frozen():
            calls: list[Awaitable[Any]] = [journal.page(None, None, 10, None) for _ in range(10)]
            assert await failed(*calls) < ANSWER_SECONDS + SLACK
            assert way.taken == 1, "one attempt to open it serves all ten"
            assert way.swallowed > 0
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    task = await bought(journal)
                    break
                except StorageUnavailable:
                    pass
        assert await again(journal, task) == task


async def test_connections_that_end_at_every_query_are_tried_no_longer_than_the_call_may_take(
    database_url: str,
) -> None:
    async with Relay(database_url) as way, opened(way.url) as journal:
        task = await bought(journal)
        with way.torn():
            assert await failed(journal.page(None, None, 10, None)) < ANSWER_SECONDS + SLACK
            assert await failed(bought(journal)) < WRITE_SECONDS + SLACK
            assert way.torn_off > 2
        assert await again(journal, task) == task


async def test_a_stop_waits_for_no_frozen_database(database_url: str) -> None:
    async with Relay(database_url) as way:
        journal = SqlJournal(Postgres(way.url), "account")
        await bought(journal)
        with way.frozen():
            async with asyncio.timeout(PATIENCE):
                await journal.aclose()
            assert way.swallowed > 0


# --- through a whole server


async def asked(server: Life, tool: str, **arguments: Any) -> Any:
    """The answer of a call that does not wait, which arrives in time."""
    began = time.monotonic()
    with anyio.fail_after(PATIENCE):
        result = await server.call(tool, **arguments)
    assert time.monotonic() - began < ANSWER_SECONDS + SLACK
    return result


def unavailable(result: Any) -> None:
    """The error says that nothing was submitted, and what to do."""
    error = error_of(result)
    assert error["code"] == "storage_unavailable"
    assert error["next_step"]


async def test_a_server_answers_every_call_while_its_database_is_frozen(
    database_url: str, sim: Simulator, tmp_path: Path
) -> None:
    async with Relay(database_url) as way, live(sim, tmp_path, MJ_DATABASE_URL=way.url) as server:
        task_id = (await server.task("generate_image", prompt="a mug", wait_seconds=0))["task_id"]
        with way.frozen():
            known = await asked(server, "get_task", task_id=task_id, wait_seconds=0)
            assert known.structured_content["task_id"] == task_id
            assert known.structured_content["warnings"] == [worded(UNREAD)]
            unavailable(await asked(server, "list_tasks"))
            unavailable(await asked(server, "get_usage"))
            unavailable(await asked(server, "generate_image", prompt="a jug", wait_seconds=0))
            assert way.swallowed > 0
        assert len(sim.submits()) == 1
        with anyio.fail_after(PATIENCE):
            while (await server.call("list_tasks")).is_error:
                pass
            assert (await server.task("generate_image", prompt="a jug", wait_seconds=0))["task_id"]


async def test_a_server_that_is_started_before_a_frozen_database_answers_ten_calls_at_once(
    database_url: str, sim: Simulator, tmp_path: Path
) -> None:
    async with Relay(database_url) as way:
        with way.frozen():
            async with live(sim, tmp_path, MJ_DATABASE_URL=way.url) as server:
                async with anyio.create_task_group() as group:

                    async def ask(number: int) -> None:
                        tool, arguments = ("list_tasks", {}) if number % 2 else ("get_task", {"task_id": "sub_1"})
                        unavailable(await asked(server, tool, **arguments))

                    for number in range(10):
                        group.start_soon(ask, number)
                assert way.swallowed > 0
