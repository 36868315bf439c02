"""How every command that works with a studio runs: one way to buy, to wait, to print, and to end.

Owns the exit codes. The journal, the limits and the rules for duplicates are those of the tools.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from mj_mcp import logs
from mj_mcp.cli.terminal import bar, fail, run_until_signal, settings_or_exit
from mj_mcp.errors import LimitReached, MjError, Unconfirmed
from mj_mcp.tasks import Status, Task

if TYPE_CHECKING:
    from mj_mcp.settings import Settings
    from mj_mcp.studio import Call, Result, Studio

EXIT_OPEN = 3
"""Not finished when the wait was over. The same command waits on."""
EXIT_UNCONFIRMED = 4
"""The submit may have been charged; only the proxy's records can tell."""

T = TypeVar("T")

EXIT_CODES = """\b
Exit codes: 0 it worked, 1 it failed or was refused, 2 wrong arguments or settings,
3 not finished within --wait (the same command waits on), 4 unconfirmed (do not repeat it).
"""

WAIT = click.option("--wait", default=600.0, show_default=True, type=click.FloatRange(0, 3600), help="Seconds to wait.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, errors included.")
_ALLOW_DUPLICATE = click.option(
    "--allow-duplicate", is_flag=True, help="Buy again what is open or was bought a moment ago."
)


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that buys."""
    for option in (_ALLOW_DUPLICATE, AS_JSON, WAIT):
        command = option(command)
    return command


def buy(purchase: Callable[[Studio, Call, Settings], Awaitable[Result]], wait: float, *, as_json: bool) -> Task:
    """Buy once and wait; the task. What was bought before is named on stderr."""

    async def work(studio: Studio, call: Call, settings: Settings) -> Result:
        if settings.read_only:
            raise LimitReached("MJ_READ_ONLY is set, so nothing can be bought")
        return await purchase(studio, call, settings)

    result = with_studio(work, wait, as_json=as_json)
    from mj_mcp.server.render.warnings import warnings_of, worded  # noqa: PLC0415 - after the work

    if result.duplicate:
        print("Nothing new was bought: this is the same request. --allow-duplicate buys again.", file=sys.stderr)
    for warning in warnings_of(result):
        print(f"Warning: {worded(warning)}", file=sys.stderr)
    return result.task


def with_studio(work: Callable[[Studio, Call, Settings], Awaitable[T]], wait: float = 0, *, as_json: bool) -> T:
    """What `work` returns. A progress bar moves meanwhile if stderr is a terminal; errors end the command."""
    settings = settings_or_exit()
    logs.configure(level="error", style="console", redact=logs.redactor(*settings.secrets))
    done: list[T] = []

    async def run() -> None:
        from mj_mcp.app import open_studio  # noqa: PLC0415 - the settings are checked before anything heavy is imported
        from mj_mcp.server.progress import progress_of  # noqa: PLC0415 - as above
        from mj_mcp.studio import Call  # noqa: PLC0415 - as above

        async with open_studio(settings) as studio:
            with bar("waiting", on_stderr=True) if wait else nullcontext(None) as moved:

                async def on_progress(per_cent: float, words: str) -> None:
                    if moved:
                        moved(per_cent, words)

                call = Call(wait_seconds=wait, on_progress=progress_of(studio, on_progress))
                done.append(await work(studio, call, settings))

    try:
        run_until_signal(run())
    except MjError as failure:
        _fail_by(failure, as_json=as_json)
    if not done:
        fail("stopped; `mj-mcp tasks` shows what was submitted", 1)
    return done[0]


def end(task: Task, wait: float, *, as_json: bool) -> bool:
    """Print what is left to say of the task, and exit unless it has succeeded. True if all is printed already."""
    if as_json:
        print_json(asdict(task))
    if task.status is Status.FAILED:
        fail(f"task {task.handle} failed: {task.failure.message if task.failure else 'no reason is known'}", 1)
    if task.status is not Status.SUCCEEDED:
        if not as_json:
            print(f"task {task.handle} is {task.status}")
        if wait:
            fail("it has not finished. The same command waits on, and is not charged again", EXIT_OPEN)
        return True
    return as_json


def print_pictures(task: Task) -> None:
    """The task's id, and one line for each picture."""
    print(f"task {task.handle}")
    for image in task.images:
        print(f"{image.index}  {image.path or image.url}")


def print_json(value: Any) -> None:  # noqa: ANN401 - what JSON can hold
    """One line of JSON."""
    print(json.dumps(value, ensure_ascii=False, default=str))


def _fail_by(failure: MjError, *, as_json: bool) -> NoReturn:
    facts = {
        "code": failure.code,
        "message": failure.message,
        "retry_after_seconds": failure.retry_after_seconds,
        "submission_id": failure.submission_id,
    }
    if as_json:
        print_json({"error": {name: value for name, value in facts.items() if value is not None}})
    doubtful = isinstance(failure, Unconfirmed)
    more = f". `mj-mcp tasks show {failure.submission_id}` shows it" if doubtful else ""
    fail(failure.message + more, EXIT_UNCONFIRMED if doubtful else 1)
