"""`mj-mcp tasks`: what was submitted, and how an unconfirmed submit is settled.

Owns their words and exit codes. Prints.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

import click

from mj_mcp import logs
from mj_mcp.cli.terminal import fail, print_table, settings_or_exit, when
from mj_mcp.errors import MjError
from mj_mcp.tasks import Status, Task

if TYPE_CHECKING:
    from mj_mcp.settlement import Settlement

T = TypeVar("T")


@click.group(invoke_without_command=True)
@click.option(
    "--status",
    type=click.Choice([status.value for status in Status]),
    default=None,
    help="Only tasks with this status.",
)
@click.option("--limit", default=20, show_default=True, help="The number of tasks, newest first.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.pass_context
def tasks(context: click.Context, status: Status | None, limit: int, as_json: bool) -> None:
    """List what was submitted, and settle unconfirmed submits."""
    if context.invoked_subcommand is None:
        wanted = Status(status) if status else None

        page = _with_records(lambda records: records.page(wanted, limit))
        if as_json:
            for task in page.tasks:
                print(_as_json(task))
        elif page.tasks:
            print_table(["SUBMITTED", "STATUS", "KIND", "OWNER", "ID", "PROMPT"], [_row(task) for task in page.tasks])
        else:
            print("No tasks.")


@tasks.command()
@click.argument("task_id")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def show(task_id: str, as_json: bool) -> None:
    """Show all fields of one task, by its task id or submission id. Does not ask the proxy."""
    task = _with_records(lambda records: records.find(task_id))
    if as_json:
        print(_as_json(task))
        return
    for name, value in asdict(task).items():
        if value not in (None, (), ""):
            print(f"{name:16} {when(value) if name.endswith('_at') else value}")


@tasks.command()
@click.argument("submission_id")
@click.argument("task_id")
def attach(submission_id: str, task_id: str) -> None:
    """Attach an unconfirmed submission to its task, as the proxy's records show. The task is fetched to check it."""
    task = _with_records(lambda records: records.attach(submission_id, task_id))
    print(f"{submission_id} is task {task.task_id}; its status is {task.status}.")


@tasks.command()
@click.argument("submission_id")
def abandon(submission_id: str) -> None:
    """Abandon an unconfirmed submission, if the proxy's records show that it never became a task."""
    _with_records(lambda records: records.abandon(submission_id))
    print(f"{submission_id} is abandoned; the same request can be submitted again.")


def _with_records(work: Callable[[Settlement], Awaitable[T]]) -> T:
    """Run `work` on the journal. Errors are printed in plain words."""
    from mj_mcp.app import open_settlement  # noqa: PLC0415 - only the commands that need it pay for it

    settings = settings_or_exit()
    logs.configure(level="error", style="console", redact=logs.redactor(*settings.secrets))

    async def run() -> T:
        async with open_settlement(settings) as records:
            return await work(records)

    try:
        return asyncio.run(run())
    except MjError as failure:
        fail(failure.message, 1)


def _as_json(task: Task) -> str:
    return json.dumps(asdict(task), ensure_ascii=False)


def _row(task: Task) -> list[str]:
    prompt = (task.prompt or "").replace("\n", " ")
    return [when(task.submitted_at or task.updated_at), task.status, task.kind or "-", task.owner, task.handle, prompt]
