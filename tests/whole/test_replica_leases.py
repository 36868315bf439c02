"""Replicas whose clocks differ, or that lose the database for a while: what one submits, no other calls lost too soon.

Time passes as a test says: the database's for leases and the queue, and for how long a replica has been gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Self

import pytest
from conftest import KEY
from databases import PATIENCE, Database, Relay

from mj_mcp.journal import Claim, Limits, QueueSlot
from mj_mcp.journal.leases import SETTLE_SECONDS, SILENT_SECONDS
from mj_mcp.journal.postgres import Postgres
from mj_mcp.journal.sql import SqlJournal
from mj_mcp.logs import redactor
from mj_mcp.polling.open_jobs import PollTimings
from mj_mcp.polling.poller import Poller
from mj_mcp.proxy import Detection, Imagine, Proxy
from mj_mcp.proxy.http import Http
from mj_mcp.simulator import Simulator, faults
from mj_mcp.submits import Submits
from mj_mcp.tasks import Kind, Status, Task, accept

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

APART_SECONDS = 30.0
AWAY_SECONDS = 25

numbers = count(1)


def new(owner: str = "local") -> Task:
    now = time.time()
    return Task(
        submission_id=f"sub_{next(numbers)}",
        status=Status.SUBMITTING,
        owner=owner,
        kind=Kind.IMAGINE,
        prompt="a mug",
        submitted_at=now,
        updated_at=now,
    )


class Replica:
    """One server's journal and what it submits. Its clock is some seconds ahead of the database's."""

    def __init__(self, url: str, sim: Simulator, ahead: float = 0.0) -> None:
        self.passed = 0.0
        """Seconds that it has counted."""
        self.journal = SqlJournal(Postgres(url, lambda: self.passed), "account", self.now)
        self._ahead = ahead
        self._http = Http(sim.url, KEY)
        proxy = Proxy(self._http, redactor(KEY), Detection(self._http, dialect="gateway"))
        self.poller = Poller(
            self.journal,
            proxy,
            poll_seconds=5,
            polls_per_second=50,
            now=self.now,
            on_end=ignored,
            notify=ignored,
            timings=PollTimings(),
        )
        self._submits = Submits(self.journal, proxy, self.poller, limits=Limits(10), now=self.now)
        self._connected = asyncio.Event()

    def now(self) -> float:
        return time.time() + self._ahead

    async def __aenter__(self) -> Self:
        self._listens = asyncio.create_task(self.journal.listen(self._connected.set))
        await self.connected()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listens.cancel()
        await asyncio.gather(self._listens, return_exceptions=True)
        await self._submits.drain(PATIENCE)
        await self._http.aclose()
        await self.journal.aclose()

    async def connected(self) -> None:
        """Wait until it has a session that shows that it lives."""
        async with asyncio.timeout(PATIENCE):
            await self._connected.wait()
        self._connected.clear()

    async def submit(self, task: Task, seconds: float = PATIENCE) -> tuple[Claim, Task]:
        """Buy a mug."""
        by = asyncio.get_running_loop().time() + seconds
        claim, task, _ = await self._submits.submit(
            task, Imagine("a mug"), allow_duplicate=False, until=by, answer_by=by, queue=False
        )
        return claim, task

    async def tend(self) -> list[Task]:
        """A sweep."""
        return await self.journal.tend(self.now())

    async def status(self, task: Task) -> Status:
        """How the row stands."""
        found = await self.journal.find(task.submission_id, None)
        assert found is not None
        return found.status


def ignored(_task: Task) -> None:
    """Nobody listens here."""


@asynccontextmanager
async def replicas(sim: Simulator, *urls: str, apart: float = 0.0) -> AsyncIterator[list[Replica]]:
    """A replica by each of these ways to one database; the clock of each next one is so much further ahead."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Replica(url, sim, apart * at)) for at, url in enumerate(urls)]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - a thread or another process makes it true
            await asyncio.sleep(0.01)


