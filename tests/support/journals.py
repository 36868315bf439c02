"""A journal in each engine, on a clock that a test moves, and tasks in every state to put in.

A plugin of pytest: its fixtures are there for every test.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from mj_mcp.journal import Claim, Journal, Limits, QueueSlot
from mj_mcp.journal.engine import Db, Engine
from mj_mcp.journal.postgres import Postgres
from mj_mcp.journal.rows import NEVER
from mj_mcp.journal.schema import in_postgres
from mj_mcp.journal.sql import SqlJournal
from mj_mcp.journal.sqlite import Sqlite
from mj_mcp.tasks import Failure, Image, Kind, Observation, Status, Task, accept, mark_unconfirmed, move, refuse
from mj_mcp.tasks.merging import merge

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
    address: str

    def new_engine(self) -> Engine:
        """Another process's engine on it."""
        return Sqlite(Path(self.address) / "data") if self.engine == "sqlite" else Postgres(self.address)

    def load(self, dump: str) -> None:
        """Make the journal of an SQLite dump, as an older version would have left it here."""
        if self.engine == "sqlite":
            (Path(self.address) / "data").mkdir()
            with closing(sqlite3.connect(Path(self.address) / "data" / "journal.db")) as file:
                file.executescript(dump)
            return
        with psycopg.connect(self.address) as db:
            for statement in in_postgres(dump).split(";\n")[1:-2]:  # without its BEGIN and COMMIT
                db.execute(statement.encode())
            for table in ("tasks", "waiting"):
                db.execute(f"SELECT setval('{table}_number_seq', max(number)) FROM {table}".encode())

    def tables(self) -> set[str]:
        """The names of its tables."""
        if self.engine == "sqlite":
            with closing(sqlite3.connect(Path(self.address) / "data" / "journal.db")) as file:
                return {name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        with psycopg.connect(self.address) as db:
            return {name for (name,) in db.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema")}


Open = Callable[..., SqlJournal]
"""Another process's journal in the same storage, in this process. `account` is the only argument."""


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


OLD_JOURNAL = (Path(__file__).parent / "old_journal.sql").read_text()
"""Written by the version before migration 0005, with a row of every status and warnings that are sentences."""


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def storage(journal: SqlJournal) -> Sqlite:
    """The engine behind a journal, for what nothing else shows."""
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
