"""The journal as a person reads it: all accounts or one, by words, kind, status and time, and the jobs of each day.

Owns those queries. Writes nothing, and takes no lease.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from mj_mcp.errors import TaskNotFound
from mj_mcp.journal.engine import Db, Engine
from mj_mcp.journal.rows import load, readable
from mj_mcp.journal.schema import any_of
from mj_mcp.tasks import TASKS, Kind, Status, Task

ROWS_AT_ONCE = 500
MOST_ROWS = 20_000
"""How many rows one search for words reads at most. One that goes further continues with the next page."""

NOT_SPENT = frozenset({Status.REFUSED, Status.ABANDONED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is looked for. Times are in seconds since the epoch; `account` is one of `Reader.accounts`."""

    words: str = ""
    kind: Kind | None = None
    status: Status | None = None
    since: float | None = None
    until: float | None = None
    account: str | None = None

    def has_words(self, task: Task) -> bool:
        """Whether the prompt or an id of the task has every word."""
        text = " ".join(filter(None, (task.prompt, task.task_id, task.submission_id, task.button))).casefold()
        return all(word in text for word in self.words.casefold().split())


class Row(NamedTuple):
    """A task, and the account that it belongs to."""

    account: str
    task: Task


class Reader:
    """Reads the rows of one account, or of all of them."""

    def __init__(self, engine: Engine, account: str | None) -> None:
        """`account`: None reads every account."""
        self._engine = engine
        self._account = account

    async def find(self, handle: str) -> Row:
        """The task with this task id or submission id.

        Raises:
            TaskNotFound, StorageUnavailable.
        """
        where, values = self._whose(None)

        def work(db: Db) -> Row | None:
            row = db.execute(
                f"SELECT body, account FROM tasks WHERE (submission_id = ? OR task_id = ?){where}"
                " ORDER BY number LIMIT 1",
                (handle, handle, *values),
            ).fetchone()
            return None if row is None else Row(row[1], load(row))

        found = await self._engine.read(work)
        if found is None:
            raise TaskNotFound(f"the journal has no task {handle}")
        return found

    async def search(self, search: Search, limit: int, below: int | None = None) -> tuple[list[Row], int | None]:
        """Tasks, newest first, and where the next page begins (`below`); None at the end."""
        found: list[Row] = []
        below, read = below or 2**62, 0
        while not search.words or read < MOST_ROWS:
            rows = await self._rows(search, below)
            for number, account, body in rows:
                below = number
                found += [Row(account, task) for task in readable([body]) if search.has_words(task)]
                if len(found) == limit:
                    return found, below
            if len(rows) < ROWS_AT_ONCE:
                return found, None
            read += len(rows)
        return found, below

    async def _rows(self, search: Search, below: int) -> list[tuple[int, str, str]]:
        where, values = self._whose(search.account)
        where += f" AND status = '{search.status}'" if search.status else f" AND status IN {any_of(TASKS)}"
        time = "coalesce(submitted_at, adopted_at, finished_at)"
        for condition, value in (
            ("kind = ?", search.kind),
            (f"{time} >= ?", search.since),
            (f"{time} < ?", search.until),
        ):
            if value is not None:
                where += f" AND {condition}"
                values.append(value)

        def work(db: Db) -> list[tuple[int, str, str]]:
            return db.execute(
                f"SELECT number, account, body FROM tasks WHERE number < ?{where}"
                f" ORDER BY number DESC LIMIT {ROWS_AT_ONCE}",
                (below, *values),
            ).fetchall()

        return await self._engine.read(work)

    async def per_day(self, since: float, account: str | None = None) -> dict[str, int]:
        """How many jobs were submitted on each UTC day ("2026-11-27") since then; days without any are left out."""
        where, values = self._whose(account)

        def work(db: Db) -> dict[str, int]:
            rows = db.execute(
                f"SELECT submitted_at FROM tasks WHERE submitted_at >= ? AND status NOT IN {any_of(NOT_SPENT)}{where}",
                (since, *values),
            )
            return Counter(datetime.fromtimestamp(at, UTC).date().isoformat() for (at,) in rows)

        return dict(sorted((await self._engine.read(work)).items()))

    async def accounts(self) -> list[str]:
        """The accounts that have rows."""
        where, values = self._whose(None)

        def work(db: Db) -> list[str]:
            rows = db.execute(
                f"SELECT DISTINCT account FROM tasks WHERE number > ?{where} ORDER BY account", (0, *values)
            )
            return [account for (account,) in rows]

        return await self._engine.read(work)

    async def aclose(self) -> None:
        """Close."""
        await self._engine.aclose()

    def _whose(self, chosen: str | None) -> tuple[str, list[str | float]]:
        accounts = [account for account in (self._account, chosen) if account is not None]
        return " AND account = ?" * len(accounts), [*accounts]
