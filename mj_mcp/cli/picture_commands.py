"""The commands that start from pictures: describe and blend. The same journal and rules as every submit.

Owns their words and exit codes. Prints.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict

import click

from mj_mcp import logs
from mj_mcp.cli.terminal import fail, run_until_signal, settings_or_exit
from mj_mcp.errors import MjError, Unconfirmed
from mj_mcp.settings import Settings
from mj_mcp.tasks import Status, Task

_OPTIONS = (
    click.option("--wait", default=600.0, show_default=True, type=click.FloatRange(0, 3600), help="Seconds to wait."),
    click.option("--json", "as_json", is_flag=True, help="Print the task as one JSON object."),
    click.option("--allow-duplicate", is_flag=True, help="Buy again what is open or was bought a moment ago."),
)


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("picture")
@_with_options
def describe(picture: str, wait: float, as_json: bool, allow_duplicate: bool) -> None:
    """Print four prompts that describe PICTURE: a file, or a picture of a task (TASK_ID#1). Costs money."""

    async def buy(settings: Settings) -> Task:
        from mj_mcp.app import open_studio  # noqa: PLC0415 - the settings are checked before anything heavy is imported

        async with open_studio(settings) as studio:
            return (await studio.by_hand.describe(picture, wait, allow_duplicate=allow_duplicate)).task

    task = _bought(buy)
    if _is_shown(task, wait, as_json=as_json):
        return
    print(task.prompt)


@click.command()
@click.argument("pictures", nargs=-1, required=True)
@_with_options
def blend(pictures: tuple[str, ...], wait: float, as_json: bool, allow_duplicate: bool) -> None:
    """Draw a grid from two to five PICTURES: files, or pictures of tasks (TASK_ID#1). Costs money."""
    if not 2 <= len(pictures) <= 5:
        raise click.UsageError("give 2 to 5 pictures")

    async def buy(settings: Settings) -> Task:
        from mj_mcp.app import open_studio  # noqa: PLC0415 - as above

        async with open_studio(settings) as studio:
            return (await studio.by_hand.blend(pictures, wait, allow_duplicate=allow_duplicate)).task

    task = _bought(buy)
    if _is_shown(task, wait, as_json=as_json):
        return
    print(f"task {task.handle}")
    for image in task.images:
        print(f"{image.index}  {image.path or image.url}")


def _bought(buy: Callable[[Settings], Awaitable[Task]]) -> Task:
    """The task of a submit, after the wait. Errors are printed in plain words."""
    settings = settings_or_exit()
    logs.configure(level="error", style="console", redact=logs.redactor(*settings.secrets))
    bought: list[Task] = []

    async def run() -> None:
        bought.append(await buy(settings))

    try:
        run_until_signal(run())
    except MjError as failure:
        more = f". `mj-mcp tasks show {failure.submission_id}` shows it" if isinstance(failure, Unconfirmed) else ""
        fail(failure.message + more, 1)
    if not bought:
        fail("stopped; `mj-mcp tasks` shows what was submitted", 1)
    return bought[0]


def _is_shown(task: Task, wait: float, *, as_json: bool) -> bool:
    """Whether everything is printed already. Exits with 1 unless the task has succeeded, or nobody wanted to wait."""
    if as_json:
        print(json.dumps(asdict(task), ensure_ascii=False))
    if task.status is Status.FAILED:
        fail(f"task {task.handle} failed: {task.failure.message if task.failure else 'no reason is known'}", 1)
    if task.status is not Status.SUCCEEDED:
        if not as_json:
            print(f"task {task.handle} is {task.status}")
        if wait:
            fail("it has not finished. The same command waits on, and is not charged again", 1)
        return True
    return as_json
