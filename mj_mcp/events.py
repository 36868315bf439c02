"""Events for those who need them: observers count them, listeners follow the changes of tasks.

Observers get frozen values, so nothing that raises an event knows who counts it. A change reaches every process that
shares the journal: the process that saw it notifies its own listeners, and the others read it from the journal and
notify theirs. Knows nothing of metrics, logs or MCP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from mj_mcp.tasks import Task


@dataclass(frozen=True, slots=True)
class Load:
    """The number of open tasks and waiters in one process, at this moment."""

    open_tasks: int
    waiters: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The poller runs. `load` returns its current load, and may be called from any thread."""

    load: Callable[[], Load]


@dataclass(frozen=True, slots=True)
class Submitted:
    """A submit was sent and its outcome is recorded: `task` has an id, is refused, or is unconfirmed."""

    task: Task


@dataclass(frozen=True, slots=True)
class Ended:
    """A poll of this process found that `task` has ended."""

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
"""Called with every event, on the event loop: it must be quick and must not raise."""


def ignore(_event: Event) -> None:
    """The observer where nothing is counted."""


class OnProgress(Protocol):
    """Called about once a second with the task as last observed, and its position while it waits in the queue."""

    def __call__(self, task: Task, position: int = 0, /) -> Awaitable[None]: ...  # noqa: D102 - said above


Listener = Callable[[Task], None]
"""Called with a task that has changed, on the event loop: it must be quick and must not raise."""


class Listeners:
    """Passes on the changes of every owner's tasks that this process learns of."""

    def __init__(self) -> None:
        """Starts without readers."""
        self._readers: list[Listener] = []

    def follow(self, reader: Listener) -> None:
        """Send every change to `reader` from now on, for as long as the process runs."""
        self._readers.append(reader)

    def notify(self, task: Task) -> None:
        """`task` has changed."""
        for reader in self._readers:
            reader(task)
