"""The journal: every submit, recorded before it is paid for.

`Journal` is the protocol; `open_journal` picks the engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mj_mcp.errors import StorageUnavailable
from mj_mcp.journal.engine import Engine
from mj_mcp.journal.protocol import UNREAD, Claim, Journal, Limits, Page, QueueSlot, Usage

if TYPE_CHECKING:
    from mj_mcp.journal.reader import Reader

__all__ = ["UNREAD", "Claim", "Journal", "Limits", "Page", "QueueSlot", "Usage", "open_journal", "open_reader"]


def open_journal(url: str, data_dir: Path, account: str) -> Journal:
    """The journal of `account` at `url` ("" for SQLite in `data_dir`). Nothing is opened before the first use.

    Raises:
        StorageUnavailable: the driver that `url` needs is not installed, or cannot read it.
    """
    from mj_mcp.journal.sql import SqlJournal  # noqa: PLC0415 - a start that only reads settings does not need it

    return SqlJournal(_engine(url, data_dir), account)


def open_reader(url: str, data_dir: Path, account: str | None) -> Reader:
    """The same journal, only to be read; of every account where `account` is None. Raises like `open_journal`."""
    from mj_mcp.journal.reader import Reader  # noqa: PLC0415 - only `browse` needs it

    return Reader(_engine(url, data_dir), account)


def _engine(url: str, data_dir: Path) -> Engine:
    if not url:
        from mj_mcp.journal.sqlite import Sqlite  # noqa: PLC0415 - the engine that is not used is not imported

        return Sqlite(data_dir)
    try:
        from mj_mcp.journal.postgres import Postgres  # noqa: PLC0415 - as above
    except ImportError as failure:
        raise StorageUnavailable(
            "MJ_DATABASE_URL needs the extra [postgres]: pip install 'mj-mcp[postgres]'"
        ) from failure
    return Postgres(url)
