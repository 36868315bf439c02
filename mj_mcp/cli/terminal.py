"""Helpers of all commands: read the settings or print what is wrong with them, tables, dates, and an end in good order.

Only this module touches rich.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mj_mcp.settings import Settings, SettingsError, read_settings
from mj_mcp.settings.environment import unknown_variables

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
        fail(f"MJ_API_KEY is not set. `{program()} demo` works without a key.", EXIT_SETTINGS)
    return settings


def program() -> str:
    """What to type for this program: its path as it was called, if `mj-mcp` alone is not found."""
    called = Path(sys.argv[0])
    return "mj-mcp" if shutil.which("mj-mcp") or called.stem != "mj-mcp" else str(called)


def fail(line: str, code: int) -> NoReturn:
    """Print one line to stderr, and exit."""
    print(f"mj-mcp: {line}", file=sys.stderr)
    sys.exit(code)


def unknown_settings() -> list[str]:
    """A sentence about each `MJ_...` variable that is no setting."""
    return [
        f"{name} is no setting" + (f"; did you mean {nearest}?" if nearest else "")
        for name, nearest in unknown_variables().items()
    ]


def is_terminal() -> bool:
    """Whether a person reads along."""
    return _console().is_terminal


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table that fits the terminal: its last column is wrapped. In a file or a pipe, one line a row, nothing cut."""
    screen = _console()
    if not screen.is_terminal:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich.table import Table  # noqa: PLC0415 - as in `_console`
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), show_header=any(head))
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    screen.print(table)


_STYLES = {"ok": "green", "FAIL": "bold red", "connected": "green", "connected (demo)": "green", "broken": "bold red"}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `mj-mcp doctor`. `ok` is None for what was not checked, and for what is only noted."""

    name: str
    ok: bool | None
    said: str


def print_checks(checks: Sequence[Check]) -> None:
    """One check a line."""
    marks = {True: "ok", False: "FAIL", None: "-"}
    if is_terminal():
        print_table(["", "", ""], [[marks[check.ok], check.name, check.said] for check in checks])
        return
    for check in checks:
        print(f"{marks[check.ok]:4}  {check.name}: {check.said}")


@contextmanager
def bar(label: str, *, on_stderr: bool = False) -> Iterator[Callable[[float, str], None]]:
    """A progress bar. The block calls what it gets with the per cent that are done, and a label.

    Where nobody reads along, it is the label in one line, and nothing on stderr.
    """
    screen = _console(stderr=on_stderr)
    if not screen.is_terminal:
        if not on_stderr:
            print(label)
        yield lambda *_: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - as in `_console`

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=screen, transient=on_stderr) as progress:
        shown = progress.add_task(label, total=100)
        yield lambda done, words: progress.update(shown, completed=done, description=words)


def when(seconds: float) -> str:
    """A time as people write it, in this machine's time zone: "27 Nov 2026, 15:04". In a file, in UTC and sortable."""
    at = datetime.fromtimestamp(seconds, UTC)
    return at.astimezone().strftime("%d %b %Y, %H:%M").lstrip("0") if is_terminal() else f"{at:%Y-%m-%d %H:%M:%SZ}"


def _console(*, stderr: bool = False) -> Console:
    """The terminal, with its width and its colours; NO_COLOR is honoured."""
    if sys.modules.get("rich", ...) is None:  # see `cli/__init__.py`
        del sys.modules["rich"]
    from rich.console import Console  # noqa: PLC0415 - a start of the server does not pay for it

    return Console(highlight=False, stderr=stderr)


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
