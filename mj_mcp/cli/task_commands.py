"""`mj-mcp tasks`: what was submitted, and how an unconfirmed submit is settled.

Owns their words and exit codes. Prints.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mj_mcp import logs
from mj_mcp.cli.terminal import fail, print_table, settings_or_exit, when
from mj_mcp.errors import MjError
from mj_mcp.journal import open_reader
from mj_mcp.settings import Settings
from mj_mcp.tasks import Status, Task

if TYPE_CHECKING:
    from mj_mcp.journal.reader import Reader, Row
    from mj_mcp.settlement import Settlement

T = TypeVar("T")

_ALL_ACCOUNTS = click.option(
    "--all-accounts", is_flag=True, help="Every account of the journal; so it is without a key."
)


@click.group(invoke_without_command=True)
@click.option(
    "--status",
    type=click.Choice([status.value for status in Status]),
    default=None,
    help="Only tasks with this status.",
)
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1), help="The number of tasks, newest first."
)
@_ALL_ACCOUNTS
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.pass_context
def tasks(context: click.Context, status: Status | None, limit: int, all_accounts: bool, as_json: bool) -> None:
    """List what was submitted, and settle unconfirmed submits. Needs no key to look."""
    if context.invoked_subcommand is not None:
        return
    from mj_mcp.journal.reader import Search  # noqa: PLC0415 - a start of the server does not pay for it

    settings = settings_or_exit(needs_key=False)
    every = all_accounts or not settings.has_key
    search = Search(status=Status(status) if status else None)
    found, _ = _reading(settings, lambda reader: reader.search(search, limit), every=every)
    if as_json:
        for row in found:
            print(_as_json(row))
    elif found:
        rows = [[*([row.account[:8]] if every else []), *_cells(row.task)] for row in found]
        print_table([*(["ACCOUNT"] if every else []), "SUBMITTED", "STATUS", "KIND", "OWNER", "ID", "PROMPT"], rows)
    else:
        print("No tasks.")


@tasks.command()
@click.argument("task_id")
@_ALL_ACCOUNTS
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def show(task_id: str, all_accounts: bool, as_json: bool) -> None:
    """Show all fields of one task, by its task id or submission id. Does not ask the proxy; needs no key."""
    settings = settings_or_exit(needs_key=False)
    every = all_accounts or not settings.has_key
    row = _reading(settings, lambda reader: reader.find(task_id), every=every)
    if as_json:
        print(_as_json(row))
        return
    for name, value in _fields(row).items():
        if value not in (None, (), ""):
            print(f"{name:16} {when(value) if name.endswith('_at') else _worded(value)}")


@tasks.command()
@click.argument("submission_id")
@click.argument("task_id")
def attach(submission_id: str, task_id: str) -> None:
    """Attach an unconfirmed submission to its task, as the proxy's records show. The task is fetched to check it."""
    task = _settling(lambda records: records.attach(submission_id, task_id))
    print(f"{submission_id} is task {task.task_id}; its status is {task.status}.")


@tasks.command()
@click.argument("submission_id")
def abandon(submission_id: str) -> None:
    """Abandon an unconfirmed submission, if the proxy's records show that it never became a task."""
    _settling(lambda records: records.abandon(submission_id))
    print(f"{submission_id} is abandoned; the same request can be submitted again.")


def _settling(work: Callable[[Settlement], Awaitable[T]]) -> T:
    """Run `work` on the account's submits."""
    from mj_mcp.app import open_settlement  # noqa: PLC0415 - only the commands that need it pay for it

    settings = settings_or_exit()

    async def run() -> T:
        async with open_settlement(settings) as records:
            return await work(records)

    return _said_plainly(settings, run())


def _reading(settings: Settings, work: Callable[[Reader], Awaitable[T]], *, every: bool) -> T:
    """Run `work` on the journal's rows: of `every` account, or of the one that the settings name."""

    async def run() -> T:
        url = settings.database_url.get_secret_value()
        async with aclosing(open_reader(url, settings.data_dir, None if every else settings.account)) as reader:
            return await work(reader)

    return _said_plainly(settings, run())


def _said_plainly(settings: Settings, work: Coroutine[Any, Any, T]) -> T:
    """Run it. Errors are printed in plain words."""
    logs.configure(level="error", style="console", redact=logs.redactor(*settings.secrets))
    try:
        return asyncio.run(work)
    except MjError as failure:
        fail(failure.message, 1)


def _fields(row: Row) -> dict[str, Any]:
    return {"account": row.account, **asdict(row.task)}


def _worded(value: Any) -> str:  # noqa: ANN401 - a field of a task
    """A field for a person, with one line for each item of a list; --json has all of it."""
    match value:
        case {"index": index, "path": path, "url": url}:
            return f"{index}  {path or url}"
        case {"code": code, "message": message}:
            return f"{code}: {message}"
        case tuple() | list():
            return f"\n{'':17}".join(map(_worded, value))
    return str(value)


def _as_json(row: Row) -> str:
    return json.dumps(_fields(row), ensure_ascii=False)


def _cells(task: Task) -> list[str]:
    prompt = (task.prompt or "").replace("\n", " ")
    return [when(task.submitted_at or task.updated_at), task.status, task.kind or "-", task.owner, task.handle, prompt]