async def seen_to_live(database: Database, number: int) -> None:
    """Wait until so many replicas have a session that shows that they live."""
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_advisory_lock_shared%'"
    await until(lambda: database.execute(sessions) == [(number,)])


@asynccontextmanager
async def posted(sim: Simulator, replica: Replica, task: Task) -> AsyncIterator[asyncio.Task[tuple[Claim, Task]]]:
    """A submit that the proxy has accepted; its answer arrives when the block ends."""
    answer = asyncio.Event()
    sim.inject("submit", faults.held(answer))
    submitting = asyncio.create_task(replica.submit(task))
    try:
        await sim.until(lambda: sim.fired["held"] == 1, PATIENCE)
        yield submitting
    finally:
        answer.set()
        await asyncio.wait({submitting}, timeout=PATIENCE)


async def pass_seconds(database: Database, url: str, observer: Replica, seconds: int) -> set[Status]:
    """Let so many seconds pass, in each of which `observer` sweeps; the states in which it saw submits settled."""
    seen = set()
    for _ in range(seconds):
        observer.passed += 1
        schema = url.partition("search_path%3D")[2]
        database.execute(f"UPDATE {schema}.tasks SET lease_until = lease_until - 1 WHERE holder IS NOT NULL")
        seen |= {task.status for task in await observer.tend() if not task.is_polled}
    return seen


# --- clocks that differ


@pytest.mark.parametrize("apart", [APART_SECONDS, -APART_SECONDS])
async def test_a_replica_whose_clock_differs_leaves_a_submit_under_way_alone(
    database_url: str, sim: Simulator, apart: float
) -> None:
    async with replicas(sim, database_url, database_url, apart=apart) as [ours, theirs]:
        for _ in range(12):
            task = new()
            await ours.journal.claim(task, task.submission_id, allow_duplicate=False, limits=Limits(100))
            assert await theirs.tend() == []
            taken = await ours.journal.update(task.submission_id, lambda known: accept(known, known.submission_id, 1.0))
            assert taken.status is Status.QUEUED
            repeat = await theirs.journal.claim(new(), task.submission_id, allow_duplicate=False, limits=Limits(100))
            assert repeat == Claim(taken, is_new=False)
        assert len(await ours.tend()) == 12, "it keeps what it holds"
        assert await theirs.tend() == []


async def test_a_replica_whose_clock_differs_leaves_the_queue_as_it_is(database_url: str, sim: Simulator) -> None:
    async with replicas(sim, database_url, database_url, apart=APART_SECONDS) as [ours, theirs]:
        limits = Limits(max_open=1)
        await ours.journal.claim(new(), "running", allow_duplicate=False, limits=limits)
        for _ in range(2):
            assert await ours.journal.claim(new("ann"), "ann", allow_duplicate=False, limits=limits) == QueueSlot(1)
            assert await theirs.journal.claim(new("bob"), "bob", allow_duplicate=False, limits=limits) == QueueSlot(2)
        assert (await theirs.journal.usage(None, limits)).waiting == 2


# --- the database is away from one of them


async def test_a_replica_that_loses_the_database_while_it_submits_pays_once_and_nothing_is_called_lost(
    database: Database, database_url: str, sim: Simulator
) -> None:
    async with Relay(database_url) as way, replicas(sim, way.url, database_url) as [ours, theirs]:
        task = new()
        async with posted(sim, ours, task) as submitting:
            with way.cut():
                await seen_to_live(database, 1)
                assert await pass_seconds(database, database_url, theirs, AWAY_SECONDS) == set()
                assert await theirs.status(task) is Status.SUBMITTING
            await ours.connected()
            assert await pass_seconds(database, database_url, theirs, AWAY_SECONDS) == set(), "its session shows again"
        claim, row = await submitting
        assert (claim.is_new, row.status) == (True, Status.QUEUED)
        assert await theirs.status(task) is Status.QUEUED
        assert (await theirs.submit(new()))[0] == Claim(row, is_new=False)
        assert len(sim.submits()) == len(sim.ledger) == 1


