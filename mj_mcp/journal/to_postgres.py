"""Moves an SQLite journal into PostgreSQL, completely or not at all.

Owns the conditions before and after. Knows no columns: it moves every table that the journal has.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from mj_mcp.errors import StorageUnavailable
from mj_mcp.journal.admin import LOCKED_SECONDS, sqlite_file
from mj_mcp.journal.database import connected
from mj_mcp.journal.schema import MIGRATIONS
from mj_mcp.journal.sqlite_files import ProcessLock, open_file, translated


def move_to_postgres(data_dir: Path, url: str) -> dict[str, int]:
    """Copy every row of the SQLite journal into the PostgreSQL at `url`, and compare before committing.

    The file is not changed.

    Returns:
        How many rows each table had.

    Raises:
        StorageUnavailable: a server is running on the file, the target has rows of these accounts, or one of the two
            cannot be used. Nothing was copied.
    """
    path = sqlite_file(data_dir)
    with connected(url) as target, _standing_still(data_dir, path) as source, target.transaction():
        _refuse_known_accounts(source, target)
        return {table: _move(table, source, target) for table in _tables(source)}


@contextmanager
def _standing_still(data_dir: Path, path: Path) -> Iterator[sqlite3.Connection]:
    """The file, migrated, and locked against writers until the block ends."""
    with translated(), closing(open_file(path, time.monotonic() + LOCKED_SECONDS, MIGRATIONS)) as db:
        db.execute("BEGIN IMMEDIATE")
        lock = ProcessLock(data_dir / "processes")
        running = [file.name for file in (data_dir / "processes").glob("*") if not lock.is_dead(file.name)]
        if running:
            raise StorageUnavailable(f"{len(running)} running server(s) use {path}: stop them first")
        yield db


def _refuse_known_accounts(source: sqlite3.Connection, target: psycopg.Connection) -> None:
    for (account,) in source.execute("SELECT DISTINCT account FROM tasks").fetchall():
        found = target.execute("SELECT count(*) FROM tasks WHERE account = %s", (account,)).fetchone()
        if found != (0,):
            raise StorageUnavailable(
                f"the target already holds {(found or (0,))[0]} rows of this account, and rows are never mixed;"
                " nothing was copied"
            )


def _tables(db: sqlite3.Connection) -> list[str]:
    names = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name")
    return [name for (name,) in names if name != "migrations"]


def _move(table: str, source: sqlite3.Connection, target: psycopg.Connection) -> int:
    columns = [row[1] for row in source.execute(f"PRAGMA table_info({table})")]
    wanted = f"SELECT {', '.join(columns)} FROM {table}"
    with target.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN".encode()) as copy:
        for row in source.execute(wanted):
            copy.write_row(row)
    sent = _digest(source.execute(wanted))
    with target.cursor(name="moved") as rows:  # in batches: all rows might not fit into memory
        rows.execute(wanted.encode())
        if _digest(rows) != sent:
            raise StorageUnavailable(f"the copy of {table} differs from the original; nothing was copied")
    if "number" in columns:
        target.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'number'), max(number)) FROM {table}".encode())
    return sent[0]


def _digest(rows: Iterable[tuple[Any, ...]]) -> tuple[int, int]:
    """The number of rows, and a checksum that does not depend on their order."""
    number, total = 0, 0
    for row in rows:
        number += 1
        total += int.from_bytes(hashlib.sha256(repr(row).encode("utf-8", "surrogatepass")).digest())
    return number, total % 2**256
