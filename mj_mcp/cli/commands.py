"""The commands, and what they print.

Owns what it prints. `journal_commands.py`, `picture_commands.py` and `token_commands.py` have further commands,
`terminal.py` shared helpers.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import structlog

from mj_mcp import __version__, logs
from mj_mcp.cli.install import install, status, uninstall
from mj_mcp.cli.journal_commands import journal
from mj_mcp.cli.picture_commands import blend, describe
from mj_mcp.cli.terminal import EXIT_SETTINGS, fail, run_until_signal, settings_or_exit
from mj_mcp.cli.token_commands import tokens
from mj_mcp.errors import MjError
from mj_mcp.events import Observer
from mj_mcp.settings import Settings, SettingsError
from mj_mcp.settings.signals import read_signals
from mj_mcp.tasks import Status, Task
from mj_mcp.telemetry import exporting

if TYPE_CHECKING:
    from mj_mcp.settlement import Settlement
    from mj_mcp.simulator import DialectName

T = TypeVar("T")

log = structlog.get_logger("mj_mcp.cli.commands")

COLLECT_AFTER = 1_000
"""The number of new objects that triggers a garbage collection."""


def run() -> None:
    """`mj-mcp`. Never returns.

    The threads of obstore may still call into Python when a command ends, and an interpreter that is being taken down
    answers that with an abort (seen: exit code -6 on a busy machine). So after its use the process ends at once.
    """
    try:
        main()
    except SystemExit as end:
        if "obstore" not in sys.modules or not isinstance(end.code, int | None):
            raise
        print(end="", flush=True)
        sys.stderr.flush()
        os._exit(end.code or 0)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mj-mcp")
@click.pass_context
def main(context: click.Context) -> None:
    """Midjourney pictures for agents, over MCP. Without a command: serve over stdio."""
    if context.invoked_subcommand is None:
        _serve(_serving)


for command in (install, status, uninstall, journal, tokens):
    main.add_command(command)


main.add_command(describe)


main.add_command(blend)


@main.command()
@click.option("--http", "over_http", is_flag=True, help="Serve streamable HTTP at /mcp, with /healthz and /readyz.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen, with --http.")
@click.option("--port", default=8000, show_default=True, help="The port, with --http; 0 picks a free one.")
@click.option("--stateless", is_flag=True, help="With --http: no sessions, for several replicas behind one address.")
@click.option("--demo", "is_demo", is_flag=True, help="Use the built-in simulator: no key, no cost.")
def serve(over_http: bool, host: str, port: int, stateless: bool, is_demo: bool) -> None:
    """Serve over stdio (what a host starts), or over HTTP."""

    async def serving(settings: Settings, observe: Observer) -> None:
        if over_http:
            await _serving_http(settings, observe, host, port, stateless=stateless)
        else:
            await _serving(settings, observe)

    async def demo_serving(settings: Settings, observe: Observer) -> None:
        from mj_mcp.cli.demo import demo_settings  # noqa: PLC0415 - only a demo needs the simulator

        async with demo_settings(settings) as simulated:
            await serving(simulated, observe)

    _serve(demo_serving if is_demo else serving)


@main.command()
def doctor() -> None:
    """Check settings, network, key, journal, output folder, archive and logins. Costs nothing."""
    from mj_mcp.cli.doctor import run_checks  # noqa: PLC0415 - a start of the server does not pay for it

    settings = settings_or_exit()
    logs.configure(level="error", style="console", redact=logs.redactor(*settings.secrets))
    failed = False
    for check in asyncio.run(run_checks(settings)):
        failed = failed or not check.ok
        print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.said}")
    sys.exit(1 if failed else 0)


@main.command()
@click.argument("prompt", default="a lighthouse on a cliff at dusk --ar 3:2")
@click.option(
    "--out", type=click.Path(file_okay=False), default=None, help="The folder for the pictures. Default: mj-demo."
)
def demo(prompt: str, out: str | None) -> None:
    """Run a whole job with the built-in simulator: imagine, upscale, vary, reroll. Costs nothing."""
    from mj_mcp.cli.demo import Bar, run_demo  # noqa: PLC0415 - needs the client and the simulator, which serving does not

    def bar(label: str) -> AbstractContextManager[Bar]:
        return click.progressbar(length=100, label=label, show_eta=False)

    folder = Path(out or "mj-demo")
    try:
        run_until_signal(run_demo(prompt, folder, print, bar))
    except OSError as failure:
        fail(f"cannot write to {folder}: {failure.strerror or failure}", 1)


@main.command()
@click.option("--port", default=8765, show_default=True, help="Where to listen on 127.0.0.1.")
@click.option("--speed", default=1.0, show_default=True, help="How many times faster than real time jobs run.")
@click.option("--key", default="test-key", show_default=True, help="The API key that the simulator accepts.")
@click.option(
    "--dialect",
    type=click.Choice(["gateway", "classic", "plus", "newapi"]),
    default="gateway",
    show_default=True,
    help="Which Midjourney Proxy it plays.",
)
def simulate(port: int, speed: float, key: str, dialect: DialectName) -> None:
    """Run the simulator of the Midjourney Proxy alone, as a real HTTP server."""
    from mj_mcp.simulator import Simulator  # noqa: PLC0415 - as above

    async def run() -> None:
        async with Simulator(dialect=dialect, port=port, speed=speed, key=key) as simulator:
            print(f"A simulated Midjourney Proxy listens on {simulator.url}", file=sys.stderr)
            print(f"Try: MJ_BASE_URL={simulator.url} MJ_API_KEY={key} mj-mcp doctor", file=sys.stderr)
            await simulator.wait_closed()

    try:
        run_until_signal(run())
    except OSError as failure:
        fail(f"cannot listen on port {port}: {failure.strerror or failure}", 1)


@main.group(invoke_without_command=True)
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
        for task in page.tasks:
            print(_as_json(task) if as_json else _as_row(task))
        if not page.tasks and not as_json:
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
            print(f"{name:16} {value}")


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


def _as_row(task: Task) -> str:
    when = datetime.fromtimestamp(task.submitted_at or task.updated_at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    prompt = (task.prompt or "").replace("\n", " ")
    return f"{when}  {task.status:12} {task.kind or '-':9}  {task.owner:12}  {task.handle:36}  {prompt[:60]}"


def _serve(serving: Callable[[Settings, Observer], Coroutine[Any, Any, None]]) -> None:
    settings = settings_or_exit(needs_key=False)
    _set_up(settings)
    try:
        with exporting(read_signals()) as observe:
            run_until_signal(serving(settings, observe))
    except MjError as failure:  # before anything is served
        fail(failure.message, 1)


def _set_up(settings: Settings) -> None:
    gc.disable()  # until the server has started: what is created before is never garbage
    logs.configure(level=settings.log_level, style=settings.log_format, redact=logs.redactor(*settings.secrets))


async def _serving(settings: Settings, observe: Observer) -> None:
    from mj_mcp.app import open_studio  # noqa: PLC0415 - the settings are checked before anything heavy is imported
    from mj_mcp.server import build_server, serve_stdio  # noqa: PLC0415 - as above

    async with open_studio(settings, observe) as studio:
        server = build_server(studio, settings, observe)
        _collect_garbage()
        await serve_stdio(server)


async def _serving_http(settings: Settings, observe: Observer, host: str, port: int, *, stateless: bool) -> None:
    from mj_mcp.app import open_studio  # noqa: PLC0415 - as above
    from mj_mcp.server import build_server  # noqa: PLC0415 - as above
    from mj_mcp.server.bearer import bearer_auth_for  # noqa: PLC0415 - stdio does not pay for it
    from mj_mcp.server.http import http_app, listen, serve_http  # noqa: PLC0415 - as above
    from mj_mcp.server.links import Links, signing_secret  # noqa: PLC0415 - as above

    bearer_auth = bearer_auth_for(settings)
    try:
        listener = listen(host, port, settings, protected=bearer_auth.wants_login())
    except SettingsError as failure:
        fail(str(failure), EXIT_SETTINGS)
    except OSError as failure:
        fail(f"cannot listen on {host} port {port}: {failure.strerror or failure}", 1)
    try:
        secret = signing_secret(settings)
    except SettingsError as failure:
        fail(str(failure), EXIT_SETTINGS)
    except OSError as failure:
        fail(f"cannot write to {settings.data_dir}: {failure.strerror or failure}", 1)
    async with open_studio(settings, observe) as studio:
        links = Links(secret, studio, settings.public_url)
        server = build_server(studio, settings, observe, link=links.link, sessions=not stateless)
        beside = [links.route, *bearer_auth.routes]
        app = http_app(server, settings, studio, stateless=stateless, protect=bearer_auth.protect, beside=beside)
        _collect_garbage()
        await serve_http(app, listener, on_stop=studio.release)


def _collect_garbage() -> None:
    """Collect garbage again, but skip what the start has created: it lives as long as the process."""
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    gc.enable()
    log.debug("serving", frozen=gc.get_freeze_count())
