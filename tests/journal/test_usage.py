"""Usage: it counts as the limits count, at one moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from journals import NOON, Clock, Open, Where, abandoned, bought, claim, done, failed, let_pass, lost, new, no, queued

from mj_mcp.journal import Journal, Limits, Usage
from mj_mcp.journal.engine import Db, Engine, Rows
from mj_mcp.journal.protocol import QUEUE_SECONDS
from mj_mcp.journal.sql import SqlJournal
from mj_mcp.tasks import Kind, Status, Task, accept

pytestmark = pytest.mark.anyio


T = TypeVar("T")


async def test_usage_counts_as_the_limits_count_each_kind_and_day_and_owner_apart(
    open_journal: Open, clock: Clock
) -> None:
    journal, midnight = open_journal(), NOON - 12 * 3600
    rows: list[tuple[float, Kind | None, str, Callable[[Task], Task] | None]] = [
        (NOON, Kind.IMAGINE, "me", None),
        (midnight, Kind.IMAGINE, "me", failed),
        (midnight, None, "me", failed),
        (midnight, Kind.UPSCALE, "me", lost),
        (NOON, Kind.REROLL, "me", no),
        (NOON, Kind.REROLL, "me", abandoned),
        (midnight - 1, Kind.UPSCALE, "me", lambda task: done(accept(task, "77", NOON))),
        (midnight - 6 * 86400, Kind.VARIATION, "me", failed),
        (midnight - 6 * 86400 - 1, Kind.VARIATION, "me", failed),
        (NOON, Kind.VARIATION, "you", None),
    ]
    for at, kind, owner, settle in rows:
        task = replace(new(at, owner), kind=kind)
        await claim(journal, task)
        if settle is not None:
            await journal.update(task.submission_id, settle)
    await journal.adopt(replace(new(owner="me"), status=Status.QUEUED, task_id="88", submitted_at=None))
    await claim(open_journal("theirs"), new(owner="me"))
    mine = Usage(
        today={Kind.IMAGINE: 2, Kind.UPSCALE: 1, "other": 1},
        last_7_days={Kind.IMAGINE: 2, Kind.UPSCALE: 2, Kind.VARIATION: 1, "other": 1},
        open=2,  # one is being submitted, one was adopted; the doubt is older than any job
        waiting=0,
        open_left=7,
        today_left=None,
        resets_at=midnight + 86400,
    )
    assert await journal.usage("me", Limits(max_open=10)) == mine
    everybodys = replace(
        mine,
        today={**mine.today, Kind.VARIATION: 1},
        last_7_days={**mine.last_7_days, Kind.VARIATION: 2},
        open=3,
    )
    assert await journal.usage(None, Limits(max_open=10, owner_max_open=1, owner_per_day=1)) == everybodys
    clock.time = midnight + 86400
    tomorrow = await journal.usage("me", Limits(max_open=10))
    assert (tomorrow.today, tomorrow.resets_at) == ({}, midnight + 2 * 86400)


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        (Limits(max_open=9), (6, None)),
        (Limits(max_open=9, per_day=5), (6, 2)),
        (Limits(max_open=9, per_day=5, owner_max_open=3, owner_per_day=2), (1, 0)),
        (Limits(max_open=4, per_day=4, owner_max_open=8, owner_per_day=9), (1, 1)),
        (Limits(max_open=2, per_day=1), (0, 0)),
    ],
)
async def test_what_is_left_is_the_least_of_the_owners_limits_and_the_servers(
    journal: Journal, limits: Limits, left: tuple[int, int | None]
) -> None:
    for owner in ("me", "me", "you"):
        await claim(journal, new(owner=owner))
    usage = await journal.usage("me", limits)
    assert (usage.open_left, usage.today_left) == left


async def test_who_waits_in_the_queue_is_counted_while_the_slot_is_kept(journal: SqlJournal) -> None:
    limits = Limits(max_open=1)
    await bought(journal, new(owner="me"))
    for owner in ("me", "me", "you"):
        assert await queued(journal, new(owner=owner), limits) > 0
    assert [(await journal.usage(owner, limits)).waiting for owner in ("me", "you", None)] == [2, 1, 3]
    await let_pass(journal, QUEUE_SECONDS + 1)
    assert (await journal.usage("me", limits)).waiting == 0


class Interrupted:
    """An engine whose reads are interrupted before each of their statements."""

    def __init__(self, engine: Engine, interrupt: Callable[[], None]) -> None:
        self._engine = engine
        self._interrupt = interrupt
        self._db: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def read(self, work: Callable[[Db], T]) -> T:
        def interrupted(db: Db) -> T:
            self._db = db
            return work(self)

        return await self._engine.read(interrupted)

    def execute(self, *statement: Any) -> Rows:
        self._interrupt()
        rows: Rows = self._db.execute(*statement)
        return rows


async def test_usage_is_of_one_moment_however_much_is_bought_meanwhile(where: Where, open_journal: Open) -> None:
    theirs, loop = open_journal(), asyncio.get_running_loop()
    await theirs.ready()
    written = []

    def buy() -> None:
        written.append(asyncio.run_coroutine_threadsafe(claim(theirs, new()), loop).result(10))

    ours = SqlJournal(Interrupted(where.new_engine(), buy), "account", Clock())
    try:
        limits = Limits(max_open=1000, per_day=1000)
        usage = await ours.usage("local", limits)
        assert len(written) > 3
        assert usage.open > 0
        assert usage == Usage(
            today={Kind.IMAGINE: usage.open},
            last_7_days={Kind.IMAGINE: usage.open},
            open=usage.open,
            waiting=0,
            open_left=1000 - usage.open,
            today_left=1000 - usage.open,
            resets_at=NOON + 12 * 3600,
        )
        last = written[-1].task
        assert await ours.find(last.submission_id, "local") == last, "the next read shows what is there by then"
    finally:
        await ours.aclose()
