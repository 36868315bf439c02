"""The journal: every submit, recorded before it is paid for.

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
"""How long a silent process keeps its tasks. Another process takes over within 10 s of its death."""

QUEUE_SECONDS = 5.0
"""A queued request that has not asked for this long is not waiting any more."""

KEPT_SECONDS = 15.0
"""How long its place in the queue is kept, for the same request or another one of its owner."""

REPEAT_SECONDS = 600.0
"""For this long after its success, a request answers an identical one of the same owner.

A host that gave up after 5 s looks like one that got the answer, and its model repeats the call.
"""

UNCONFIRMED_COUNTS_SECONDS = 600.0
"""An unconfirmed submit counts as open for this long. No job of this API is known to run longer."""


UNREAD = WarningCode.UNREAD.of()
"""The warning of a task that comes from memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that a person set: open tasks, and submits per UTC day (None: no limit); per account and per owner.

    During a `pause`, nothing new is claimed, and `pause` says why. Open tasks are still found.
    """

    max_open: int
    per_day: int | None = None
    owner_max_open: int | None = None
    owner_per_day: int | None = None
    pause: MjError | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The row to continue with: our new one, or that of an identical request that is open or succeeded recently."""

    task: Task
    is_new: bool


@dataclass(frozen=True, slots=True)
class QueueSlot:
    """All slots are taken: the request is in the queue, and `position` counts from 1. Ask again later."""

    position: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What was submitted, counted as the limits count, and what is left.

    Refused and abandoned submits do not count. Days are in UTC; `last_7_days` are today and the six days before.
    """

    today: Mapping[str, int]
    """Submits by kind, and `other`; a kind without one is left out."""
    last_7_days: Mapping[str, int]
    open: int
    """Tasks that count against the limit of open tasks."""
    waiting: int
    """Requests in the queue."""
    open_left: int
    today_left: int | None
    """None: there is no limit."""
    resets_at: float
    """When the next day begins, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some tasks, newest first, and the cursor of the next page (None at the end)."""

    tasks: tuple[Task, ...]
    next_cursor: str | None


class Journal(Protocol):
    """The tasks of one account. Every method raises `StorageUnavailable` when the storage does not answer."""

    async def claim(self, task: Task, request_key: str, *, allow_duplicate: bool, limits: Limits) -> Claim | QueueSlot:
        """Find the row that answers, or check the limits and insert `task` with `request_key`, all in one transaction.

        The newest row answers that the same owner requested with the same `request_key` (which holds the owner) and
        that is open, or succeeded less than `REPEAT_SECONDS` ago by the storage's clock; for an upscale, that succeeded
        at any time. It answers before limits, queue and pause. With `allow_duplicate`, no row answers.

        If all slots are taken, or others already wait, the result is a place in the queue. Owners alternate. The place
        is lost if `request_key` does not ask again within `KEPT_SECONDS`.

        Raises:
            Busy: the owner's own limit of open tasks is reached, or there is a pause.
            LimitReached: the limit of the day is reached.
        """
        ...

    async def leave(self, request_key: str) -> None:
        """Leave the queue."""
        ...

    async def adopt(self, task: Task) -> Task:
        """Insert a task that was found at the proxy. Returns the existing row if there is one.

        Raises:
            TaskNotFound: the row exists and belongs to another owner.
        """
        ...

    async def update(self, submission_id: str, change: Callable[[Task], Task]) -> Task:
        """Read the row, apply the pure `change`, write it back: one transaction. Returns the new task."""
        ...

    async def find(self, handle: str, owner: str | None) -> Task | None:
        """The task with this submission id or task id, if it belongs to this owner (None: any owner).

        While the storage does not answer, a known task comes from memory, with the warning `UNREAD`.
        """
        ...

    async def page(
        self, owner: str | None, status: Status | None, limit: int, cursor: str | None, since: float | None = None
    ) -> Page:
        """The owner's tasks (None: everyone's), newest first. Refused submits only if `status` asks for them.

        `since`, in seconds since the epoch, leaves out what was submitted earlier. A task that was found at the proxy
        counts from when it was adopted; later changes do not move that time.

        Raises:
            InvalidRequest: `cursor` is not the `next_cursor` of an earlier page of this owner.
        """
        ...

    async def usage(self, owner: str | None, limits: Limits) -> Usage:
        """What this owner submitted (None: everyone), and what is left: the smaller of the owner's and account's."""
        ...

    async def finished(self, kind: Kind, limit: int) -> list[Task]:
        """The tasks of that kind that finished last, of all owners. Job times are learned from them."""
        ...

    async def tend(self, now: float) -> list[Task]:
        """Renew this process's leases, settle what dead processes left, and take over tasks that nobody polls.

        Leases use the storage's clock. `now`, in seconds since the epoch, is the time recorded for a settled row.
        Returns every task that this process is to poll, and those that it has settled.
        """
        ...

    async def changes(self) -> list[Task]:
        """The tasks that other processes changed since the last call."""
        ...

    async def recall_dialect(self) -> str | None:
        """The name of the dialect that the account's proxy was found to speak."""
        ...

    async def remember_dialect(self, name: str) -> None:
        """Remember that name."""
        ...

    async def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` soon after other processes changed something, until cancelled.

        It only makes a call of `changes` come sooner. Returns at once if the storage cannot notify.
        """
        ...

    async def ready(self) -> None:
        """Open the storage now, unless it is open."""
        ...

    async def aclose(self) -> None:
        """Release the leases and close."""
        ...
