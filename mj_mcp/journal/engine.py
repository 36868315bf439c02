"""What the journal needs from a storage: connections, threads, and the parts of SQL in which the engines differ.

Owns the interface of an engine. Knows no tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

WRITE_SECONDS = 5.0
"""How long a write may wait for a locked or unavailable storage before the submit is refused."""

READ_SECONDS = 2.0
"""The same for a read. A call that does not wait makes some reads, and must be answered within 4 s."""


class Rows(Protocol):
    """The result of a statement."""

    def fetchone(self) -> Any:  # noqa: ANN401 - a row
        """The next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """All remaining rows."""
        ...

    def __iter__(self) -> Any:  # noqa: ANN401 - rows
        """Row by row."""
        ...


class Db(Protocol):
    """A connection inside a transaction. Parameters are written as `?`."""

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        """Run one statement."""
        ...


@dataclass(frozen=True, slots=True)
class SqlDialect:
    """The parts in which the engines' SQL differs."""

    next_seq: str
    """An expression for the number of the next change."""
    now: str
    """An expression for the time in seconds since the epoch, by the storage's own clock; one time per statement."""
    begin_read: str
    """A statement that begins a transaction in which all reads see the same state."""
    lock_account: str = ""
    """A statement that lets in one claim per account (`?`) at a time, if transactions do not already."""
    lock_row: str = ""
    skip_locked: str = ""
    """The end of a SELECT whose rows will be changed. The second one skips rows that others are changing."""
    announce: str = ""
    """The end of the UPDATE of a task, which notifies other processes at once, if the storage can."""


class Engine(Protocol):
    """One kind of storage: its connections, its threads, and which of its processes are alive."""

    dialect: SqlDialect
    holder: str
    """This process's name in the journal."""

    async def write(self, work: Callable[[Db], T]) -> T:
        """Run `work` as one transaction that may write. Raises `StorageUnavailable`."""
        ...

    async def read(self, work: Callable[[Db], T]) -> T:
        """Run `work`, which only reads, in parallel with writes. Raises `StorageUnavailable`."""
        ...

    def changed(self, db: Db, account: str) -> Iterable[str]:
        """The bodies of the rows that other processes changed since the last call."""
        ...

    async def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` soon after another process changed something, until cancelled. Returns if the engine cannot."""
        ...

    def dead_for(self, db: Db, holder: str) -> float:
        """For how many seconds that process has been gone. 0: unknown. Infinity: certainly gone."""
        ...

    async def aclose(self) -> None:
        """Close."""
        ...