async def test_everybody_loses_the_database_and_whoever_is_back_first_calls_nothing_lost(
    database: Database, database_url: str, sim: Simulator
) -> None:
    async with (
        Relay(database_url) as one,
        Relay(database_url) as other,
        replicas(sim, one.url, other.url) as [ours, theirs],
    ):
        task = new()
        async with posted(sim, ours, task) as submitting:
            with one.cut():
                await seen_to_live(database, 1)
                assert await pass_seconds(database, database_url, theirs, 1) == set()
                with other.cut():
                    theirs.passed += 10 * AWAY_SECONDS
                    await seen_to_live(database, 0)
                await theirs.connected()
                assert await pass_seconds(database, database_url, theirs, AWAY_SECONDS) == set()
            await ours.connected()
        assert (await submitting)[1].status is Status.QUEUED
        assert await theirs.status(task) is Status.QUEUED


async def test_a_submit_that_was_called_lost_is_found_again_when_its_replica_is_back(
    database: Database, database_url: str, sim: Simulator
) -> None:
    async with Relay(database_url) as way, replicas(sim, way.url, database_url) as [ours, theirs]:
        task = new()
        async with posted(sim, ours, task) as submitting:
            with way.cut():
                await seen_to_live(database, 1)
                passed = round(SETTLE_SECONDS) + 1
                assert await pass_seconds(database, database_url, theirs, passed) == {Status.UNCONFIRMED}
            await ours.connected()
        claim, row = await submitting
        assert (claim.is_new, row.status) == (True, Status.QUEUED)
        assert await theirs.status(task) is Status.QUEUED
        assert (await theirs.submit(new()))[0] == Claim(row, is_new=False)
        assert len(sim.submits()) == len(sim.ledger) == 1


async def test_no_submit_is_called_lost_while_its_answer_is_awaited(
    database: Database, database_url: str, sim: Simulator
) -> None:
    async with Relay(database_url) as way, replicas(sim, way.url, database_url) as [ours, theirs]:
        task = new()
        async with posted(sim, ours, task) as submitting:
            with way.cut():
                await seen_to_live(database, 1)
                await pass_seconds(database, database_url, theirs, round(SETTLE_SECONDS) + 1)
            await ours.connected()
            assert await ours.status(task) is Status.UNCONFIRMED
            claim, row = await ours.submit(new(), 0.5)
            assert (claim.is_new, row.submission_id, row.status) == (False, task.submission_id, Status.SUBMITTING)
            repeating = asyncio.create_task(ours.submit(new()))
            await until(lambda: ours.poller.load().waiters == 2)
        for asked in (submitting, repeating):
            row = (await asked)[1]
            assert (row.submission_id, row.status) == (task.submission_id, Status.QUEUED)
        assert len(sim.ledger) == 1


# --- a replica that is gone


async def test_a_submit_of_a_replica_that_was_killed_is_unconfirmed_after_half_a_minute(
    database: Database, database_url: str, sim: Simulator
) -> None:
    async with Relay(database_url) as way, replicas(sim, way.url, database_url) as [ours, theirs]:
        task = new()
        await ours.journal.claim(task, "key", allow_duplicate=False, limits=Limits(10))
        with way.cut():  # which is all that is seen of a death
            await seen_to_live(database, 1)
            assert await pass_seconds(database, database_url, theirs, round(SETTLE_SECONDS)) == set()
            assert await pass_seconds(database, database_url, theirs, 1) == {Status.UNCONFIRMED}


async def test_a_submit_of_a_replica_that_seems_connected_is_unconfirmed_after_minutes_of_silence(
    database: Database, database_url: str, sim: Simulator
) -> None:
    """A machine that lost its power leaves a session that the database takes for alive."""
    async with replicas(sim, database_url, database_url) as [ours, theirs]:
        task = new()
        await ours.journal.claim(task, "key", allow_duplicate=False, limits=Limits(10))
        assert await pass_seconds(database, database_url, theirs, round(SILENT_SECONDS)) == set()
        assert await pass_seconds(database, database_url, theirs, 10) == {Status.UNCONFIRMED}
