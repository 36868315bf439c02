"""What the journal asks of a storage: connections, threads, and the few words in which the engines' SQL differs.

Owns the shape of an engine. Knows no table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

WRITE_SECONDS = 5.0
"""How long a write may wait for a storage that is locked or away before the submit is refused."""

READ_SECONDS = 2.0
"""The same for a read. A call with no time to wait makes some of them, and must be answered within 4 s."""


class Rows(Protocol):
    """What a statement gave."""

    def fetchone(self) -> Any:  # noqa: ANN401 - a row
        """The next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        ...

    def __iter__(self) -> Any:  # noqa: ANN401 - rows
        """Row by row."""
        ...


class Db(Protocol):
    """A connection inside a transaction. Parameters stand as `?`."""

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        """Run one statement."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where the engines' SQL differs."""

    next_seq: str
    """An expression for the number of the next change."""
    now: str
    """An expression for the time in seconds since the epoch, by the storage's own clock; one time per statement."""
    begin_read: str
    """A statement that begins a transaction whose reads all show the same moment."""
    lock_account: str = ""
    """A statement that lets the claims of one account (`?`) in one by one, where transactions do not already."""
    lock_row: str = ""
    skip_locked: str = ""
    """What ends a SELECT whose rows are going to be changed; the second passes over what others are changing."""
    announce: str = ""
    """What ends the UPDATE of a task, to tell other processes of it at once, where the storage can."""


class Engine(Protocol):
    """One kind of storage: its connections, its threads, and who of its users is alive."""

    dialect: Dialect
    holder: str
    """This process's name in the journal."""

    async def write(self, work: Callable[[Db], T]) -> T:
        """Run `work` as one transaction that may write. Raises `StorageUnavailable`."""
        ...

    async def read(self, work: Callable[[Db], T]) -> T:
        """Run `work`, which only reads, beside any writes. Raises `StorageUnavailable`."""
        ...

    def changed(self, db: Db, account: str) -> Iterable[str]:
        """The bodies of the rows that other processes changed since the last call."""
        ...

    async def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` soon after others have changed something, until cancelled; ends where nothing tells of it."""
        ...

    def dead_for(self, db: Db, holder: str) -> float:
        """For how many seconds that process has been gone. 0 where nobody can tell; infinity where it is certain."""
        ...

    async def aclose(self) -> None:
        """Close."""
        ...
