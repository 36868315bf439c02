"""Who is told of tasks while they move: a caller in the middle of a wait, and those who asked to hear of every change.

Owns no more than the list of readers. A change reaches each process that shares the journal, whoever saw it: the
process that saw it tells its own readers, the others find it in the journal and tell theirs. So nothing is sent from
one to another here. Knows nothing of MCP, nor of how a change is found out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from mj_mcp.tasks import Task


class Tick(Protocol):
    """Told about once a second of the task as last seen, and of its place in the queue while it waits in one."""

    def __call__(self, task: Task, place: int = 0, /) -> Awaitable[None]: ...  # noqa: D102 - said above


Reader = Callable[[Task], None]
"""Told of a task that has changed, on the event loop: it must be quick and must not raise."""


class News:
    """The changes of everybody's tasks, as this process hears of them."""

    def __init__(self) -> None:
        """Nobody reads yet."""
        self._readers: list[Reader] = []

    def follow(self, reader: Reader) -> None:
        """Tell `reader` from now on; it reads as long as the process runs."""
        self._readers.append(reader)

    def tell(self, task: Task) -> None:
        """`task` is not what it was."""
        for reader in self._readers:
            reader(task)
