"""The commands for the journal: copy it to PostgreSQL, back it up, check it.

Owns their words and exit codes. Prints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from mj_mcp import logs
from mj_mcp.cli.terminal import fail, settings_or_exit
from mj_mcp.errors import MjError
from mj_mcp.settings import Settings
from mj_mcp.settings.pasted import passwords_in


@click.group()
def journal() -> None:
    """Copy, back up or check the journal, the record of every submit."""


@journal.command()
@click.option("--to", "target", required=True, help="postgresql://user:password@host/database")
def copy(target: str) -> None:
    """Copy the SQLite journal into PostgreSQL and compare the copy. No server may be running on it."""
    settings = settings_or_exit(needs_key=False)
    if not target.startswith(("postgresql://", "postgres://")):
        fail("--to must begin with postgresql://; `mj-mcp journal backup` makes a copy as a file", 2)
    with _in_words(settings, target):
        from mj_mcp.journal.to_postgres import move_to_postgres  # noqa: PLC0415 - needs the driver, which is an extra

        for table, rows in move_to_postgres(settings.data_dir, target).items():
            print(f"{table}: {rows} rows copied and compared")
    print("Set MJ_DATABASE_URL to use it. The SQLite file is unchanged.")


@journal.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(file: Path) -> None:
    """Make a consistent copy of the SQLite journal in a new FILE. Servers may keep running."""
    settings = settings_or_exit(needs_key=False)
    if settings.database_url.get_secret_value():
        fail("the journal is in PostgreSQL: back it up with pg_dump, while servers keep running", 1)
    with _in_words(settings):
        from mj_mcp.journal.admin import back_up  # noqa: PLC0415 - a start of the server does not pay for it

        print(f"{file}: {back_up(settings.data_dir, file)} rows")


@journal.command()
def check() -> None:
    """Check that every row can be read and is consistent. Changes nothing; exits 1 if there are faults."""
    settings = settings_or_exit(needs_key=False)
    url = settings.database_url.get_secret_value()
    with _in_words(settings):
        from mj_mcp.journal.admin import check_database, check_file  # noqa: PLC0415 - as above

        rows, faults = check_database(url) if url else check_file(settings.data_dir)
    for fault in faults:
        print(f"FAIL  {fault}")
    print(f"{rows} rows, " + (f"{len(faults)} faults" if faults else "no faults"))
    sys.exit(1 if faults else 0)


@contextmanager
def _in_words(settings: Settings, url: str = "") -> Iterator[None]:
    """Prints errors in plain words, without a password."""
    redact = logs.redactor(*settings.secrets, *passwords_in(url))
    logs.configure(level="error", style="console", redact=redact)
    try:
        yield
    except MjError as failure:
        fail(redact(failure.message), 1)
    except ImportError:
        fail("PostgreSQL needs the extra [postgres]: pip install 'mj-mcp[postgres]'", 1)
