"""The journal: one contract that every engine keeps, then what is SQLite's alone."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psycopg
import pytest

import mj_mcp.journal
from mj_mcp.errors import Busy, InvalidRequest, LimitReached, StorageUnavailable, TaskNotFound
from mj_mcp.journal import Claim, Journal, Limits, Page, QueueSlot, Usage
from mj_mcp.journal.claims import ANSWERING
from mj_mcp.journal.engine import WRITE_SECONDS, Db, Engine, Rows
from mj_mcp.journal.postgres import Postgres
from mj_mcp.journal.protocol import (
    KEPT_SECONDS,
    LEASE_SECONDS,
    QUEUE_SECONDS,
    REPEAT_SECONDS,
    UNCONFIRMED_COUNTS_SECONDS,
)
from mj_mcp.journal.rows import NEVER
from mj_mcp.journal.schema import MIGRATIONS, in_postgres
from mj_mcp.journal.sql import SqlJournal
from mj_mcp.journal.sqlite import Sqlite
from mj_mcp.tasks import (
    Failure,
    IllegalMove,
    Image,
    Kind,
    Observation,
    Status,
    Task,
    accept,
    give_up,
    mark_unconfirmed,
    merge,
    move,
    refuse,
    resume,
    stall,
)

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
MANY = Limits(max_open=1000)


class Clock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> float:
        return self.time


class Where(NamedTuple):
    """A storage: the name of its engine, and its folder or URL."""

    engine: str
    place: str

    def new_engine(self) -> Engine:
        """Another process's engine on it."""
        return Sqlite(Path(self.place) / "data") if self.engine == "sqlite" else Postgres(self.place)

    def load(self, dump: str) -> None:
        """Make the journal of an SQLite dump, as an older version would have left it here."""
        if self.engine == "sqlite":
            (Path(self.place) / "data").mkdir()
            with closing(sqlite3.connect(Path(self.place) / "data" / "journal.db")) as file:
                file.executescript(dump)
            return
        with psycopg.connect(self.place) as db:
            for statement in in_postgres(dump).split(";\n")[1:-2]:  # without its BEGIN and COMMIT
                db.execute(statement.encode())
            for table in ("tasks", "waiting"):
                db.execute(f"SELECT setval('{table}_number_seq', max(number)) FROM {table}".encode())

    def tables(self) -> set[str]:
        """The names of its tables."""
        if self.engine == "sqlite":
            with closing(sqlite3.connect(Path(self.place) / "data" / "journal.db")) as file:
                return {name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        with psycopg.connect(self.place) as db:
            return {name for (name,) in db.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema")}


Open = Callable[..., SqlJournal]
"""Another process's door to the same storage, in this process. `account` is the only argument."""

T = TypeVar("T")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    return Where(
        request.param, request.getfixturevalue("database_url") if request.param == "postgres" else f"{tmp_path}"
    )


@pytest.fixture
async def open_journal(where: Where, clock: Clock) -> AsyncIterator[Open]:
    opened: list[SqlJournal] = []

    def open_(account: str = "account") -> SqlJournal:
        opened.append(SqlJournal(where.new_engine(), account, clock))
        return opened[-1]

    yield open_
    for journal in opened:
        await journal.aclose()


@pytest.fixture
def journal(open_journal: Open) -> SqlJournal:
    return open_journal()


numbers = count(1)


def new(at: float = NOON, owner: str = "local") -> Task:
    return Task(
        submission_id=f"sub_{next(numbers)}",
        status=Status.SUBMITTING,
        owner=owner,
        kind=Kind.IMAGINE,
        prompt="a red mug",
        submitted_at=at,
        claimed_at=NOON,
        updated_at=at,
    )


async def claim(
    journal: Journal, task: Task, key: str = "", *, allow_duplicate: bool = False, limits: Limits = MANY
) -> Claim:
    key = key or task.submission_id
    made = await journal.claim(task, key, allow_duplicate=allow_duplicate, limits=limits)
    assert isinstance(made, Claim)
    return made


async def queued(journal: Journal, task: Task, limits: Limits) -> int:
    """The slot in the queue of a request that is ready to wait; 0 when it was claimed."""
    made = await journal.claim(task, task.submission_id, allow_duplicate=False, limits=limits)
    return made.position if isinstance(made, QueueSlot) else 0


async def bought(journal: Journal, task: Task, key: str = "") -> Task:
    """A task that the proxy works on."""
    await claim(journal, task, key)
    return await journal.update(task.submission_id, lambda known: accept(known, f"up_{task.submission_id}", NOON))


def done(task: Task) -> Task:
    return merge(task, Observation(status=Status.SUCCEEDED, images=(Image(1, "https://x.example/1"),)), NOON + 1)


async def made(journal: Journal, task: Task, key: str = "", at: float = NOON + 1) -> Task:
    """A task that succeeded, by the clock of the process that saw it `at`."""
    await bought(journal, task, key)
    return await journal.update(task.submission_id, lambda known: replace(done(known), finished_at=at))


async def let_pass(journal: SqlJournal, seconds: float) -> None:
    """Let the storage's clock go on by so much, for leases and the queue."""

    def work(db: Db) -> None:
        db.execute("UPDATE tasks SET lease_until = lease_until - ? WHERE lease_until < ?", (seconds, NEVER))
        db.execute("UPDATE waiting SET seen_at = seen_at - ?", (seconds,))

    await journal._write(work)


async def age(journal: SqlJournal, task: Task, seconds: float) -> None:
    """Let the storage's clock have been so far back when the task succeeded."""
    await journal._write(
        lambda db: db.execute(
            "UPDATE tasks SET settled_at = settled_at - ? WHERE submission_id = ?", (seconds, task.submission_id)
        )
    )


def no(task: Task) -> Task:
    return refuse(task, Failure("rejected", "no"), NOON)


def failed(task: Task) -> Task:
    accepted = accept(task, f"up_{task.submission_id}", NOON)
    return merge(accepted, Observation(status=Status.FAILED, failure=Failure("generation_failed", "no")), NOON + 1)


def abandoned(task: Task) -> Task:
    return move(lost(task), Status.ABANDONED, NOON)


def lost(task: Task) -> Task:
    return mark_unconfirmed(task, "no answer", NOON)


# --- the claim


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


# --- the limits


async def test_the_limit_of_open_tasks_is_exact_over_two_processes(open_journal: Open) -> None:
    journals = [open_journal(), open_journal()]
    limits = Limits(max_open=7)
    places = await asyncio.gather(*(queued(journals[at % 2], new(), limits) for at in range(50)))
    assert sorted(places) == [0] * 7 + list(range(1, 44))
    assert len((await journals[0].page("local", None, 100, None)).tasks) == 7


@pytest.mark.parametrize("settle", [no, lambda task: done(accept(task, "77", NOON))])
async def test_a_settled_task_gives_its_place_back(journal: Journal, settle: Callable[[Task], Task]) -> None:
    limits = Limits(max_open=1)
    first, second = new(), new()
    await claim(journal, first, limits=limits)
    assert await queued(journal, second, limits) == 1
    await journal.update(first.submission_id, settle)
    assert await queued(journal, second, limits) == 0


async def test_a_stalled_task_gives_its_place_back(journal: Journal) -> None:
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


async def test_owners_take_turns_in_the_queue_however_many_requests_one_of_them_has(journal: Journal) -> None:
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
        places = {task.submission_id: await queued(journal, task, limits) for task in waiting}
        (next_one,) = [task for task in waiting if places[task.submission_id] == 0]
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


async def test_a_place_is_kept_for_a_while_and_then_given_up(journal: SqlJournal) -> None:
    limits = Limits(max_open=1)
    await bought(journal, new())
    gone, here = new(owner="ann"), new(owner="bob")
    assert await queued(journal, gone, limits) == 1
    assert await queued(journal, here, limits) == 2
    await let_pass(journal, KEPT_SECONDS / 2)
    assert await queued(journal, here, limits) == 2
    await let_pass(journal, KEPT_SECONDS / 2 + 1)
    assert await queued(journal, here, limits) == 1


async def test_a_kept_place_is_taken_up_by_the_same_request_of_another_call(journal: SqlJournal) -> None:
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


async def test_a_turn_is_the_owners_whichever_of_their_requests_asks(journal: SqlJournal) -> None:
    """A caller that changes its request each time it is told to wait must not hold the place back from everybody."""
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


async def test_a_place_can_be_left(journal: Journal) -> None:
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


# --- reading and changing


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


# --- what was used


async def test_usage_counts_as_the_limits_count_each_kind_and_day_and_owner_apart(
    open_journal: Open, clock: Clock
) -> None:
    journal, midnight = open_journal(), NOON - 12 * 3600
    rows: list[tuple[float, Kind, str, Callable[[Task], Task] | None]] = [
        (NOON, Kind.IMAGINE, "me", None),
        (midnight, Kind.IMAGINE, "me", failed),
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
        today={Kind.IMAGINE: 2, Kind.UPSCALE: 1},
        last_7_days={Kind.IMAGINE: 2, Kind.UPSCALE: 2, Kind.VARIATION: 1},
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
async def test_what_is_left_is_the_least_of_the_owners_and_all_told(
    journal: Journal, limits: Limits, left: tuple[int, int | None]
) -> None:
    for owner in ("me", "me", "you"):
        await claim(journal, new(owner=owner))
    usage = await journal.usage("me", limits)
    assert (usage.open_left, usage.today_left) == left


async def test_who_waits_in_the_queue_is_counted_while_the_place_is_kept(journal: SqlJournal) -> None:
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


# --- whose it is


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


# --- leases


async def test_an_open_task_is_watched_by_one_process(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await bought(first, new())
    for _ in range(2):
        assert await first.tend(NOON) == [task]
        assert await second.tend(NOON) == []


async def test_an_adopted_task_is_watched_by_whoever_comes_first(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await first.adopt(replace(new(), status=Status.QUEUED, task_id="77"))
    held = await asyncio.gather(first.tend(NOON), second.tend(NOON))
    assert sorted(held, key=len) == [[], [task]]


async def test_a_lease_that_is_kept_is_never_taken_over(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await bought(first, new())
    for _ in range(20):
        await let_pass(first, LEASE_SECONDS / 2)
        assert await first.tend(NOON) == [task]
        assert await second.tend(NOON) == []


async def test_a_lease_that_lapsed_is_taken_over_and_the_old_holder_lets_go(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await bought(first, new())
    assert await first.tend(NOON) == [task]
    await let_pass(first, LEASE_SECONDS + 1)
    assert await second.tend(NOON) == [task]
    assert await first.tend(NOON) == []
    assert await second.tend(NOON) == [task]


async def test_a_clock_that_was_set_back_does_not_hold_a_lease_for_ever(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await bought(first, new())
    assert await first.tend(NOON) == [task]
    await let_pass(first, -86400)
    assert await second.tend(NOON) == [task]


async def test_a_process_that_leaves_gives_its_tasks_back_at_once(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await bought(first, new())
    assert await second.tend(NOON) == []
    await first.aclose()
    assert await second.tend(NOON) == [task]


async def test_a_submit_under_way_is_left_to_the_process_that_makes_it(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = new()
    await claim(first, task)
    for _ in range(20):
        await let_pass(first, LEASE_SECONDS / 2)
        assert await first.tend(NOON) == []
        assert await second.tend(NOON) == []
    assert await second.find(task.submission_id, "local") == task


async def settled_by(journal: Journal, task: Task) -> Task:
    """The row after `journal` has tended to it; it tells its caller of what it settles."""
    (told,) = await journal.tend(NOON)
    assert await journal.find(task.submission_id, "local") == told
    return told


async def test_a_submit_of_a_process_that_left_is_in_doubt(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = new()
    await claim(first, task, "key")
    await first.aclose()
    doubtful = await settled_by(second, task)
    assert doubtful == mark_unconfirmed(task, "the server stopped before the proxy's answer was recorded", NOON)
    assert await claim(second, new(), "key") == Claim(doubtful, is_new=False)


async def test_doubt_that_is_resolved_is_watched_again(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = new()
    await claim(first, task)
    await first.update(task.submission_id, lost)
    assert await second.tend(NOON) == []
    found = await second.update(task.submission_id, lambda known: accept(known, "77", NOON))
    assert await second.tend(NOON) == [found]


@pytest.mark.parametrize("settle", [no, lost, lambda task: done(accept(task, "77", NOON))])
async def test_what_is_settled_is_watched_by_nobody(open_journal: Open, settle: Callable[[Task], Task]) -> None:
    first, second = open_journal(), open_journal()
    task = new()
    await claim(first, task)
    await first.update(task.submission_id, settle)
    await let_pass(first, 100 * LEASE_SECONDS)
    assert await first.tend(NOON) == []
    assert await second.tend(NOON) == []


async def test_a_task_that_was_given_up_is_nobodys_until_somebody_asks(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await bought(first, new())
    assert await first.tend(NOON) == [task]
    task = await first.update(task.submission_id, lambda known: stall(known, "nothing moves", NOON))
    assert await first.tend(NOON) == [task]
    left = await first.update(task.submission_id, lambda known: give_up(known, NOON))
    assert (left.status, left.given_up_at) == (Status.STALLED, NOON)
    for later in (1, 100 * LEASE_SECONDS):
        await let_pass(first, later)
        assert await first.tend(NOON) == await second.tend(NOON) == []
    assert await second.find(task.submission_id, None) == left
    taken_up = await second.update(task.submission_id, resume)
    assert taken_up == task
    assert await second.tend(NOON) == [task]
    assert await first.tend(NOON) == []


# --- changes


async def test_changes_tell_what_another_process_wrote_and_only_that(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    before = await bought(first, new())
    assert await second.changes() == []
    ours = await bought(second, new())
    assert await second.changes() == []
    theirs = await first.update(before.submission_id, done)
    assert await second.changes() == [theirs]
    assert await second.changes() == []
    assert await first.changes() == []
    ours = await second.update(ours.submission_id, done)
    assert await first.changes() == [ours]


async def test_a_damaged_row_hides_no_other_from_those_who_read_many(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    damaged, sound = await bought(first, new()), await bought(first, new())
    assert await second.changes() == []
    damaged, sound = [await first.update(task.submission_id, done) for task in (damaged, sound)]
    await first._write(
        lambda db: db.execute("UPDATE tasks SET body = '{' WHERE submission_id = ?", (damaged.submission_id,))
    )
    assert await second.changes() == [sound]
    assert await second.finished(Kind.IMAGINE, 10) == [sound]
    assert (await second.page("local", None, 10, None)).tasks == (sound,)
    with pytest.raises(StorageUnavailable, match="`mj-mcp journal check`"):
        await second.find(damaged.submission_id, "local")


async def test_a_look_that_showed_nothing_new_is_no_change(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await bought(first, new())
    assert await second.changes() == []
    assert await first.update(task.submission_id, lambda known: known) == task
    assert await second.changes() == []


async def test_the_lease_of_another_process_is_no_change_of_a_task(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    task = await bought(first, new())
    assert await second.changes() == []
    await let_pass(first, LEASE_SECONDS)
    assert await first.tend(NOON) == [task]
    assert await second.changes() == []


async def test_changes_come_in_order_and_each_task_once(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    assert await second.changes() == []
    one, two = await bought(first, new()), await bought(first, new())
    one = await first.update(one.submission_id, done)
    assert await second.changes() == [two, one]


# --- its life


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


OLD_JOURNAL = (Path(__file__).parent / "old_journal.sql").read_text()
"""Written by the version before migration 0005, with a row of every status and warnings that are sentences."""


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
    assert where.tables() == {"migrations", "tasks", "waiting"} | ({"sqlite_sequence"} & where.tables())
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


# ------------------------------------------------------------------------------------- SQLite: the file


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def storage(journal: SqlJournal) -> Sqlite:
    """The engine behind a journal, for what no other door shows."""
    assert isinstance(journal._engine, Sqlite)
    return journal._engine


@asynccontextmanager
async def sqlite(data_dir: Path, **options: Any) -> AsyncIterator[SqlJournal]:
    journal = SqlJournal(Sqlite(data_dir, **options), "account", lambda: NOON)
    try:
        yield journal
    finally:
        await journal.aclose()


def inside(folder: Path, pattern: str = "*") -> list[Path]:
    return sorted(folder.glob(pattern))


def write(data_dir: Path, journal: bytes) -> None:
    data_dir.mkdir(exist_ok=True)
    (data_dir / "journal.db").write_bytes(journal)


def read_only(folder: Path) -> None:
    folder.mkdir(mode=0o500)


def mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o777)


@pytest.mark.parametrize("umask", [0o000, 0o022])
async def test_the_file_and_its_folder_are_for_their_owner_alone(tmp_path: Path, umask: int) -> None:
    data_dir = tmp_path / "above" / "data"
    before = os.umask(umask)
    try:
        async with sqlite(data_dir) as journal:
            await claim(journal, new())
            modes = {path.name: mode(path) for path in inside(data_dir)}
            assert modes == {
                "journal.db": "0o600",
                "journal.db-wal": "0o600",
                "journal.db-shm": "0o600",
                "processes": "0o700",
            }
            assert mode(data_dir) == "0o700"
            assert [mode(lock) for lock in inside(data_dir / "processes")] == ["0o600"]
    finally:
        os.umask(before)
    assert inside(data_dir / "processes") == []


async def test_what_is_committed_is_on_the_disk(data_dir: Path) -> None:
    async with sqlite(data_dir) as journal:
        pragmas = await journal._write(
            lambda db: [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
        )
        assert pragmas == ["wal", 2]


async def test_a_held_task_is_read_again_only_when_it_was_written(data_dir: Path) -> None:
    async with sqlite(data_dir) as journal:
        still, moves = await bought(journal, new()), await bought(journal, new())
        assert await journal.tend(NOON) == [still, moves]
        with closing(sqlite3.connect(data_dir / "journal.db")) as db, db:
            db.execute("UPDATE tasks SET body = 'unreadable' WHERE submission_id = ?", (still.submission_id,))
        assert await journal.tend(NOON) == [still, moves]
        with closing(sqlite3.connect(data_dir / "journal.db")) as db, db:
            db.execute("UPDATE tasks SET seq = seq + 100 WHERE submission_id = ?", (still.submission_id,))
        assert await journal.tend(NOON) == [moves], "a damaged row hides no other"


async def test_a_journal_of_a_newer_version_is_refused_and_left_alone(data_dir: Path) -> None:
    async with sqlite(data_dir) as journal:
        await claim(journal, new())
    with closing(sqlite3.connect(data_dir / "journal.db")) as db, db:
        db.execute("INSERT INTO migrations (name) VALUES ('0099_from_the_future')")
    for _ in range(2):
        async with sqlite(data_dir) as journal:
            with pytest.raises(StorageUnavailable, match=r"newer version of mj-mcp .*0099_from_the_future.*upgrade"):
                await claim(journal, new())
    with closing(sqlite3.connect(data_dir / "journal.db")) as db:
        assert db.execute("SELECT count(*) FROM tasks").fetchone() == (1,)


async def test_an_older_journal_is_brought_up_to_date_and_keeps_its_rows(
    data_dir: Path,
) -> None:
    task = new()
    async with sqlite(data_dir) as journal:
        await claim(journal, task)
    newer = [
        *MIGRATIONS,
        ("9998_more", "ALTER TABLE tasks ADD more TEXT; CREATE TABLE other (x)"),
    ]
    for _ in range(2):
        async with sqlite(data_dir, migrations=newer) as journal:
            assert (await journal.page("local", None, 10, None)).tasks[-1].submission_id == task.submission_id
    with closing(sqlite3.connect(data_dir / "journal.db")) as db:
        names = db.execute("SELECT name FROM migrations ORDER BY name").fetchall()
    assert names == [(name,) for name, _ in newer]


async def test_a_migration_that_breaks_leaves_the_journal_as_it_was(data_dir: Path) -> None:
    async with sqlite(data_dir) as journal:
        await claim(journal, new())
    broken = [*MIGRATIONS, ("9998_broken", "ALTER TABLE tasks ADD more TEXT; NONSENSE")]
    async with sqlite(data_dir, migrations=broken) as journal:
        with pytest.raises(StorageUnavailable, match="NONSENSE"):
            await journal.ready()
    async with sqlite(data_dir) as journal:
        assert (await claim(journal, new())).is_new


BROKEN = {
    "text": b"this is no database, " * 100,
    "head": b"SQLite format 3\x00" + b"\xff" * 8192,
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_journal_is_kept_aside_and_no_new_one_is_begun(data_dir: Path, name: str) -> None:
    write(data_dir, BROKEN[name])
    for _ in range(3):
        async with sqlite(data_dir) as journal:
            with pytest.raises(
                StorageUnavailable, match=r"kept as .*journal\.broken-\d{8}T\d{6}Z\.db; nothing is submitted"
            ):
                await claim(journal, new())
    kept = inside(data_dir, "journal.*")
    assert [path.read_bytes() for path in kept] == [BROKEN[name]]
    # Once a person has moved it out of the folder, a new journal begins.
    kept[0].rename(data_dir.parent / "moved.db")
    async with sqlite(data_dir) as journal:
        assert (await claim(journal, new())).is_new


async def test_a_repaired_journal_is_used_although_the_broken_one_is_still_there(data_dir: Path) -> None:
    async with sqlite(data_dir) as journal:
        await claim(journal, new())
    repaired = (data_dir / "journal.db").read_bytes()
    write(data_dir, BROKEN["text"])
    async with sqlite(data_dir) as journal:
        with pytest.raises(StorageUnavailable):
            await journal.ready()
    write(data_dir, repaired)
    async with sqlite(data_dir) as journal:
        assert len((await journal.page("local", None, 10, None)).tasks) == 1


async def test_a_second_breakage_in_the_same_second_does_not_overwrite_the_first(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = time.gmtime(NOON)
    monkeypatch.setattr(time, "gmtime", lambda: moment)
    for body in BROKEN.values():
        write(data_dir, body)
        async with sqlite(data_dir) as journal:
            with pytest.raises(StorageUnavailable, match="kept as"):
                await journal.ready()
    assert {path.read_bytes() for path in inside(data_dir, "journal.*")} == set(BROKEN.values())


async def test_two_who_meet_a_broken_journal_at_once_begin_no_new_one(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one has passed the first check when the first one sets the file aside."""
    write(data_dir, BROKEN["text"])
    connect = sqlite3.connect

    def late(*args: object, **kwargs: object) -> sqlite3.Connection:
        monkeypatch.setattr(sqlite3, "connect", connect)
        (data_dir / "journal.db").rename(data_dir / "journal.broken-20261123T120000Z.db")
        return connect(*args, **kwargs)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(sqlite3, "connect", late)
    for _ in range(2):
        async with sqlite(data_dir) as journal:
            with pytest.raises(StorageUnavailable):
                await claim(journal, new())
    assert [path.name for path in inside(data_dir, "journal.*")] == ["journal.broken-20261123T120000Z.db"]


async def test_a_folder_that_cannot_be_written_buys_nothing(tmp_path: Path) -> None:
    """`/proc` refuses new entries to everybody, root included; a file is no folder."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", Path("/proc/mj-mcp")):
        async with sqlite(folder) as journal:
            with pytest.raises(StorageUnavailable, match="the journal cannot be opened"):
                await claim(journal, new())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into read-only folders")
async def test_a_read_only_folder_buys_nothing(data_dir: Path) -> None:
    read_only(data_dir)
    async with sqlite(data_dir) as journal:
        with pytest.raises(StorageUnavailable):
            await claim(journal, new())


@pytest.mark.parametrize("pragma", ["query_only = ON", "max_page_count = 1"], ids=["read-only", "disk full"])
async def test_a_journal_that_cannot_grow_buys_nothing_and_recovers(data_dir: Path, pragma: str) -> None:
    async with sqlite(data_dir) as journal:
        await journal.ready()
        connection = storage(journal)._connections[storage(journal)._writes]
        connection.execute(f"PRAGMA {pragma}")
        big = replace(new(), prompt="x" * 100_000)
        with pytest.raises(StorageUnavailable, match=r"the journal cannot be used: (it is read-only|the disk is full)"):
            await claim(journal, big)
        connection.execute("PRAGMA query_only = OFF")
        connection.execute("PRAGMA max_page_count = 1000000")
        assert (await journal.page("local", None, 10, None)).tasks == ()
        assert (await claim(journal, big)).is_new


async def test_a_locked_journal_buys_nothing_and_recovers(data_dir: Path) -> None:
    async with sqlite(data_dir, write_seconds=0.05) as journal:
        await journal.ready()
        task = new()
        with closing(sqlite3.connect(data_dir / "journal.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageUnavailable, match="locked"):
                await claim(journal, task)
            # Who only reads does not wait behind it.
            assert await journal.page("local", None, 10, None) == Page((), None)
            other.execute("ROLLBACK")
        assert await journal.find(task.submission_id, "local") is None
        assert (await claim(journal, task)).is_new


async def test_calls_that_find_the_journal_locked_wait_together_and_none_longer_than_it_may(data_dir: Path) -> None:
    """Also when it is not open yet: a program that keeps it for itself lets nobody read it either."""
    async with sqlite(data_dir) as journal:
        await journal.ready()
    async with sqlite(data_dir) as journal:
        with closing(sqlite3.connect(data_dir / "journal.db", isolation_level=None)) as other:
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
            other.execute("BEGIN EXCLUSIVE")
            began = time.monotonic()
            calls = [*(journal.page("local", None, 10, None) for _ in range(10)), claim(journal, new())]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - began < 2 * WRITE_SECONDS
            assert {str(answer) for answer in answers} == {
                "the journal cannot be used: another program has kept it locked for too long"
            }
            other.execute("ROLLBACK")
        assert await journal.page("local", None, 10, None) == Page((), None)


async def test_a_claim_looks_up_its_answer_by_index(data_dir: Path) -> None:
    async with sqlite(data_dir) as journal:
        statement = ANSWERING.format(now=journal._dialect.now)
        plan = await journal._write(
            lambda db: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", ("a", "k", "a", "k", 600.0))]
        )
    steps = [step for step in plan if step.startswith(("SEARCH", "SCAN"))]
    assert steps == [
        "SEARCH tasks USING INDEX tasks_open (account=? AND request_key=?)",
        "SEARCH tasks USING INDEX tasks_settled (account=? AND request_key=? AND <expr>>?)",
    ]


async def test_no_change_is_lost_between_two_statements_of_a_look_for_changes(data_dir: Path) -> None:
    """Another process writes in the middle of `changes()`: before every statement of it, in turn."""
    async with sqlite(data_dir) as ours, sqlite(data_dir) as theirs:
        assert await ours.changes() == []
        written = []

        def intrude(_statement: str) -> None:
            task = new()
            storage(theirs)._transact(
                lambda db: theirs._insert(db, task, task.submission_id, None), time.monotonic() + 5
            )
            written.append(task)

        intrude("the first, so that there is something to look for")
        reader = storage(ours)._connections[storage(ours)._reads]
        reader.set_trace_callback(intrude)
        seen = await ours.changes()
        reader.set_trace_callback(None)
        assert len(written) > 1
        seen += await ours.changes()
        assert [task.submission_id for task in seen] == [task.submission_id for task in written]


# ----------------------------------------------------------------------------- SQLite: several processes

HOLD = """
import asyncio, sys
from pathlib import Path
from mj_mcp.journal import Limits
from mj_mcp.journal.sql import SqlJournal
from mj_mcp.journal.sqlite import Sqlite
from mj_mcp.tasks import Status, Task, accept

async def main():
    now = float(sys.argv[2])
    journal = SqlJournal(Sqlite(Path(sys.argv[1])), "account", lambda: now)
    for name in ("sub_open", "sub_queued"):
        task = Task(submission_id=name, status=Status.SUBMITTING, updated_at=now, submitted_at=now)
        await journal.claim(task, name, allow_duplicate=False, limits=Limits(10))
    await journal.update("sub_queued", lambda task: accept(task, "77", now))
    print("held", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""

JOIN = """
import asyncio, os, sys
from pathlib import Path
from mj_mcp.journal import Limits
from mj_mcp.journal.sql import SqlJournal
from mj_mcp.journal.sqlite import Sqlite
from mj_mcp.tasks import Status, Task

async def main():
    print("there", flush=True)
    sys.stdin.readline()
    journal = SqlJournal(Sqlite(Path(sys.argv[1])), "account")
    task = Task(submission_id=f"sub_{os.getpid()}", status=Status.SUBMITTING, updated_at=1.0, submitted_at=1.0)
    claim = await journal.claim(task, task.submission_id, allow_duplicate=False, limits=Limits(10))
    assert claim.is_new
    await journal.aclose()

asyncio.run(main())
"""


def process(script: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def line(of: subprocess.Popen[str]) -> str:
    assert of.stdout is not None
    return of.stdout.readline().strip()


async def test_a_killed_process_loses_its_tasks_at_once_and_its_submit_is_in_doubt(data_dir: Path) -> None:
    with process(HOLD, str(data_dir), str(NOON)) as holder:
        try:
            assert await asyncio.to_thread(line, holder) == "held"
            async with sqlite(data_dir) as journal:
                # While it lives, both are its own.
                assert await journal.tend(NOON) == []
                under_way = await journal.find("sub_open", "local")
                assert under_way is not None
                assert under_way.status is Status.SUBMITTING

                holder.send_signal(signal.SIGKILL)
                await asyncio.to_thread(holder.wait, 10)
                told = {task.submission_id: task.status for task in await journal.tend(NOON)}
                assert told == {"sub_queued": Status.QUEUED, "sub_open": Status.UNCONFIRMED}
                doubtful = await journal.find("sub_open", "local")
                assert doubtful is not None
                assert doubtful.status is Status.UNCONFIRMED
                # Nothing is left of the dead but its tasks.
                assert [lock.name for lock in inside(data_dir / "processes")] == [storage(journal).holder]
        finally:
            holder.kill()


async def test_eight_processes_open_a_new_journal_at_once(data_dir: Path) -> None:
    crowd = [process(JOIN, str(data_dir)) for _ in range(8)]
    try:
        for one in crowd:
            assert await asyncio.to_thread(line, one) == "there"
        for one in crowd:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        assert [await asyncio.to_thread(one.wait, 30) for one in crowd] == [0] * 8
    finally:
        for one in crowd:
            one.kill()
            one.communicate()
    async with sqlite(data_dir) as journal:
        assert len((await journal.page("local", None, 20, None)).tasks) == 8
