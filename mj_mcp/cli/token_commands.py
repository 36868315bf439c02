"""The commands that create, list and revoke the tokens of `serve --http`.

Owns their words and exit codes. A token is printed once, when it is created.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from mj_mcp.auth.tokens import SCOPES, TokensError, add_token, read_tokens, revoke_token
from mj_mcp.cli.terminal import EXIT_SETTINGS, fail, print_table, when
from mj_mcp.settings import SettingsError, read_settings


@contextmanager
def _said_plainly() -> Iterator[Path]:
    """The token file. Errors are printed in plain words."""
    try:
        # Nothing is sent to the proxy, so creating a login needs no key.
        yield read_settings(api_key="none").token_file
    except SettingsError as failure:
        fail(str(failure), EXIT_SETTINGS)
    except TokensError as failure:
        fail(str(failure), 1)


@click.group()
def tokens() -> None:
    """Create, list and revoke the logins of `serve --http`. A running server notices at once."""


@tokens.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    default=SCOPES,
    show_default=True,
    help="What it allows; may be given twice. mj:read: use the server and see one's own tasks. mj:spend: submit.",
)
def add(name: str, scopes: tuple[str, ...]) -> None:
    """Create a token for NAME and show it once. Its tasks belong to NAME."""
    with _said_plainly() as path:
        token = add_token(path, name, scopes, now=time.time())
        print(token)
        print(f"The token of {name} is shown only once, now. Its hash is in {path}.", file=sys.stderr)


@tokens.command("list")
def list_() -> None:
    """List names and scopes. The tokens themselves are not stored."""
    with _said_plainly() as path:
        found = read_tokens(path)
        if found:
            rows = [[when(token.created_at), token.name, " ".join(token.scopes)] for token in found]
            print_table(["CREATED", "NAME", "SCOPES"], rows)
        else:
            print("No tokens.")


@tokens.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Revoke the token of NAME. Its tasks are kept; a new token of that NAME sees them."""
    with _said_plainly() as path:
        left = revoke_token(path, name)
        print(f"The token of {name} is revoked.")
        if not left:
            print(f"No token is left, so nobody can log in until you create one ({path} keeps logins required).")
