"""Helpers of all commands: read the settings or print what is wrong with them, tables, dates, and an end in good order.

Only this module touches rich.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from mj_mcp.settings import Settings, SettingsError, read_settings

if TYPE_CHECKING:
    from rich.console import Console

EXIT_SETTINGS = 2


def settings_or_exit(*, needs_key: bool = True) -> Settings:
    """The settings from the environment."""
    try:
        settings = read_settings()
    except SettingsError as failure:
        fail(f"{failure}. docs/settings.md lists the settings.", EXIT_SETTINGS)
    if needs_key and not settings.has_key:
        fail("MJ_API_KEY is not set. `mj-mcp demo` works without a key.", EXIT_SETTINGS)
    return settings


def fail(line: str, code: int) -> NoReturn:
    """Print one line to stderr, and exit."""
    print(f"mj-mcp: {line}", file=sys.stderr)
    sys.exit(code)


def console(*, stderr: bool = False) -> Console:
    """The terminal, with its width and colours; NO_COLOR is honoured."""
    if sys.modules.get("rich", ...) is None:  # see `cli/__init__.py`
        del sys.modules["rich"]
    from rich.console import Console  # noqa: PLC0415 - a start of the server does not pay for it

    return Console(stderr=stderr, highlight=False)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table that fits the terminal. Into a file or a pipe, one line a row and nothing cut."""
    screen = console()
    if not screen.is_terminal:
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))] if rows else []
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, name in enumerate(head):
        table.add_column(
            name, overflow="fold" if number == len(head) - 1 else "ellipsis", no_wrap=number < len(head) - 1
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    screen.print(table)


def date(seconds: float) -> str:
    """A time as people write it, in the time zone of this machine: "27 Nov 2026, 15:04"."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%d %b %Y, %H:%M").lstrip("0")


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
