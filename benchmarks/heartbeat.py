"""`mj-mcp` with a heartbeat on its event loop: `heartbeat.py FILE [arguments of mj-mcp]`.

When the process ends, FILE holds a line for every beat that came late: when (the machine's monotonic clock), and by
how many milliseconds.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from mj_mcp.cli.commands import main

BEAT_SECONDS = 0.005
LATE_MS = 5.0


class Beating(asyncio.DefaultEventLoopPolicy):
    """Event loops that beat from their first moment on."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[tuple[float, float]] = []

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """A loop with a heart."""
        loop = super().new_event_loop()
        loop.call_soon(self._beat, loop, time.monotonic())
        return loop

    def _beat(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = time.monotonic()
        if (now - due) * 1000 > LATE_MS:
            self.late.append((now, (now - due) * 1000))
        loop.call_later(BEAT_SECONDS, self._beat, loop, now + BEAT_SECONDS)


if __name__ == "__main__":
    policy, report = Beating(), Path(sys.argv[1])
    asyncio.set_event_loop_policy(policy)
    sys.argv[:] = ["mj-mcp", *sys.argv[2:]]
    try:
        main()
    finally:
        report.write_text("".join(f"{at} {late}\n" for at, late in policy.late))
