"""Brings a journal's tables up to date on any engine: each migration runs once, and all missing ones or none.

Owns the table `migrations`. Knows no other table: the migrations are in `schema.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from mj_mcp.errors import StorageUnavailable
from mj_mcp.journal.engine import Db

Migrations = list[tuple[str, str]]


def migrate(
    db: Db,
    migrations: Migrations,
    *,
    find_table: str,
    alone: AbstractContextManager[object],
    in_words: Callable[[str], str] = str,
) -> None:
    """Apply what is missing. Several processes may call it at once.

    Args:
        db: a connection.
        migrations: names and scripts, in order, in SQLite's SQL.
        find_table: a SELECT of one row whose only column is null if there is no table `migrations` yet.
        alone: a transaction that lets in one process at a time. Entered only if something is missing.
        in_words: translates a script to the engine's SQL.

    Raises:
        StorageUnavailable: the tables were written by a newer version.
    """
    if not _missing(db, migrations, find_table):
        return
    with alone:
        db.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY)")
        for name, script in _missing(db, migrations, find_table):
            for statement in filter(str.strip, in_words(script).split(";")):
                db.execute(statement)
            db.execute("INSERT INTO migrations (name) VALUES (?)", (name,))


def _missing(db: Db, migrations: Migrations, find_table: str) -> Migrations:
    (there,) = db.execute(find_table).fetchone()
    applied = {name for (name,) in db.execute("SELECT name FROM migrations")} if there else set()
    if newer := sorted(applied - {name for name, _ in migrations}):
        raise StorageUnavailable(
            f"the journal was written by a newer version of mj-mcp (it has {newer[0]}); upgrade mj-mcp"
        )
    return [(name, script) for name, script in migrations if name not in applied]
