"""Helpers of all commands: read the settings or print what is wrong with them, run until a signal, and exit."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, NoReturn

from mj_mcp.settings import Settings, SettingsError, read_settings

EXIT_SETTINGS = 2


def settings_or_exit(*, needs_key: bool = True) -> Settings:
    """The settings from the environment."""
    try:
        settings = read_settings()
    except SettingsError as failure:
        fail(f"{failure}. The README lists the settings.", EXIT_SETTINGS)
    if needs_key and not settings.has_key:
        fail("MJ_API_KEY is not set. `mj-mcp demo` works without a key.", EXIT_SETTINGS)
    return settings


def fail(line: str, code: int) -> NoReturn:
    """Print one line to stderr, and exit."""
    print(f"mj-mcp: {line}", file=sys.stderr)
    sys.exit(code)


def run_until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Run until done. SIGTERM and SIGINT end it properly, after what is in flight is recorded."""

    async def until_signal() -> None:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(number, _once(task))
        await work

    with suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(until_signal())


def _once(task: asyncio.Task[Any] | None) -> Any:  # noqa: ANN401 - a callback
    """Cancel `task` at the first signal; later ones do not disturb its cleanup."""
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if not stopped and task is not None:
            stopped = True
            task.cancel()

    return stop
