"""What is PostgreSQL's alone: replicas that begin at once, hear of each other, and outlive the database's restarts.

The contract that every engine keeps is in the other files of this folder, but for `test_sqlite.py`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from conftest import LOAD_SECONDS, error_of
from databases import PATIENCE, Database
from journals import MANY, NOON, bought, done, new
from lives import live

from mj_mcp.errors import StorageUnavailable
from mj_mcp.journal import UNREAD, Claim
from mj_mcp.journal.claims import ANSWERING
from mj_mcp.journal.database import MIGRATING
from mj_mcp.journal.postgres import Postgres
from mj_mcp.journal.protocol import LEASE_SECONDS, REPEAT_SECONDS
from mj_mcp.journal.schema import MIGRATIONS
from mj_mcp.journal.sql import SqlJournal
from mj_mcp.server.render.warnings import worded
from mj_mcp.simulator import Simulator
from mj_mcp.tasks import Status, Task, warn

pytestmark = pytest.mark.anyio


def one_more(known: Task) -> Task:
    return replace(known, progress=(known.progress or 0) + 1)


@asynccontextmanager
async def journals(url: str, number: int = 1) -> AsyncIterator[list[SqlJournal]]:
    """So many replicas' journals in one database."""
    async with AsyncExitStack() as stack:
        opened = [SqlJournal(Postgres(url), "account", lambda: NOON) for _ in range(number)]
        for journal in opened:
            stack.push_async_callback(journal.aclose)
        yield opened


@asynccontextmanager
async def listening(journal: SqlJournal) -> AsyncIterator[asyncio.Event]:
    """Set whenever the journal hears of a change; it listens already."""
    heard = asyncio.Event()
    ears = asyncio.create_task(journal.listen(heard.set))
    try:
        await soon(heard)  # of whatever was missed before it listened
        yield heard
    finally:
        ears.cancel()
        await asyncio.gather(ears, return_exceptions=True)


async def soon(heard: asyncio.Event, seconds: float = PATIENCE) -> None:
    async with asyncio.timeout(seconds):
        await heard.wait()
    heard.clear()


# --- several processes at once

CLAIM = """
import asyncio, os, sys
from mj_mcp.journal import Limits
from mj_mcp.journal.postgres import Postgres
from mj_mcp.journal.sql import SqlJournal
from mj_mcp.simulator import Simulator
from mj_mcp.tasks import Status, Task

async def main():
    print("there", flush=True)
    sys.stdin.readline()
    journal = SqlJournal(Postgres(sys.argv[1]), "account")
    for attempt in range(5):
        task = Task(submission_id=f"sub_{os.getpid()}_{attempt}", status=Status.SUBMITTING, updated_at=1.0)
        claim = await journal.claim(task, f"key {attempt}", allow_duplicate=False, limits=Limits(10))
        print(attempt, claim.is_new, claim.task.submission_id, flush=True)
    sys.stdin.readline()
    await journal.aclose()

asyncio.run(main())
"""


def claimer(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


async def test_eight_processes_make_the_tables_at_once_and_one_of_them_wins_each_claim(database_url: str) -> None:
    crowd = [claimer(database_url) for _ in range(8)]
    pipes = [(one.stdin, one.stdout) for one in crowd if one.stdin and one.stdout]
    try:
        for _, said in pipes:
            assert await asyncio.to_thread(said.readline) == "there\n"
        for ask, _ in pipes:
            ask.write("\n")
            ask.flush()
        claims = [(await asyncio.to_thread(said.readline)).split() for _, said in pipes for _ in range(5)]
        for ask, _ in pipes:
            ask.write("\n")
            ask.flush()
        assert [await asyncio.to_thread(one.wait, PATIENCE) for one in crowd] == [0] * 8
    finally:
        for one in crowd:
            one.kill()
            one.communicate()
    for attempt in range(5):
        results = [(is_new, sid) for number, is_new, sid in claims if number == str(attempt)]
        assert len(results) == 8
        assert [is_new for is_new, _ in results].count("True") == 1
        assert len({sid for _, sid in results}) == 1


async def test_while_one_replica_makes_the_tables_the_others_wait_for_it(database: Database, database_url: str) -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with journals(database_url) as [journal]:
        with psycopg.connect(database_url) as first:
            first.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATING,))
            buying = asyncio.create_task(bought(journal, new()))
            async with asyncio.timeout(PATIENCE):
                while database.execute(waiting) != [(1,)]:  # noqa: ASYNC110 - another process makes it true
                    await asyncio.sleep(0.01)
            assert first.execute("SELECT to_regclass('migrations')").fetchone() == (None,)
        assert (await buying).is_polled


