"""How long a call may block, by the host that makes it.

Owns what is known of hosts' patience, and what is learned of it. A wait that a host cuts off is an error to the model,
though the task lives on; a wait that is too short costs one more call. Names are those that clients give in their
`clientInfo`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import structlog

from mj_mcp.errors import StorageUnavailable
from mj_mcp.journal import Cut, Journal

log = structlog.get_logger("mj_mcp.hosts")

DEFAULT_WAIT_SECONDS = 25.0
"""What every host known to us survives: the shortest cut seen is 30 s."""

HOST_WAIT_SECONDS: dict[str, float] = {
    # Idle clock of 5 min on HTTP and 30 min on stdio, which progress resets; long calls go to the background
    # after 2 min (public documentation and threads, late 2026).
    "claude-code": 110.0,
    # Reports between 60 s and about 4 min, no sign that progress helps: stay below the shortest.
    "claude-ai": 25.0,  # the name that Claude Desktop and the web connectors give; connectors cut at 30 to 60 s
    # 5 min in one report.
    "cursor-vscode": 110.0,
    "cursor": 110.0,
    # No limit in its source.
    "visual studio code": 110.0,
    "vscode": 110.0,
    # `tool_timeout_sec` is 60 s unless a person raised it.
    "codex-mcp-client": 50.0,
    # The TypeScript SDK's default of 60 s.
    "mcp-inspector": 50.0,
    "inspector-client": 50.0,
    # 60 s for n8n itself; other workflow runners 5 to 30 s, which cannot be told apart by name.
    "n8n": 25.0,
}


HOSTS_REMEMBERED = 1000

LEAST_CUT_SECONDS = 1.0
"""A call that ends sooner was withdrawn by somebody; no host is known to cut so early."""

MARGIN = 0.8
"""The share of a host's time that is used: the answer has to travel, and clocks differ."""

ALIKE = 0.15
"""Two cuts whose times differ by less than this share are a host's clock; a person's hand is not so even."""

ONCE_SECONDS, TWICE_SECONDS = 3600.0, 30 * 86400.0
"""How long a cut is believed: seen once it may have been a person, seen twice alike it is the host."""

LEARN_AFTER_SECONDS = 1.0
"""A host that leaves altogether cancels its calls too, and is gone by then."""


def wait_seconds_for(client_name: str | None, cuts: Sequence[Cut] = (), now: float = 0.0) -> float:
    """Seconds that a call of this client may block when it does not say; 25 for one that we do not know.

    `cuts` are the times at which it cut calls off before: the shortest that is still believed at `now` counts.
    """
    known = HOST_WAIT_SECONDS.get(_plain(client_name), DEFAULT_WAIT_SECONDS)
    believed = [cut.seconds for cut in cuts if now - cut.at < (TWICE_SECONDS if _repeated(cut, cuts) else ONCE_SECONDS)]
    return min([known, *(MARGIN * seconds for seconds in believed)])


def _repeated(cut: Cut, cuts: Sequence[Cut]) -> bool:
    return any(abs(other.seconds - cut.seconds) < ALIKE * cut.seconds for other in cuts if other is not cut)


def _plain(client_name: str | None) -> str:
    return (client_name or "").strip().lower()[:100]


class Patience:
    """What this process knows of how long its hosts wait."""

    def __init__(self, journal: Journal) -> None:
        """Nothing is read before somebody asks."""
        self._journal = journal
        self._cuts: dict[tuple[str, str], list[Cut]] = {}
        self._learning: set[asyncio.Task[None]] = set()

    async def seconds(self, owner: str, client_name: str | None) -> float:
        """How long a call of this client may block when it does not say."""
        whose = owner, _plain(client_name)
        if whose not in self._cuts:
            with suppress(StorageUnavailable):
                self._cuts[whose] = await self._journal.cuts(*whose)
            if len(self._cuts) > HOSTS_REMEMBERED:
                del self._cuts[next(iter(self._cuts))]
        return wait_seconds_for(client_name, self._cuts.get(whose, ()), time.time())

    @asynccontextmanager
    async def watching(self, owner: str, client_name: str | None) -> AsyncIterator[None]:
        """Learn from the call inside, if its host cuts it off."""
        began = time.monotonic()
        try:
            yield
        except asyncio.CancelledError:
            seconds = time.monotonic() - began
            if seconds >= LEAST_CUT_SECONDS:
                learning = asyncio.create_task(self._learn(owner, _plain(client_name), Cut(seconds, time.time())))
                self._learning.add(learning)
                learning.add_done_callback(self._learning.discard)
            raise

    async def _learn(self, owner: str, host: str, cut: Cut) -> None:
        await asyncio.sleep(LEARN_AFTER_SECONDS)
        log.info("host_cut", host=host, seconds=round(cut.seconds, 1))
        with suppress(StorageUnavailable):
            await self._journal.note_cut(owner, host, cut)
            self._cuts.pop((owner, host), None)  # read anew, with what was known before
