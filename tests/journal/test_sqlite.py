"""What is SQLite's alone: the file, what breaks it, and several processes on it."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from journals import NOON, bought, claim, inside, mode, new, read_only, sqlite, storage, write

from mj_mcp.errors import StorageUnavailable
from mj_mcp.journal import Page
from mj_mcp.journal.claims import ANSWERING
from mj_mcp.journal.engine import WRITE_SECONDS
from mj_mcp.journal.schema import MIGRATIONS
from mj_mcp.tasks import Status

pytestmark = pytest.mark.anyio


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


async def test_a_claim_finds_its_answer_by_index(data_dir: Path) -> None:
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


async def test_no_change_is_lost_between_two_statements_of_one_reading(data_dir: Path) -> None:
    """Another process writes in the middle of `changes()`: before each statement of it."""
    async with sqlite(data_dir) as ours, sqlite(data_dir) as theirs:
        assert await ours.changes() == []
        written = []

        def intrude(_statement: str) -> None:
            task = new()
            storage(theirs)._transact(
                lambda db: theirs._insert(db, task, task.submission_id, None), time.monotonic() + 5
            )
            written.append(task)

        intrude("the first, so that there is something to find")
        reader = storage(ours)._connections[storage(ours)._reads]
        reader.set_trace_callback(intrude)
        seen = await ours.changes()
        reader.set_trace_callback(None)
        assert len(written) > 1
        seen += await ours.changes()
        assert [task.submission_id for task in seen] == [task.submission_id for task in written]


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
                changed = {task.submission_id: task.status for task in await journal.tend(NOON)}
                assert changed == {"sub_queued": Status.QUEUED, "sub_open": Status.UNCONFIRMED}
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