async def test_a_journal_of_a_newer_version_is_refused_and_left_alone(database_url: str) -> None:
    async with journals(database_url) as [journal]:
        await bought(journal, new())
    with psycopg.connect(database_url) as db:
        db.execute("INSERT INTO migrations (name) VALUES ('0099_from_the_future')")
    async with journals(database_url) as [journal]:
        with pytest.raises(StorageUnavailable, match=r"newer version of mj-mcp .*0099_from_the_future.*upgrade"):
            await bought(journal, new())
    with psycopg.connect(database_url) as db:
        assert db.execute("SELECT count(*) FROM tasks").fetchone() == (1,)


async def test_a_migration_that_breaks_leaves_the_journal_as_it_was(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with journals(database_url) as [journal]:
        task = await bought(journal, new())
    broken = [*MIGRATIONS, ("0099_broken", "ALTER TABLE tasks ADD more TEXT; NONSENSE")]
    with monkeypatch.context() as patch:
        patch.setattr("mj_mcp.journal.database.MIGRATIONS", broken)
        async with journals(database_url) as [journal]:
            with pytest.raises(StorageUnavailable, match="NONSENSE"):
                await journal.ready()
    async with journals(database_url) as [journal]:
        assert await journal.find(task.submission_id, None) == task
        assert (await bought(journal, new())).is_polled


async def test_a_claim_finds_its_answer_by_index(database_url: str) -> None:
    async with journals(database_url) as [journal]:
        task = await bought(journal, new())
    with psycopg.connect(database_url) as db:
        columns = "account, owner, status, request_key, settled_at, submitted_at, seq, writer, body"
        db.execute(
            f"INSERT INTO tasks (submission_id, {columns}) SELECT 'sub_' || i || '_' || submission_id, account, owner,"
            " 'succeeded', 'key ' || i % 100, i, submitted_at, seq, writer, body"
            f" FROM tasks, generate_series(1, 5000) AS i WHERE submission_id = '{task.submission_id}'".encode()
        )
        db.execute("ANALYZE tasks")
        statement = "EXPLAIN " + ANSWERING.format(now=Postgres.dialect.now).replace("?", "%s")
        plan = db.execute(statement.encode(), ("account", "key 1", "account", "key 1", REPEAT_SECONDS)).fetchall()
    scans = [line.split(" on ")[0].strip(" ->") for (line,) in plan if "Scan" in line]
    assert scans == ["Index Scan using tasks_open", "Index Scan using tasks_settled"]


# --- hearing of each other


async def test_a_change_is_heard_by_another_replica_at_once(database_url: str) -> None:
    async with journals(database_url, 2) as [ours, theirs]:
        task = await bought(theirs, new())
        assert await ours.changes() == []
        async with listening(ours) as heard:
            finished = await theirs.update(task.submission_id, done)
            await soon(heard, 1.0)
            assert await ours.changes() == [finished]


async def test_what_we_wrote_ourselves_wakes_nobody(database_url: str) -> None:
    async with journals(database_url, 2) as [ours, theirs]:
        task = await bought(theirs, new())
        async with listening(ours) as heard:
            await ours.update(task.submission_id, one_more)
            with pytest.raises(TimeoutError):
                await soon(heard, 0.3)
            await theirs.update(task.submission_id, one_more)
            await soon(heard, 1.0)


async def test_a_lost_notification_loses_no_change(database: Database, database_url: str) -> None:
    async with journals(database_url, 2) as [ours, theirs]:
        task = await bought(theirs, new())
        assert await ours.changes() == []
        async with listening(ours) as heard:
            assert database.terminate("query LIKE '%pg_advisory_lock_shared%'") == 1
            finished = await theirs.update(task.submission_id, done)
            await soon(heard)  # it listens again, and says that it may have missed something
            assert await ours.changes() == [finished]
            other = await bought(theirs, new())
            await soon(heard, 1.0)
            assert await ours.changes() == [other]


async def test_a_change_that_commits_late_is_not_overtaken_by_a_later_one(database_url: str) -> None:
    async with journals(database_url, 3) as [ours, slow, quick]:
        first, second = await bought(slow, new()), await bought(quick, new())
        assert await ours.changes() == []
        inside, go_on = threading.Event(), threading.Event()

        def slowly(known: Task) -> Task:
            inside.set()
            assert go_on.wait(PATIENCE)
            return done(known)

        late = asyncio.create_task(slow.update(first.submission_id, slowly))
        assert await asyncio.to_thread(inside.wait, PATIENCE)
        overtaken_by = await quick.update(second.submission_id, done)
        assert await ours.changes() == [overtaken_by]
        go_on.set()
        overtaken = await late
        assert await ours.changes() == [overtaken]
        assert await ours.changes() == []


async def test_a_journal_restored_into_another_server_tells_nothing_of_the_past(database_url: str) -> None:
    """There the ids of transactions begin anew, below those that the rows carry."""
    async with journals(database_url, 2) as [ours, theirs]:
        old = await bought(theirs, new())
        with psycopg.connect(database_url) as db:
            db.execute("UPDATE tasks SET seq = seq + 1000000000")
        assert await ours.changes() == []
        assert await ours.changes() == []
        finished = await theirs.update(old.submission_id, done)
        assert await ours.changes() == [finished]


async def test_a_change_after_a_crash_is_found_although_its_transaction_got_an_id_that_we_saw_end(
    database: Database, database_url: str
) -> None:
    """A transaction that wrote nothing reaches the disk late, so its id is given again."""
    async with journals(database_url, 2) as [ours, theirs]:
        task = await bought(theirs, new())
        await ours.changes()
        for _ in range(3):
            for _ in range(3):
                await theirs.ready()
            assert await ours.changes() == []
            database.crash()
            finished = await theirs.update(task.submission_id, one_more)
            assert await ours.changes() == [finished]


# --- who is alive


async def looked_after(journal: SqlJournal, task: Task, seconds: float) -> bool:
    """Whether `journal` comes to hold the task within so many seconds, sweeping as a server does."""
    deadline = time.monotonic() + seconds
    while task.submission_id not in {held.submission_id for held in await journal.tend(NOON)}:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


async def test_a_replica_that_is_gone_loses_its_tasks_long_before_their_lease_ends(database_url: str) -> None:
    async with journals(database_url, 2) as [ours, theirs]:
        async with listening(theirs):
            task = await bought(theirs, new())
            with psycopg.connect(database_url) as db:
                db.execute("UPDATE tasks SET lease_until = lease_until + %s", (LEASE_SECONDS - 1,))
            assert not await looked_after(ours, task, 2.5)
        # Its session has ended, as it does when a process is killed; its lease has not.
        assert not await looked_after(ours, task, 0), "it may only be reconnecting"
        assert await looked_after(ours, task, 4.0 + LOAD_SECONDS)


async def test_a_replica_whose_session_was_cut_keeps_its_tasks(database: Database, database_url: str) -> None:
    async with journals(database_url, 2) as [ours, theirs], listening(theirs) as heard:
        task = await bought(theirs, new())
        assert not await looked_after(ours, task, 0.3)
        assert database.terminate("query LIKE '%pg_advisory_lock_shared%'") == 1
        await soon(heard)
        assert not await looked_after(ours, task, 2.5)


async def test_what_a_dead_replica_left_is_shared_out_and_nobody_gets_what_another_got(database_url: str) -> None:
    async with journals(database_url, 4) as [theirs, *ours]:
        left = [(await bought(theirs, new())).submission_id for _ in range(40)]
        await asyncio.gather(*(journal.ready() for journal in ours))
        with psycopg.connect(database_url) as db:
            db.execute("UPDATE tasks SET lease_until = lease_until - %s", (2 * LEASE_SECONDS,))
        taken = await asyncio.gather(*(journal.tend(NOON) for journal in ours))
        assert sorted(task.submission_id for tasks in taken for task in tasks) == sorted(left)


# --- the database goes away


async def counting(journal: SqlJournal, task: Task, stop: asyncio.Event) -> int:
    """Count up in the row until stopped; how often that was said to have worked."""
    counted = 0
    while not stop.is_set():
        try:
            await journal.update(task.submission_id, one_more)
        except StorageUnavailable:
            await asyncio.sleep(0.05)
        else:
            counted += 1
    return counted


def interrupt(database: Database, how: str) -> None:
    if how == "restart":
        database.restart()
    elif how == "crash":
        database.crash()
    else:
        for _ in range(20):
            database.terminate("application_name = 'mj-mcp'")


@pytest.mark.parametrize("how", ["restart", "crash", "terminate"])
async def test_everything_goes_on_after_the_database_was_restarted(
    database: Database, database_url: str, how: str
) -> None:
    """Every update that was said to have worked is there once, and none that was said to have failed."""
    async with journals(database_url, 2) as replicas:
        tasks = [await bought(journal, new()) for journal in replicas]
        stop = asyncio.Event()
        work = [asyncio.create_task(counting(*pair, stop)) for pair in zip(replicas, tasks, strict=True)]
        await asyncio.to_thread(interrupt, database, how)
        # Each counts again, by itself.
        for journal, task in zip(replicas, tasks, strict=True):
            before = await progress(journal, task)
            deadline = time.monotonic() + PATIENCE
            while await progress(journal, task) <= before:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
        stop.set()
        for journal, task, counted in zip(replicas, tasks, await asyncio.gather(*work), strict=True):
            assert await progress(journal, task) == counted


async def test_sessions_that_were_cut_are_made_anew_and_no_caller_notices(
    database: Database, database_url: str
) -> None:
    async with journals(database_url) as [journal]:
        task = await bought(journal, new())
        for attempt in range(1, 4):
            assert database.terminate("application_name = 'mj-mcp'") >= 1
            assert (await journal.update(task.submission_id, one_more)).progress == attempt
        assert database.terminate("application_name = 'mj-mcp'") >= 1
        assert await journal.find(task.submission_id, None) == replace(task, progress=3)


async def progress(journal: SqlJournal, task: Task) -> int:
    while True:
        found = await journal.find(task.submission_id, None)
        assert found is not None
        if not found.warnings:
            return found.progress or 0
        await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_while_the_database_is_away_nothing_is_bought_and_what_is_known_is_shown(
    database: Database, database_url: str
) -> None:
    async with journals(database_url, 2) as [journal, stranger]:
        task = await bought(journal, new())
        await stranger.ready()
        with database.away():
            began = time.monotonic()
            known = await journal.find(task.task_id or "", "local")
            assert known == warn(task, UNREAD)
            with pytest.raises(StorageUnavailable):
                await journal.find(task.submission_id, "another owner")
            with pytest.raises(StorageUnavailable):
                await stranger.find(task.submission_id, "local")
            assert time.monotonic() - began < 2.0 + LOAD_SECONDS
            began = time.monotonic()
            with pytest.raises(StorageUnavailable, match="does not answer"):
                await bought(journal, new())
            assert time.monotonic() - began < 5.0 + LOAD_SECONDS
        assert await journal.find(task.submission_id, "local") == task
        assert (await bought(journal, new())).is_polled
        assert len((await stranger.page(None, None, 10, None)).tasks) == 2


async def test_a_server_that_was_started_before_its_database_finds_it_later(
    database: Database, database_url: str
) -> None:
    async with journals(database_url) as [journal]:
        with database.away(), pytest.raises(StorageUnavailable):
            await journal.ready()
        assert (await bought(journal, new())).is_polled


class Lost:
    """A connection that is lost at its COMMIT, before or after the database has heard of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, heard: bool) -> None:
        self.fired = 0
        self.xact = ""
        self.then: Callable[[], None] = lambda: None
        execute = psycopg.Connection.execute

        def lose(db: psycopg.Connection, query: Any, *args: Any, **more: Any) -> Any:
            if query != "COMMIT" or self.fired:
                return execute(db, query, *args, **more)
            self.fired += 1
            (self.xact,) = execute(db, "SELECT pg_current_xact_id()::text").fetchone() or ("",)
            if heard:
                execute(db, "COMMIT")
            self.then()
            db.close()
            raise psycopg.OperationalError("the connection is lost")

        monkeypatch.setattr(psycopg.Connection, "execute", lose)


@pytest.mark.parametrize("heard", [True, False])
async def test_a_commit_whose_answer_is_lost_happens_once(
    database_url: str, heard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with journals(database_url) as [journal]:
        task = await bought(journal, new())
        lost = Lost(monkeypatch, heard=heard)
        assert (await journal.update(task.submission_id, one_more)).progress == 1
        assert lost.fired == 1
        assert await progress(journal, task) == 1


@pytest.mark.parametrize("given_again", [True, False])
async def test_a_commit_that_a_crash_has_lost_is_made_again_whether_or_not_another_transaction_got_its_id(
    database: Database, database_url: str, given_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    next_id = "pg_current_xact_id()" if given_again else "pg_snapshot_xmax(pg_current_snapshot())"
    next_ids: list[int] = []

    def crash() -> None:
        database.crash()
        ((found,),) = database.execute(f"SELECT {next_id}::text")
        next_ids.append(int(str(found)))

    async with journals(database_url) as [journal]:
        task = await bought(journal, new())
        lost_ids = []
        for attempt in range(1, 6):  # the ids go back unless the lost rows have reached the disk by chance
            with monkeypatch.context() as patch:
                lost = Lost(patch, heard=False)
                lost.then = crash
                assert (await journal.update(task.submission_id, one_more)).progress == attempt
                assert lost.fired == 1
                lost_ids.append(int(lost.xact))
            assert await progress(journal, task) == attempt
    assert any(found <= lost for found, lost in zip(next_ids, lost_ids, strict=True)), "no id was given again"


async def test_what_is_written_outlives_a_crash_though_the_server_is_set_to_write_to_the_disk_later(
    database: Database, database_url: str
) -> None:
    async with journals(f"{database_url}%20-csynchronous_commit%3Doff") as [journal]:
        task = await bought(journal, new())
        database.crash()
        assert await journal.find(task.submission_id, None) == task


async def test_a_claim_that_nobody_can_tell_of_is_given_up_when_the_database_is_back(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with journals(database_url) as [journal]:
        await journal.ready()
        task = new()
        with monkeypatch.context() as patch:
            lost = Lost(patch, heard=True)
            lost.then = lambda: database.control("-m", "fast", "stop")
            try:
                with pytest.raises(StorageUnavailable):
                    await journal.claim(task, "key", allow_duplicate=False, limits=MANY)
            finally:
                database.start()
        assert lost.fired == 1
        # It was written after all; nothing was submitted for it, and it stands in nobody's way.
        left = await journal.find(task.submission_id, None)
        assert left is not None
        assert left == replace(task, claimed_at=left.claimed_at)
        (given_up,) = await journal.tend(NOON + 60)
        assert given_up.status is Status.REFUSED
        assert given_up.failure is not None
        assert given_up.failure.code == "storage_unavailable"
        again = new()
        claimed = await journal.claim(again, "key", allow_duplicate=False, limits=MANY)
        assert isinstance(claimed, Claim)
        assert (claimed.task.submission_id, claimed.is_new) == (again.submission_id, True)


# --- through whole servers


def content(result: Any) -> dict[str, Any]:
    assert isinstance(result.structured_content, dict)
    return result.structured_content


@pytest.mark.parametrize("how", ["restart", "crash"])
async def test_a_caller_of_one_server_hears_what_another_one_saw_although_the_database_was_restarted(
    database: Database, database_url: str, how: str, sim: Simulator, tmp_path: Path
) -> None:
    homes = [tmp_path / "one", tmp_path / "two"]
    for home in homes:
        home.mkdir()
    async with (
        live(sim, homes[0], MJ_DATABASE_URL=database_url) as buyer,
        live(sim, homes[1], MJ_DATABASE_URL=database_url) as waiter,
    ):
        task_id = content(await buyer.call("generate_image", prompt="a mug", wait_seconds=0))["task_id"]
        results: list[dict[str, Any]] = []

        async def wait() -> None:
            results.append(
                content(await waiter.call("get_task", task_id=task_id, wait_seconds=60, include_image=False))
            )

        with anyio.fail_after(2 * PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await anyio.to_thread.run_sync(interrupt, database, how)
                sim.finish(task_id)
        assert results[0]["status"] == "succeeded"
        assert len(sim.submits()) == 1


async def test_while_the_database_is_away_a_server_says_so(
    database: Database, database_url: str, sim: Simulator, tmp_path: Path
) -> None:
    async with live(sim, tmp_path, MJ_DATABASE_URL=database_url) as server:
        task_id = content(await server.call("generate_image", prompt="a mug", wait_seconds=0))["task_id"]
        with database.away():
            refused = await server.call("generate_image", prompt="a cup", wait_seconds=0)
            assert error_of(refused)["code"] == "storage_unavailable"
            known = content(await server.call("get_task", task_id=task_id, include_image=False, wait_seconds=0))
            assert known["task_id"] == task_id
            assert worded(UNREAD) in known["warnings"]
        assert len(sim.submits()) == 1
        with anyio.fail_after(PATIENCE):
            again = content(await server.call("generate_image", prompt="a cup", wait_seconds=0))
        assert again["task_id"] is not None
        assert len(sim.submits()) == 2
