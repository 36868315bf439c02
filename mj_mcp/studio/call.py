"""Who calls, and how long the call may take, counted from its start on the event loop's clock.

Owns what is added to the caller's time. Does not know what the time is used for.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from mj_mcp.events import OnProgress
from mj_mcp.tasks import LOCAL_OWNER

ONE_POLL_SECONDS = 0.7
"""With `wait_seconds=0`: how long one poll may take before the call answers with the last known state."""

ANSWER_SECONDS = 3.0
"""With `wait_seconds=0`: how long the proxy may take to name its task before the answer is `submitting`."""

SHEET_SECONDS = 0.5
"""How long a call may exceed its time for the sheet. The rest of that second is a margin for a busy machine."""


def _now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: its owner, what it may spend, how long it may wait, and where its progress goes."""

    owner: str = LOCAL_OWNER
    wait_seconds: float = 0.0
    leaves: bool = False
    """Whether it asks for the task's end later: it waits for a slot in the queue, and no longer."""
    on_progress: OnProgress | None = None
    began: float = field(default_factory=_now)

    @property
    def until(self) -> float:
        """When the call's time is up."""
        return self.began + self.wait_seconds

    @property
    def waits(self) -> bool:
        """Whether it waits for the end of what it buys."""
        return self.wait_seconds > 0 and not self.leaves

    @property
    def until_polled(self) -> float:
        """Like `until`, or a little later where the call does not wait: time for one poll."""
        return max(self.until, self.began + ONE_POLL_SECONDS)

    @property
    def waited(self) -> float:
        """Seconds since the call began."""
        return _now() - self.began

    @property
    def left_for_sheet(self) -> float:
        """Seconds that are left to make a sheet."""
        return max(0.0, self.until + SHEET_SECONDS - _now())
