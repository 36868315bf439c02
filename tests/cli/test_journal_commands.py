"""`mj-mcp journal`: a person copies it to PostgreSQL, backs it up, checks it."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from conftest import Caller, environment
from databases import Database
from journals import OLD_JOURNAL
from lives import PATIENCE, live, rows

from mj_mcp.simulator import Simulator, faults

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

Connect = Callable[..., AbstractAsyncContextManager[Caller]]

PASSWORD = "canary-pass-77c1"


async def journal(sim: Simulator, home: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """`mj-mcp journal ...` to its end."""
    command = [sys.executable, "-m", "mj_mcp", "journal", *arguments]
    with anyio.fail_after(2 * PATIENCE):
        done = await anyio.run_process(command, env=environment(sim.url, home, **extra), check=False)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


async def refused(sim: Simulator, home: Path, *arguments: str, **extra: str) -> str:
    """A command that does nothing; its one line of words."""
    before = rows(home)
    done = await journal(sim, home, *arguments, **extra)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("mj-mcp: ")
    assert rows(home) == before
    return line


async def some_tasks(connect: Connect, sim: Simulator, **extra: str) -> dict[str, Any]:
    """A journal with a task that succeeded, one that is in doubt, one that was refused and an open one; the last."""
    async with connect(sim, **extra) as caller:
        done = await caller.task("generate_image", prompt="a cup", wait_seconds=0)
        sim.finish(done["task_id"])
        await caller.task("get_task", task_id=done["task_id"], wait_seconds=30, include_image=False)
        sim.inject("submit", faults.reset_after_accept())
        await caller.error("generate_image", prompt="a mug \u63d0", wait_seconds=0)
        sim.inject("submit", faults.code(24))
        await caller.error("generate_image", prompt="a bad word", wait_seconds=0)
        return await caller.task("generate_image", prompt="a jug", wait_seconds=0)


def change(home: Path, sql: str) -> None:
    """Break the journal past the program under test."""
    with contextlib.closing(sqlite3.connect(home / "data" / "journal.db")) as db, db:
        db.execute(sql)


def with_password(url: str) -> str:
    return url.replace("postgres:@", f"postgres:{PASSWORD}@")


# --- copy


async def test_a_copy_holds_everything_and_serves_from_there(
    connect: Connect, sim: Simulator, tmp_path: Path, database_url: str
) -> None:
    open_task = await some_tasks(connect, sim)
    done = await journal(sim, tmp_path, "copy", "--to", with_password(database_url))
    assert (done.returncode, done.stderr) == (0, "")
    assert "tasks: 4 rows copied and compared\n" in done.stdout
    assert PASSWORD not in done.stdout
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "data" / "journal.db")) as db,
        psycopg.connect(database_url) as to,
    ):
        everything = "SELECT * FROM tasks ORDER BY number"
        assert to.execute(everything).fetchall() == db.execute(everything).fetchall()
    posts = len(sim.submits())
    async with connect(sim, MJ_DATABASE_URL=database_url) as caller:
        # The open task is found again, watched, and still the only one of its kind.
        again = await caller.task("generate_image", prompt="a jug", wait_seconds=0)
        assert (again["task_id"], again["duplicate_of_open_task"]) == (open_task["task_id"], True)
        assert len(sim.submits()) == posts
        sim.finish(open_task["task_id"])
        over = await caller.task("get_task", task_id=open_task["task_id"], wait_seconds=30, include_image=False)
        assert over["status"] == "succeeded"
        # New rows are numbered after those that were copied.
        await caller.task("generate_image", prompt="a vase", wait_seconds=0)
        listed = (await caller.call("list_tasks")).structured_content
        assert listed is not None
        assert [task["prompt"] for task in listed["tasks"]] == ["a vase", "a jug", "a mug \u63d0", "a cup"]
    check = await journal(sim, tmp_path, "check", MJ_DATABASE_URL=database_url)
    assert (check.returncode, check.stdout) == (0, "5 rows, no faults\n")


async def test_a_copy_into_a_journal_that_knows_the_account_is_refused(
    connect: Connect, sim: Simulator, tmp_path: Path, database_url: str
) -> None:
    await some_tasks(connect, sim)
    assert (await journal(sim, tmp_path, "copy", "--to", database_url)).returncode == 0
    line = await refused(sim, tmp_path, "copy", "--to", database_url)
    assert "already holds 4 rows of this account" in line


async def test_a_journal_in_use_is_not_copied(sim: Simulator, tmp_path: Path, database_url: str) -> None:
    async with live(sim, tmp_path) as server:
        await server.call("generate_image", prompt="a cup", wait_seconds=0)
        done = await journal(sim, tmp_path, "copy", "--to", database_url)
        assert (done.returncode, done.stdout) == (1, "")
        assert "1 running server(s) use" in done.stderr
        assert "stop them first" in done.stderr
        server.kill()
    # One that was killed runs no more.
    assert (await journal(sim, tmp_path, "copy", "--to", database_url)).returncode == 0


async def test_a_copy_that_arrives_differently_is_undone(
    connect: Connect, sim: Simulator, tmp_path: Path, database_url: str
) -> None:
    await some_tasks(connect, sim)
    async with connect(sim, MJ_DATABASE_URL=database_url) as caller:
        await caller.call("list_tasks")  # makes the tables
    with psycopg.connect(database_url) as db:
        db.execute(
            "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN NEW.body = replace(NEW.body, 'cup', 'cap'); RETURN NEW; END $$"
        )
        db.execute("CREATE TRIGGER spoil BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION spoil()")
    line = await refused(sim, tmp_path, "copy", "--to", database_url)
    assert "differs from the original; nothing was copied" in line
    with psycopg.connect(database_url) as db:
        assert db.execute("SELECT count(*) FROM tasks").fetchone() == (0,)


async def test_a_target_that_cannot_be_reached_is_named_without_its_password(
    connect: Connect, sim: Simulator, tmp_path: Path
) -> None:
    await some_tasks(connect, sim)
    url = f"postgresql://me:{PASSWORD}@/db?host={tmp_path}"
    line = await refused(sim, tmp_path, "copy", "--to", url)
    assert "the journal cannot be used: connection" in line
    assert PASSWORD not in line
    done = await journal(sim, tmp_path, "copy", "--to", str(tmp_path / "copy.db"))
    assert done.returncode == 2
    assert "--to must begin with postgresql://" in done.stderr


async def test_there_is_nothing_to_copy_where_no_journal_is(sim: Simulator, tmp_path: Path, database_url: str) -> None:
    for command in (["copy", "--to", database_url], ["backup", str(tmp_path / "b.db")], ["check"]):
        assert "there is no journal at" in await refused(sim, tmp_path, *command)
    assert not (tmp_path / "data").exists()


async def test_a_journal_of_an_older_version_is_checked_backed_up_and_copied(
    sim: Simulator, tmp_path: Path, database_url: str
) -> None:
    (tmp_path / "data").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "journal.db")) as db:
        db.executescript(OLD_JOURNAL)
    for command, said in (
        (["check"], "12 rows, no faults\n"),
        (["backup", str(tmp_path / "b.db")], f"{tmp_path / 'b.db'}: 12 rows\n"),
    ):
        done = await journal(sim, tmp_path, *command)
        assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    done = await journal(sim, tmp_path, "copy", "--to", database_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tasks: 12 rows copied and compared\nwaiting: 1 rows copied and compared\n" in done.stdout
    done = await journal(sim, tmp_path, "check", MJ_DATABASE_URL=database_url)
    assert (done.returncode, done.stdout) == (0, "12 rows, no faults\n")


# --- backup


async def test_a_backup_is_whole_while_the_server_goes_on_buying(sim: Simulator, tmp_path: Path) -> None:
    home, kept = tmp_path / "home", tmp_path / "kept"
    home.mkdir()
    (kept / "data").mkdir(parents=True)
    async with live(sim, home, MJ_MAX_OPEN_TASKS="1000") as server, anyio.create_task_group() as group:

        async def buy() -> None:
            for number in range(1000):
                await server.call("generate_image", prompt=f"cup {number}", wait_seconds=0)

        group.start_soon(buy)
        await sim.until(lambda: len(sim.submits()) >= 3, PATIENCE)
        before = len(rows(home))
        done = await journal(sim, home, "backup", str(kept / "data" / "journal.db"))
        assert (done.returncode, done.stderr) == (0, "")
        bought = len(rows(home))
        group.cancel_scope.cancel()
    assert sorted(path.name for path in (kept / "data").iterdir()) == ["journal.db"]
    assert oct((kept / "data" / "journal.db").stat().st_mode & 0o777) == "0o600"
    saved = rows(kept)
    assert before <= len(saved) <= bought
    assert done.stdout.endswith(f"{len(saved)} rows\n")
    check = await journal(sim, kept, "check")
    assert (check.returncode, check.stdout) == (0, f"{len(saved)} rows, no faults\n")


async def test_a_backup_overwrites_nothing(connect: Connect, sim: Simulator, tmp_path: Path) -> None:
    await some_tasks(connect, sim)
    target = tmp_path / "mine"
    target.write_text("something of mine")
    assert "exists already" in await refused(sim, tmp_path, "backup", str(target))
    assert target.read_text() == "something of mine"
    assert "cannot be opened" in await refused(sim, tmp_path, "backup", str(tmp_path / "nowhere" / "b.db"))


async def test_a_journal_in_postgresql_is_backed_up_by_its_own_tools(
    sim: Simulator, tmp_path: Path, database_url: str
) -> None:
    line = await refused(sim, tmp_path, "backup", str(tmp_path / "b.db"), MJ_DATABASE_URL=database_url)
    assert "pg_dump" in line
    assert not (tmp_path / "b.db").exists()


# --- check

WRONG = {
    "a body that cannot be read": ("UPDATE tasks SET body = '{' WHERE number = 1", "row 1 (sub_", "cannot be read"),
    "a column that disagrees": ("UPDATE tasks SET task_id = 'x' WHERE number = 1", "row 1 (sub_", "task_id says 'x'"),
    "a claim that was not freed": ("UPDATE tasks SET claim = 'x' WHERE number = 1", "row 1 (sub_", "holds a claim"),
    "a holder of what is settled": ("UPDATE tasks SET holder = 'x' WHERE number = 1", "row 1 (sub_", "still held"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_check_finds(name: str, connect: Connect, sim: Simulator, tmp_path: Path) -> None:
    await some_tasks(connect, sim)
    assert (await journal(sim, tmp_path, "check")).stdout == "4 rows, no faults\n"
    sql, *words = WRONG[name]
    change(tmp_path, sql)
    done = await journal(sim, tmp_path, "check")
    assert (done.returncode, done.stderr) == (1, "")
    fault, summary = done.stdout.splitlines()
    assert fault.startswith("FAIL  ")
    assert all(word in fault for word in words), fault
    assert summary == "4 rows, 1 faults"


async def test_a_check_finds_a_claim_that_two_rows_hold(connect: Connect, sim: Simulator, tmp_path: Path) -> None:
    await some_tasks(connect, sim)
    change(tmp_path, "DROP INDEX tasks_claim")
    change(tmp_path, "UPDATE tasks SET claim = 'x' WHERE claim IS NOT NULL")
    done = await journal(sim, tmp_path, "check")
    assert done.returncode == 1
    assert "2 open rows hold the same claim (x)" in done.stdout


async def test_a_check_finds_a_broken_file_and_leaves_it_where_it_is(
    connect: Connect, sim: Simulator, tmp_path: Path
) -> None:
    await some_tasks(connect, sim)
    path = tmp_path / "data" / "journal.db"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    done = await journal(sim, tmp_path, "check")
    assert done.returncode == 1
    assert "the file is broken" in done.stdout
    assert path.exists()


async def test_a_check_reads_a_journal_in_postgresql_too(
    connect: Connect, sim: Simulator, tmp_path: Path, database: Database, database_url: str
) -> None:
    await some_tasks(connect, sim, MJ_DATABASE_URL=database_url)
    done = await journal(sim, tmp_path, "check", MJ_DATABASE_URL=database_url)
    assert (done.returncode, done.stdout) == (0, "4 rows, no faults\n")
    with psycopg.connect(database_url) as db:
        db.execute("UPDATE tasks SET status = 'failed' WHERE number = 1")
    done = await journal(sim, tmp_path, "check", MJ_DATABASE_URL=database_url)
    assert done.returncode == 1
    assert "status says 'failed', the body" in done.stdout
