"""The journal: what was bought, from before it was paid for.

Owns the promise that every submit has a row before the POST, the claim that makes an identical request find
the one that is running, the limits, and the leases by which several processes share the open tasks. Knows
nothing of the proxy, of waiting or of MCP.

`Journal` is the protocol; `open_journal` picks the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from mj_mcp.errors import MjError
from mj_mcp.tasks import Kind, Status, Task, WarningCode

LEASE_SECONDS = 8.0
"""How long a silent process keeps its tasks. Within 10 s of a death somebody else looks after them."""

QUEUE_SECONDS = 5.0
"""A request in the queue that has not asked for so long is not waiting any more."""

KEPT_SECONDS = 15.0
"""How long its slot is kept all the same, for the same request or another one of its owner."""

REPEAT_SECONDS = 600.0
"""For so long after its success, a request answers an identical one of the same owner.

A host that gave up after 5 s cannot be told from one that heard the answer, and its model repeats the call.
"""

UNCONFIRMED_COUNTS_SECONDS = 600.0
"""An unconfirmed submit counts as open for this long: no job of this API is known to run longer."""


UNREAD = WarningCode.UNREAD.of()
"""The warning of a task that is told from memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a person allows: tasks open at once, and submits per UTC day (None: no ceiling); all told, and per owner.

    While there is a `pause`, nothing new is claimed, and it says why; what is open already is still found.
    """

    max_open: int
    per_day: int | None = None
    owner_max_open: int | None = None
    owner_per_day: int | None = None
    pause: MjError | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The row to go on with: our own new one, or that of an identical request which is open or succeeded lately."""

    task: Task
    is_new: bool


@dataclass(frozen=True, slots=True)
class QueueSlot:
    """All places are taken: the request stands in the queue, `position` counts from 1. To be asked for again."""

    position: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What was submitted, counted as the limits count it, and what is left of them.

    Refused and abandoned submits do not count. Days are in UTC; `last_7_days` are today and the six days before.
    """

    today: Mapping[Kind, int]
    """Submits by kind; a kind without one is left out."""
    last_7_days: Mapping[Kind, int]
    open: int
    """Tasks that count against the limit of open tasks."""
    waiting: int
    """Requests in the queue."""
    open_left: int
    today_left: int | None
    """None: there is no ceiling."""
    resets_at: float
    """When the next day begins, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some tasks, newest first, and the cursor of the next page (None at the end)."""

    tasks: tuple[Task, ...]
    next_cursor: str | None


class Journal(Protocol):
    """One account's tasks. Every method raises `StorageUnavailable` when the storage does not answer."""

    async def claim(self, task: Task, request_key: str, *, allow_duplicate: bool, limits: Limits) -> Claim | QueueSlot:
        """Find the row that answers, or check the limits and insert `task` with `request_key`: all in one transaction.

        The newest row answers that the same owner asked for with the same `request_key` (which holds the owner) and
        that is open, or succeeded less than `REPEAT_SECONDS` ago by the storage's clock; for an upscale, that
        succeeded at any time. It answers before limits, queue and pause; with `allow_duplicate`, none does.

        Where as many tasks are open as there may be, or others were waiting before, the answer is a place in the
        queue. Owners take turns. A place is lost that `request_key` does not ask for again within `KEPT_SECONDS`.

        Raises:
            Busy: the owner's own limit of open tasks is reached, or there is a pause.
            LimitReached: the day's ceiling is reached.
        """
        ...

    async def leave(self, request_key: str) -> None:
        """Give up its slot in the queue."""
        ...

    async def adopt(self, task: Task) -> Task:
        """Insert a task that was found at the proxy; the row that is there already, when there is one.

        Raises:
            TaskNotFound: it is there already, and is another owner's.
        """
        ...

    async def update(self, submission_id: str, change: Callable[[Task], Task]) -> Task:
        """Read the row, apply the pure `change`, write it back: one transaction. Returns the new task."""
        ...

    async def find(self, handle: str, owner: str | None) -> Task | None:
        """The task with this submission id or task id, if it is this owner's (None: anybody's).

        While the storage does not answer, a task that this process knows comes from memory, with the warning `UNREAD`.
        """
        ...

    async def page(
        self, owner: str | None, status: Status | None, limit: int, cursor: str | None, since: float | None = None
    ) -> Page:
        """The owner's tasks (None: everybody's), newest first; refused submits only when asked for by `status`.

        `since`, in seconds since the epoch, leaves out what was submitted before it. A task that was found at the
        proxy counts from when it was taken in: its `updated_at` of that moment, which later changes do not move.

        Raises:
            InvalidRequest: `cursor` is not the `next_cursor` of an earlier page of this owner.
        """
        ...

    async def usage(self, owner: str | None, limits: Limits) -> Usage:
        """What this owner submitted (None: everybody), and what is left: the least of the owner's and all told."""
        ...

    async def finished(self, kind: Kind, limit: int) -> list[Task]:
        """The tasks of that kind that finished last, everybody's: what job times are learned from."""
        ...

    async def tend(self, now: float) -> list[Task]:
        """Keep this process's leases, settle what dead processes left, and take over what nobody watches.

        Leases go by the storage's clock; `now`, in seconds since the epoch, is when a row is said to be settled.
        Returns every task that this process is to watch, and those that it has settled.
        """
        ...

    async def changes(self) -> list[Task]:
        """The tasks that other processes changed since the last call."""
        ...

    async def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` soon after other processes have changed something, until cancelled.

        It only makes a call of `changes` come sooner. Ends at once where the storage tells of nothing.
        """
        ...

    async def ready(self) -> None:
        """Open the storage now, if it is not open yet."""
        ...

    async def aclose(self) -> None:
        """Give the leases back and close."""
        ...
