"""The commands, and what they print.

Owns what it prints. `install.py` and the `..._commands.py` have further commands, `terminal.py` shared helpers.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import structlog

from mj_mcp import logs
from mj_mcp.cli.browse import browse
from mj_mcp.cli.install import install, status, uninstall
from mj_mcp.cli.journal_commands import journal
from mj_mcp.cli.picture_commands import blend, describe, imagine, reroll, upscale, vary
from mj_mcp.cli.result_commands import save, usage, wait
from mj_mcp.cli.task_commands import tasks
from mj_mcp.cli.terminal import (
    EXIT_SETTINGS,
    Check,
    bar,
    fail,
    print_checks,
    program,
    run_until_signal,
    settings_or_exit,
    unknown_settings,
)
from mj_mcp.cli.token_commands import tokens
from mj_mcp.errors import MjError
from mj_mcp.events import Observer
from mj_mcp.settings import Settings, SettingsError, read_settings
from mj_mcp.settings.signals import read_signals
from mj_mcp.telemetry import exporting

if TYPE_CHECKING:
    from mj_mcp.simulator import DialectName

log = structlog.get_logger("mj_mcp.cli.commands")

COLLECT_AFTER = (1_000, 10, 1_000)
"""Garbage collection of the three generations: new objects, collections of the first, collections of the second.

A full collection stops the event loop for 0.15 s while 1,000 callers wait, and finds little: after 15,000 calls and
1,600 waits 8,000 objects. At 1,000 it comes every 190,000 calls. The memory of a long day: `benchmarks/README.md`.
"""


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


EXAMPLES = """\b
Examples:
  mj-mcp demo                          a whole job with the built-in simulator: no key, no cost
  mj-mcp install claude-code --demo    the simulator in a host; without --demo, your proxy
  mj-mcp doctor                        checks the settings, the proxy and the key; costs nothing
  mj-mcp imagine "a red mug"           draws from the command line; costs money
"""

WAITING = """mj-mcp waits for a host on this terminal. Hosts like Claude Desktop or Cursor start it themselves:

  mj-mcp install HOST    connects a host; --list shows them
  mj-mcp demo            shows a whole job now, without a key or costs
  mj-mcp --help          shows all commands

Press Ctrl-C to end it."""


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXAMPLES)
@click.version_option(package_name="mj-mcp", prog_name="mj-mcp")
@click.pass_context
def main(context: click.Context) -> None:
    """Midjourney pictures for agents, over MCP. Without a command: serve over stdio."""
    if context.invoked_subcommand is None:
        _say_who_waits()
        _serve(_serving)


BUYING = (imagine, upscale, vary, reroll, describe, blend)

for command in (install, status, uninstall, *BUYING, wait, save, usage, browse, tasks, journal, tokens):
    main.add_command(command)


@main.command()
@click.option("--http", "over_http", is_flag=True, help="Serve streamable HTTP at /mcp, with /healthz and /readyz.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen, with --http.")
@click.option("--port", default=8000, show_default=True, help="The port, with --http; 0 picks a free one.")
@click.option("--stateless", is_flag=True, help="With --http: no sessions, for several replicas behind one address.")
@click.option("--demo", "is_demo", is_flag=True, help="Use the built-in simulator: no key, no cost.")
def serve(over_http: bool, host: str, port: int, stateless: bool, is_demo: bool) -> None:
    """Serve over stdio (what a host starts), or over HTTP."""
    if not over_http:
        _say_who_waits()

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

    try:
        settings = read_settings()
    except SettingsError as failure:
        checks = [Check("settings", ok=False, said=problem) for problem in failure.problems]
        checks.append(Check("others", ok=None, said="they need usable settings"))
    else:
        logs.configure(level="error", style="console", redact=logs.redactor(*settings.secrets))
        checks = asyncio.run(run_checks(settings))
    misspelt = [Check("settings", ok=None, said=f"{words}; it is ignored") for words in unknown_settings()]
    print_checks([*misspelt, *checks])
    if any(check.ok is False for check in checks):
        print(
            f"\nCorrect what failed, and run `{program()} doctor` again."
            f" To see pictures without a proxy: {program()} demo"
        )
        sys.exit(1)
    print(f"\nConnect it: {program()} install HOST (`{program()} install --list` shows the hosts)")


@main.command()
@click.argument("prompt", default="a lighthouse on a cliff at dusk --ar 3:2")
@click.option(
    "--out", type=click.Path(file_okay=False), default=None, help="The folder for the pictures. Default: mj-demo."
)
def demo(prompt: str, out: str | None) -> None:
    """Run a whole job with the built-in simulator: imagine, upscale, vary, reroll. Costs nothing."""
    from mj_mcp.cli.demo import run_demo  # noqa: PLC0415 - needs the client and the simulator, which serving does not

    folder = Path(out or "mj-demo")
    try:
        run_until_signal(run_demo(prompt, folder, print, bar))
    except OSError as failure:
        fail(f"cannot write to {folder}: {failure.strerror or failure}", 1)
    print(f"\nConnect it: {program()} install HOST --demo, then without --demo (`install --list` shows the hosts)")


@main.command()
@click.option("--port", default=8765, show_default=True, help="Where to listen on 127.0.0.1.")
@click.option("--speed", default=1.0, show_default=True, help="How many times faster than real time jobs run.")
@click.option("--key", default="test-key", show_default=True, help="The API key that the simulator accepts.")
@click.option(
    "--dialect",
    type=click.Choice(["gateway", "classic", "plus", "newapi", "job"]),
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
            print(
                f"Try: MJ_BASE_URL={simulator.url} MJ_API_KEY={key} MJ_PROXY_DIALECT={dialect} {program()} doctor",
                file=sys.stderr,
            )
            await simulator.wait_closed()

    try:
        run_until_signal(run())
    except OSError as failure:
        fail(f"cannot listen on port {port}: {failure.strerror or failure}", 1)


def _serve(serving: Callable[[Settings, Observer], Coroutine[Any, Any, None]]) -> None:
    settings = settings_or_exit(needs_key=False)
    _set_up(settings)
    try:
        with exporting(read_signals()) as observe:
            run_until_signal(serving(settings, observe))
    except MjError as failure:  # before anything is served
        fail(failure.message, 1)


def _say_who_waits() -> None:
    """On a terminal: what this is, and what a person probably wants."""
    if sys.stdin.isatty():
        print(WAITING, file=sys.stderr)


def _set_up(settings: Settings) -> None:
    gc.disable()  # until the server has started: what is created before is never garbage
    logs.configure(level=settings.log_level, style=settings.log_format, redact=logs.redactor(*settings.secrets))
    for words in unknown_settings():
        log.warning("unknown_setting", said=words)


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
    gc.set_threshold(*COLLECT_AFTER)
    gc.enable()
    log.debug("serving", frozen=gc.get_freeze_count())
