"""The journal's file on this machine: opened, migrated, set aside when broken. Also which processes use it.

Owns paths, modes, process locks, and what the errors of SQLite and the disk mean. Knows nothing of tasks.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from mj_mcp.errors import StorageUnavailable
from mj_mcp.files import make_folder
from mj_mcp.journal.migrations import Migrations, migrate

SQLITE_REASONS = {
    sqlite3.SQLITE_BUSY: "another program has kept it locked for too long",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_IOERR: "the disk does not read or write",
}
"""Failures that a person can act on, in plain words."""

FIND_IN_SQLITE = "SELECT max(name) FROM sqlite_master WHERE name = 'migrations'"

BROKEN = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def open_file(path: Path, deadline: float, migrations: Migrations) -> sqlite3.Connection:
    """A connection to the journal at `path`. Created (mode 0600, folder 0700) and migrated if needed.

    Waits for the locks of other programs until `deadline`, on the monotonic clock.

    Raises:
        StorageUnavailable: the file was broken (it is kept), or was written by a newer version.
        sqlite3.Error, OSError: it cannot be opened.
    """
    make_folder(path.parent)
    _make_file(path)
    while True:
        try:
            return _open(path, deadline, migrations)
        except sqlite3.OperationalError as failure:
            # Several processes that open a new file at once can meet SQLITE_BUSY without the busy timeout.
            if failure.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        except sqlite3.DatabaseError as failure:
            if getattr(failure, "sqlite_errorcode", 0) & 0xFF not in BROKEN:
                raise
            raise StorageUnavailable(_set_aside(path, failure)) from failure


def wait_until(db: sqlite3.Connection, deadline: float) -> None:
    """Let the next statement wait for other programs' locks until then."""
    db.execute(f"PRAGMA busy_timeout = {max(0, round((deadline - time.monotonic()) * 1000))}")


def _open(path: Path, deadline: float, migrations: Migrations) -> sqlite3.Connection:
    # Never created here: another process may have set a broken file aside since we checked.
    where = f"{path.absolute().as_uri()}?mode=rw"
    db = sqlite3.connect(where, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        wait_until(db, deadline)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        wait_until(db, deadline)
        migrate(db, migrations, find_table=FIND_IN_SQLITE, alone=immediate(db))
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def immediate(db: sqlite3.Connection) -> Iterator[None]:
    """A transaction that may write. Only one writer at a time is let in."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _set_aside(path: Path, failure: Exception) -> str:
    """Rename the broken file, with its log, to a clear name. It is never deleted."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    names = (f"{path.stem}.broken-{moment}{f'-{n}' if n else ''}{path.suffix}" for n in count())
    aside = next(aside for name in names if not (aside := path.with_name(name)).exists())
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return f"{_aside_line(aside)} ({failure})"


def _make_file(path: Path) -> None:
    """Create the file unless it exists. Never beside a broken one, which has records of charged submits."""
    if path.exists():
        return
    # In this order: a file that is missing because it was broken must be found under its new name.
    if broken := sorted(path.parent.glob(f"{path.stem}.broken-*{path.suffix}")):
        raise StorageUnavailable(_aside_line(broken[-1]))
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _aside_line(aside: Path) -> str:
    return (
        f"the journal was broken and is kept as {aside}; nothing is submitted until you put a repaired journal.db in"
        " its place, or move the broken file out of this folder to start a new journal"
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turns every error of SQLite or the disk into one that says that nothing was submitted."""
    try:
        yield
    except sqlite3.Error as failure:
        code = getattr(failure, "sqlite_errorcode", 0) & 0xFF
        raise StorageUnavailable(f"the journal cannot be used: {SQLITE_REASONS.get(code, str(failure))}") from failure
    except OSError as failure:
        raise StorageUnavailable(f"the journal cannot be opened: {failure.strerror or failure}") from failure


class ProcessLock:
    """A file that this process keeps locked. The kernel releases the lock however the process ends."""

    def __init__(self, folder: Path) -> None:
        self.name = uuid.uuid4().hex
        self._folder = folder
        self._descriptor: int | None = None
        self._taking = threading.Lock()

    def take(self) -> None:
        """Show that this process is alive. May be called repeatedly, and from several threads."""
        with self._taking:
            if self._descriptor is None:
                self._descriptor = self._locked_file()

    def _locked_file(self) -> int:
        make_folder(self._folder)
        descriptor = os.open(self._folder / self.name, os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600)
        if sys.platform != "win32":
            import fcntl  # noqa: PLC0415 - POSIX only; elsewhere the lease's time alone decides

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def is_dead(self, name: str) -> bool:
        """Whether the process with that lock is certainly gone. False where this is unknown."""
        if sys.platform == "win32":
            return False
        import fcntl  # noqa: PLC0415 - POSIX only

        try:
            descriptor = os.open(self._folder / name, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        with suppress(OSError):
            (self._folder / name).unlink()
        return True

    def release(self) -> None:
        """Remove the file and release the lock."""
        if self._descriptor is not None:
            with suppress(OSError):
                (self._folder / self.name).unlink()
            os.close(self._descriptor)
            self._descriptor = None
