"""Progress notifications: a number that only rises, and what it is based on.

Owns the arithmetic and the wording.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from mcp.server.mcpserver import Context

from mj_mcp.events import OnProgress
from mj_mcp.studio import Studio
from mj_mcp.tasks import Status, Task

GAP_SECONDS = 1.0
"""The shortest time between two notifications of one call, however often the task is polled."""

MOST_BY_TIME = 95.0
"""The highest per cent estimated from time. Only the proxy can report more."""


def progress_reporter(ctx: Context[Any]) -> OnProgress | None:
    """The function that reports progress to the caller; None if it did not ask for progress."""
    meta = ctx.request_context.meta or {}
    if meta.get("progress_token") is None:
        return None

    async def report(per_cent: float, words: str) -> None:
        await ctx.report_progress(per_cent, 100.0, words)

    return progress_of(ctx.request_context.lifespan_context.studio, report)


def progress_of(studio: Studio, report: Callable[[float, str], Awaitable[None]]) -> OnProgress:
    """What `report` is told at most once a second: a per cent that only rises, and words."""
    shown, told_at = 0.0, float("-inf")

    async def on_progress(task: Task, position: int = 0, /) -> None:
        nonlocal shown, told_at
        if time.monotonic() - told_at < GAP_SECONDS:
            return
        told_at = time.monotonic()
        age = max(0.0, time.time() - (task.claimed_at or task.submitted_at or task.updated_at))
        remaining = studio.remaining(task)
        if remaining is not None:
            by_time = MOST_BY_TIME * age / (age + max(remaining, 1.0))
        else:
            by_time = MOST_BY_TIME if task.is_polled and task.submitted_at else 0.0
        # The value must rise every time: the protocol requires it.
        shown = max(float(task.progress) if task.progress is not None else by_time, shown + 0.01)
        await report(min(shown, 99.9 + shown / 1e6), progress_message(task, remaining, position))

    return on_progress


def progress_message(task: Task, remaining: float | None, position: int = 0) -> str:
    """The text beside a progress bar. `position`: the place in the queue for a free slot."""
    if position:
        return f"waiting for a free slot here: number {position} in the queue"
    if task.status is Status.SUBMITTING:
        return "submitting"
    if task.progress is not None and task.is_open:
        return f"{task.progress} % by the proxy"
    if task.status is Status.QUEUED:
        return "queued"
    if remaining is not None:
        return f"usually done in about {max(1, round(remaining)):d} s"
    return "taking longer than usual" if task.is_open else str(task.status)
