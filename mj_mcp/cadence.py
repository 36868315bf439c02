"""When to look next: a pure function.

Owns the pace of looks at the proxy. Knows nothing of clocks, tasks' rows or connections.

The proxy's page asks for a look about every 5 s. Somebody who waits gets that pace; a task that nobody waits
for is followed at a third of it; a stalled one once a minute. A look that failed is repeated sooner, then
later and later, so that a hiccup is over in a second and an outage is not hammered.
"""

from __future__ import annotations

MIN_GAP_SECONDS = 0.5
"""Never less between two looks at one task."""

EXPECTED_SECONDS = 60.0
"""A usual job, until the journal's own finished tasks tell better (the proxy's relatives: 30 to 180 s)."""

UNATTENDED_FACTOR = 3.0
STALLED_SECONDS = 60.0
FAILED_LOOK_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 60.0


def next_look(
    *,
    poll_seconds: float,
    attended: bool,
    stalled: bool = False,
    failures: int = 0,
    retry_after: float | None = None,
) -> float:
    """Seconds from the last look to the next.

    Args:
        poll_seconds: the pace that the proxy's page asks for.
        attended: whether a caller waits for this task now.
        stalled: whether nothing has moved for long.
        failures: looks that failed since the last good one.
        retry_after: what the proxy asked for with its last failure, in seconds.
    """
    if failures:
        backoff = min(FAILED_LOOK_SECONDS * 2.0 ** (failures - 1), MAX_BACKOFF_SECONDS)
        return max(backoff, retry_after or 0.0, MIN_GAP_SECONDS)
    if stalled:
        return max(STALLED_SECONDS, poll_seconds)
    return max(poll_seconds if attended else poll_seconds * UNATTENDED_FACTOR, MIN_GAP_SECONDS)


def expected_remaining(age: float, upstream_eta: float | None = None) -> float | None:
    """Seconds until a job of this age (seconds) is usually done; None when it is later than usual."""
    if upstream_eta is not None:
        return upstream_eta
    return EXPECTED_SECONDS - age if age < EXPECTED_SECONDS else None
