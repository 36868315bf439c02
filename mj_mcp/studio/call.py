"""How long one call may take, counted from its beginning on the event loop's clock.

Owns what is added to the time that a caller gave. Knows nothing of what the time is used for.
"""

from __future__ import annotations

import asyncio

ONE_POLL_SECONDS = 0.7
"""How long a call with `wait_seconds=0` lets a fresh look take before it answers with the last one."""

SHEET_SECONDS = 0.5
"""How long beyond its time a call may wait for the sheet: what is left of a second is for a busy machine."""


class Deadline:
    """The end of a call that began now and may take so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._clock = asyncio.get_running_loop().time
        self.seconds = seconds
        self.began = self._clock()
        self.until = self.began + seconds

    @property
    def until_one_poll(self) -> float:
        """The end, or a little later where the call does not wait: time for one look."""
        return max(self.until, self.began + ONE_POLL_SECONDS)

    @property
    def passed(self) -> float:
        """Seconds since the call began."""
        return self._clock() - self.began

    @property
    def left_for_sheet(self) -> float:
        """Seconds that the making of a sheet may still take."""
        return max(0.0, self.until + SHEET_SECONDS - self._clock())
