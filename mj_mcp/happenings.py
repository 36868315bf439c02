"""What operators count: frozen values that the rooms hand to an observer, so that none of them knows who counts.

Owns the list of what can be observed. Knows nothing of metrics, traces or logs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
    """A look of this process saw the end of `task`."""

    task: Task


@dataclass(frozen=True, slots=True)
class Called:
    """A tool was called. `outcome` is ok, error, cancelled or crashed; `code` is that of the error."""

    tool: str
    outcome: str
    code: str | None
    seconds: float


Happening = Opened | Submitted | Ended | Called

Observer = Callable[[Happening], None]
"""Told of everything as it happens, on the event loop: it must be quick and must not raise."""


def ignore(_happening: Happening) -> None:
    """The observer where nobody counts."""
