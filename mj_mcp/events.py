"""What happens here, for those who are told of it: observers count it, listeners follow the changes of tasks.

Observers get frozen values, so that no room knows who counts. A change reaches every process that shares the journal:
the one that saw it tells its own listeners, the others find it in the journal and tell theirs. Knows nothing of
metrics, logs or MCP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from mj_mcp.tasks import Task


@dataclass(frozen=True, slots=True)
class Load:
    """How much one process holds at this moment."""

    open_tasks: int
    waiters: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The watch is there. `load` tells what it holds, and may be called from any thread."""

    load: Callable[[], Load]


@dataclass(frozen=True, slots=True)
class Submitted:
    """A submit was sent and its outcome is recorded: `task` has an id, is refused, or is unconfirmed."""

    task: Task


@dataclass(frozen=True, slots=True)
class Ended:
    """A poll of this process saw the end of `task`."""

    task: Task


@dataclass(frozen=True, slots=True)
class Called:
    """A tool was called. `outcome` is ok, error, cancelled or crashed; `code` is that of the error."""

    tool: str
    outcome: str
    code: str | None
    seconds: float


Event = Opened | Submitted | Ended | Called

Observer = Callable[[Event], None]
"""Told of everything as it happens, on the event loop: it must be quick and must not raise."""


def ignore(_event: Event) -> None:
    """The observer where nobody counts."""


class OnProgress(Protocol):
    """Told about once a second of the task as last seen, and of its slot in the queue while it waits in one."""

    def __call__(self, task: Task, position: int = 0, /) -> Awaitable[None]: ...  # noqa: D102 - said above


Listener = Callable[[Task], None]
"""Told of a task that has changed, on the event loop: it must be quick and must not raise."""


class Listeners:
    """The changes of everybody's tasks, as this process hears of them."""

    def __init__(self) -> None:
        """Nobody reads yet."""
        self._readers: list[Listener] = []

    def follow(self, reader: Listener) -> None:
        """Tell `reader` from now on; it reads as long as the process runs."""
        self._readers.append(reader)

    def notify(self, task: Task) -> None:
        """`task` is not what it was."""
        for reader in self._readers:
            reader(task)
