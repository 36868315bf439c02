"""The commands that make, list and revoke the tokens of `serve --http`.

Owns their words and exit codes. A token is printed once, when it is made.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from mj_mcp.auth.tokens import SCOPES, TokensError, add_token, read_tokens, revoke_token
from mj_mcp.cli.terminal import EXIT_SETTINGS, fail
from mj_mcp.settings import SettingsError, read_settings


@contextmanager
def _said_plainly() -> Iterator[Path]:
    """The token file, with errors in a person's words."""
    try:
        # No request goes to the proxy, so its key is not needed to give somebody a login.
        yield read_settings(api_key="none").token_file
    except SettingsError as failure:
        fail(str(failure), EXIT_SETTINGS)
    except TokensError as failure:
        fail(str(failure), 1)


@click.group()
def tokens() -> None:
    """Make, list and revoke the logins of `serve --http`. A running server notices at once."""


@tokens.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    default=SCOPES,
    show_default=True,
    help="What it allows; may be given twice. mj:read: use the server, see one's own tasks. mj:spend: buy.",
)
def add(name: str, scopes: tuple[str, ...]) -> None:
    """Make a token for NAME, whose tasks are NAME's, and show it once."""
    with _said_plainly() as path:
        token = add_token(path, name, scopes, now=time.time())
        print(token)
        print(f"This is the only time that the token of {name} is shown. Its hash is in {path}.", file=sys.stderr)


@tokens.command("list")
def list_() -> None:
    """List names and scopes. The tokens themselves are nowhere."""
    with _said_plainly() as path:
        found = read_tokens(path)
        for token in found:
            made = datetime.fromtimestamp(token.created_at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
            print(f"{made}  {token.name:24}  {' '.join(token.scopes)}")
        if not found:
            print("No tokens.")


@tokens.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Make the token of NAME useless. The tasks stay, for whoever gets a new token of that NAME."""
    with _said_plainly() as path:
        left = revoke_token(path, name)
        print(f"The token of {name} is revoked.")
        if not left:
            print(f"None is left, so nobody can use one until the next is made ({path} keeps the door closed).")
