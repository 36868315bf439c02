"""The commands for what was bought: wait for tasks, save their pictures, see what was used. They cost nothing.

Owns their words.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mj_mcp.cli.purchases import AS_JSON, EXIT_CODES, EXIT_OPEN, WAIT, print_json, print_pictures, with_studio
from mj_mcp.cli.terminal import fail
from mj_mcp.tasks import LOCAL_OWNER, Status

if TYPE_CHECKING:
    from mj_mcp.journal import Usage
    from mj_mcp.settings import Settings
    from mj_mcp.studio import Call, Studio
    from mj_mcp.studio.several import Awaited


@click.command(epilog=EXIT_CODES)
@click.argument("task_ids", nargs=-1, required=True)
@click.option("--any", "until_any", is_flag=True, help="Until one of them has ended, instead of all.")
@WAIT
@AS_JSON
def wait(task_ids: tuple[str, ...], until_any: bool, wait: float, as_json: bool) -> None:
    """Wait until tasks have ended, and print each: one JSON object per line with --json. Free."""

    async def waited(studio: Studio, call: Call, _settings: Settings) -> Awaited:
        return await studio.several.wait_for_all(call, task_ids, until_any=until_any)

    found = with_studio(waited, wait, as_json=as_json)
    for task in found.tasks:
        if as_json:
            print_json(asdict(task))
        elif task.status is Status.SUCCEEDED:
            print_pictures(task)
        else:
            print(f"task {task.handle} is {task.status}" + (f": {task.failure.message}" if task.failure else ""))
    if found.unknown:
        fail(f"nobody knows {', '.join(found.unknown)}", 1)
    ended = [task.status for task in found.tasks if not task.is_moving]
    if any(status is not Status.SUCCEEDED for status in ended):
        sys.exit(1)
    if len(ended) < (1 if until_any else len(found.tasks)):
        sys.exit(EXIT_OPEN)


@click.command(epilog=EXIT_CODES)
@click.argument("task_id")
@click.option("--index", "indexes", multiple=True, type=click.IntRange(1, 16), help="Which picture. Default: all.")
@click.option("--folder", help="A folder inside MJ_OUTPUT_DIR.")
@click.option("--name", help="What the files are called. Default: the task's id.")
@AS_JSON
def save(task_id: str, indexes: tuple[int, ...], folder: str | None, name: str | None, as_json: bool) -> None:
    """Save a finished task's full-size pictures, and print their paths. Free."""

    async def saved(studio: Studio, call: Call, _settings: Settings) -> list[dict[str, Any]]:
        _, files = await studio.save(call, task_id, list(indexes) or None, folder, name)
        return [asdict(file) for file in files]

    for file in with_studio(saved, as_json=as_json):
        if as_json:
            print_json(file)
        else:
            print(file["path"])


@click.command()
@AS_JSON
def usage(as_json: bool) -> None:
    """Show what was submitted today and in 7 days, and what is left of the limits. Free."""

    async def used(studio: Studio, _call: Call, _settings: Settings) -> Usage:
        return await studio.usage(LOCAL_OWNER)

    found = with_studio(used, as_json=as_json)
    from mj_mcp.server.render import usage_result  # noqa: PLC0415 - after the work

    facts = usage_result(found).structured_content or {}
    if as_json:
        print_json({name: value for name, value in facts.items() if name != "message"})
    else:
        print(facts["message"])
