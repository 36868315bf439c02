"""The order of a submit, with a clock and a journal that the test holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY
from structlog.testing import capture_logs

from mj_mcp.errors import Rejected, Unauthorized
from mj_mcp.journal import Claim, Journal, Limits, QueueSlot, open_journal
from mj_mcp.logs import redactor
from mj_mcp.polling.open_jobs import PollTimings
from mj_mcp.polling.poller import Poller
from mj_mcp.proxy import Detection, Imagine, Proxy
from mj_mcp.proxy.http import Http
from mj_mcp.proxy.raising import raise_unless_accepted
from mj_mcp.simulator import Simulator, faults
from mj_mcp.submits import PAUSE_SECONDS, Submits
from mj_mcp.tasks import Kind, Status, Task, mark_unconfirmed

pytestmark = pytest.mark.anyio

PATIENCE = 30.0
Submit = Callable[..., Coroutine[Any, Any, tuple[Claim, Task, int]]]
numbers = count(1)


@asynccontextmanager
async def opened(sim: Simulator, home: Path, **more: Any) -> AsyncIterator[tuple[Submit, Journal, list[Any]]]:
    """How to submit a prompt, the journal behind it, and the one that is asked, which a test may replace."""
    journal, http = open_journal("", home, "an account"), Http(sim.url, KEY)
    proxy = Proxy(http, redactor(KEY), Detection(http, dialect="gateway"))
    poller = Poller(
        journal,
        proxy,
        poll_seconds=5,
        polls_per_second=50,
        now=time.time,
        on_end=ignored,
        notify=ignored,
        timings=PollTimings(),
    )
    asked: list[Any] = [journal]
    submits = Submits(Asked(asked), proxy, poller, limits=Limits(10), now=time.time, **more)

    async def submit(prompt: str, seconds: float = PATIENCE) -> tuple[Claim, Task, int]:
        task = Task(
            submission_id=f"sub_{next(numbers)}", status=Status.SUBMITTING, kind=Kind.IMAGINE, updated_at=time.time()
        )
        soon = asyncio.get_running_loop().time() + seconds
        return await submits.submit(
            task, Imagine(prompt), allow_duplicate=False, until=soon, answer_by=soon, queue=False
        )

    yield submit, journal, asked
    await submits.drain(PATIENCE)
    await http.aclose()
    await journal.aclose()


class Asked:
    """The last journal of a list."""

    def __init__(self, journals: list[Any]) -> None:
        self._journals = journals

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journals[-1], name)


class Held:
    """A journal that keeps the answers to claims back until it is let go; the claims themselves are made at once."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.claims: list[Claim | QueueSlot] = []
        self.claimed, self.go = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    async def claim(self, *arguments: Any, **more: Any) -> Claim | QueueSlot:
        self.claims.append(await self._journal.claim(*arguments, **more))
        self.claimed.set()
        await self.go.wait()
        return self.claims[-1]


def ignored(_task: Task) -> None:
    """Nobody listens here."""


async def test_a_pause_ends_after_a_minute(sim: Simulator, tmp_path: Path) -> None:
    passed = [0.0]
    async with opened(sim, tmp_path, clock=lambda: passed[0]) as (submit, _, _):
        sim.inject("submit", faults.status(401))
        assert (await submit("a mug"))[1].status is Status.REFUSED
        passed[0] = PAUSE_SECONDS - 0.5
        with pytest.raises(Unauthorized) as paused:
            await submit("a jug")
        assert paused.value.retry_after_seconds == 1.0
        passed[0] = PAUSE_SECONDS
        assert (await submit("a jar"))[1].status is Status.QUEUED
    assert sim.fired == {"status_401": 1}
    assert len(sim.submits()) == 2


async def test_a_caller_that_meets_a_withdrawn_claim_claims_for_itself(sim: Simulator, tmp_path: Path) -> None:
    async with opened(sim, tmp_path) as (submit, journal, asked):
        first, second = Held(journal), Held(journal)
        asked.append(first)
        leaving = asyncio.create_task(submit("a mug"))
        async with asyncio.timeout(PATIENCE):
            await first.claimed.wait()
        asked.append(second)
        second.go.set()
        meeting = asyncio.create_task(submit("a mug"))
        async with asyncio.timeout(PATIENCE):
            await second.claimed.wait()
        (withdrawn,) = first.claims
        assert isinstance(withdrawn, Claim)
        assert second.claims == [Claim(withdrawn.task, is_new=False)]
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        first.go.set()
        claim, task, _ = await asyncio.wait_for(meeting, PATIENCE)
        assert (claim.is_new, task.status) == (True, Status.QUEUED)
        left = await journal.find(withdrawn.task.submission_id, "local")
    assert left is not None
    with pytest.raises(Rejected, match="the caller left before anything was submitted"):
        raise_unless_accepted(left)
    assert len(sim.submits()) == len(sim.ledger) == 1


class Forgetful:
    """A journal that breaks, in a way that nobody foresaw, when an outcome is written down."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    async def update(self, _submission_id: str, _change: Any) -> Task:
        raise RuntimeError("nobody foresaw this")


async def test_a_defect_while_an_outcome_is_recorded_is_logged_and_its_row_stays(
    sim: Simulator, tmp_path: Path
) -> None:
    async with opened(sim, tmp_path) as (submit, journal, asked):
        asked.append(Forgetful(journal))
        with capture_logs() as logs:
            claim, task, _ = await submit("a mug", seconds=0.5)
            await asyncio.sleep(0)
        row = await journal.find(claim.task.submission_id, "local")
        await journal.update(claim.task.submission_id, lambda known: mark_unconfirmed(known, "lost", time.time()))
        asked.append(journal)
        assert (await submit("a mug", seconds=0.5))[1].status is Status.UNCONFIRMED, "nobody here waits for it any more"
    assert task.status is Status.SUBMITTING
    assert row == claim.task
    assert [line["exc_info"].args for line in logs if line["event"] == "submit_failed"] == [("nobody foresaw this",)]
    assert len(sim.ledger) == 1
