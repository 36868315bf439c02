"""`mj-mcp browse`: everything made, and from what, as a page on this machine.

Owns what the command prints and how it ends. The page and its answers are in `server/views`.
"""

from __future__ import annotations

import asyncio
import webbrowser
from contextlib import AsyncExitStack

import click

from mj_mcp import logs
from mj_mcp.cli.terminal import fail, run_until_signal, settings_or_exit
from mj_mcp.settings import Settings


@click.command()
@click.option("--port", default=0, show_default=True, help="Where to listen on 127.0.0.1; 0 picks a free one.")
@click.option("--no-open", is_flag=True, help="Only print the link; open no browser.")
@click.option("--all-accounts", is_flag=True, help="Every account of the journal, to look at only.")
def browse(port: int, no_open: bool, all_accounts: bool) -> None:
    """Look at everything made so far in the browser: search, lineage, jobs per day. Needs no key to look."""
    settings = settings_or_exit(needs_key=False)
    logs.configure(level="error", style="console", redact=logs.redactor(*settings.secrets))
    try:
        run_until_signal(_browsing(settings, port, opens=not no_open, every=all_accounts or not settings.has_key))
    except OSError as failure:
        fail(f"cannot listen on 127.0.0.1 port {port}: {failure.strerror or failure}", 1)


async def _browsing(settings: Settings, port: int, *, opens: bool, every: bool) -> None:
    from mj_mcp.app import open_library, open_studio  # noqa: PLC0415 - only this command pays for it
    from mj_mcp.server import build_server  # noqa: PLC0415 - as above
    from mj_mcp.server.http import listen, serve_http  # noqa: PLC0415 - as above
    from mj_mcp.server.views import page  # noqa: PLC0415 - as above

    # What `serve --http` may allow beside this machine is not for this page.
    local = settings.model_copy(
        update={"public_url": "", "http_allowed_hosts": frozenset(), "http_allowed_origins": frozenset()}
    )
    listener = listen("127.0.0.1", port, local, protected=False)
    async with AsyncExitStack() as stack:
        library = await stack.enter_async_context(open_library(settings, every_account=every))
        answer, release = page.answer_from_library(library), None
        if not every:
            studio = await stack.enter_async_context(open_studio(settings))
            client = await stack.enter_async_context(page.connected(build_server(studio, settings)))
            answer, release = page.answer_from_server(client), studio.release
        token = page.new_token()
        link = f"http://127.0.0.1:{listener.getsockname()[1]}/#{token}"
        print(f"Your pictures: {link}\nThe link works once. {_may(every=every)} Ctrl-C ends it.", flush=True)
        if opens:
            await asyncio.to_thread(webbrowser.open, link)
        await serve_http(page.browse_app(library, local, token, answer), listener, on_stop=release or (lambda: None))


def _may(*, every: bool) -> str:
    return "The page only shows." if every else "Upscale, vary and reroll there cost money, each after a question."
