"""Maintenance of the journal: a backup, and a check of every row.

Owns which journals are valid. Opens connections of its own: the file is read as it is, and a running server is not
disturbed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from mj_mcp.errors import StorageUnavailable
from mj_mcp.files import new_file
from mj_mcp.journal.engine import Db
from mj_mcp.journal.rows import load
from mj_mcp.journal.schema import any_of
from mj_mcp.journal.sqlite_files import translated
from mj_mcp.tasks import OPEN, POLLED, Status

LOCKED_SECONDS = 5.0
CHECK_PAGE = 1000

FAULTS_SHOWN = 100
"""More faults than this are not listed."""

COLUMNS = ("number", "submission_id", "task_id", "owner", "kind", "status", "submitted_at", "finished_at", "claim")
HELD = POLLED | {Status.SUBMITTING}


def sqlite_file(data_dir: Path) -> Path:
    """The journal's file in this folder.

    Raises:
        StorageUnavailable: there is none.
    """
    path = data_dir / "journal.db"
    if not path.exists():
        raise StorageUnavailable(f"there is no journal at {path}")
    return path


# ------------------------------------------------------------------------------------------------- backup


def back_up(data_dir: Path, target: Path) -> int:
    """A consistent copy of the SQLite journal in a new file `target` (mode 0600), while servers keep writing.

    Returns:
        How many rows of tasks it holds.

    Raises:
        StorageUnavailable: `target` exists, or one of the two cannot be used.
    """
    source = sqlite_file(data_dir)
    with translated():
        try:
            with new_file(target) as draft, closing(_reading(source)) as db, closing(sqlite3.connect(draft)) as copy:
                db.backup(copy)
                # One file, with no second file beside it that could be forgotten.
                copy.execute("PRAGMA journal_mode = DELETE")
                (rows,) = copy.execute("SELECT count(*) FROM tasks").fetchone()
        except FileExistsError:
            raise StorageUnavailable(f"{target} exists already; nothing is overwritten") from None
        return int(rows)


def _reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=LOCKED_SECONDS)


# ------------------------------------------------------------------------------------------------- check


def check_file(data_dir: Path) -> tuple[int, list[str]]:
    """The number of rows in the SQLite journal, and its faults, one line each. Changes nothing."""
    with translated(), closing(_reading(sqlite_file(data_dir))) as db:
        try:
            said = [line for (line,) in db.execute("PRAGMA integrity_check")]
            faults = [] if said == ["ok"] else [f"the file is broken: {line}" for line in said]
            rows, wrong = check_rows(db)
        except sqlite3.DatabaseError as failure:
            return 0, [f"the file is broken: {failure}"]
        return rows, faults + wrong


def check_database(url: str) -> tuple[int, list[str]]:
    """The same for a journal in PostgreSQL, whose server checks its own files."""
    from mj_mcp.journal.database import Session, connected  # noqa: PLC0415 - the driver is an extra

    with connected(url) as db, db.transaction():
        db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")  # servers may keep writing
        return check_rows(Session(db))


def check_rows(db: Db) -> tuple[int, list[str]]:
    """The number of rows, and which of them contradict themselves or each other."""
    faults = [
        f"{count} open rows hold the same claim ({claim})"
        for claim, count in db.execute(
            f"SELECT claim, count(*) FROM tasks WHERE claim IS NOT NULL AND status IN {any_of(OPEN)}"
            " GROUP BY account, claim HAVING count(*) > 1"
        )
    ]
    rows, last = 0, 0
    while page := db.execute(
        f"SELECT {', '.join(COLUMNS)}, holder, body FROM tasks WHERE number > ? ORDER BY number LIMIT {CHECK_PAGE}",
        (last,),
    ).fetchall():
        for row in page:
            faults += _contradictions(dict(zip((*COLUMNS, "holder", "body"), row, strict=True)))
        rows, last = rows + len(page), page[-1][0]
    return rows, faults[:FAULTS_SHOWN]


def _contradictions(row: dict[str, Any]) -> Iterator[str]:
    where = f"row {row['number']} ({row['submission_id']})"
    try:
        task = load((row["body"],))
    except StorageUnavailable:
        yield f"{where}: its body cannot be read"
        return
    for column in ("submission_id", "task_id", "owner", "kind", "status", "submitted_at", "finished_at"):
        if row[column] != getattr(task, column):
            yield f"{where}: the column {column} says {row[column]!r}, the body {getattr(task, column)!r}"
    if row["claim"] is not None and task.status not in OPEN:
        yield f"{where}: it is {task.status} and still holds a claim"
    if row["holder"] is not None and task.status not in HELD:
        yield f"{where}: it is {task.status} and is still held by a process"
