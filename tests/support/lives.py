"""Servers that can be killed, and the journal's file as it is: what the tests about money share.

A life is the real server on pipes through the SDK's client, whose process id we know. The rows are read from the
file itself, read-only, past the program under test.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
from conftest import Caller, environment, error_of
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult

from mj_mcp.simulator import Charge, Simulator

PATIENCE = 30.0
"""Seconds. What takes longer on however busy a machine is a defect."""


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another process or task does."""
    with anyio.fail_after(PATIENCE):
        while not await anyio.to_thread.run_sync(condition):  # noqa: ASYNC110 - there is no event to wait for
            await anyio.sleep(0.02)


_REMEMBER_PID = 'echo $$ >"$0"; exec "$@"'


class Life(Caller):
    """A server process from its start to its death."""

    def __init__(self, client: Client, log: Path, pid: int) -> None:
        super().__init__(client, log)
        self.pid = pid

    def kill(self) -> None:
        """As a power cut would."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    async def call_or_die(self, tool: str, **arguments: Any) -> CallToolResult | None:
        """A call whose server may die; None when it did."""
        try:
            with anyio.fail_after(PATIENCE):
                return await self.call(tool, **arguments)
        except MCPError:
            return None


@asynccontextmanager
async def live(sim: Simulator, home: Path, name: str = "server", **extra: str) -> AsyncIterator[Life]:
    """One life on the data folder in `home`."""
    pid_file, log = home / f"{name}.pid", home / f"{name}.log"
    pid_file.unlink(missing_ok=True)
    parameters = StdioServerParameters(
        command="sh",
        args=["-c", _REMEMBER_PID, str(pid_file), sys.executable, "-m", "mj_mcp"],
        env=environment(sim.url, home, **extra),
    )
    with log.open("a") as errlog:
        async with Client(stdio_client(parameters, errlog=errlog), mode="2026-07-28") as client:
            with anyio.fail_after(PATIENCE):
                await client.list_tools()  # it runs: this protocol has no handshake that would tell
            yield Life(client, log, int(pid_file.read_text()))


def rows(home: Path) -> list[dict[str, Any]]:
    """Every row of the journal in the order of submission: its body, and who holds it."""
    path = home / "data" / "journal.db"
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=PATIENCE)) as db:
        try:
            found = db.execute("SELECT body, holder FROM tasks ORDER BY number").fetchall()
        except sqlite3.OperationalError:
            return []  # killed before it had made its tables
    return [json.loads(body) | {"holder": holder} for body, holder in found]


Subject = tuple[str, str, int | None]
"""What a request buys: its kind, the prompt or the parent's id, and the index. Shorthand buys the same."""

_KINDS = {"UPSCALE": "upscale", "VARIATION": "variation", "REROLL": "reroll"}
_LETTERS = {"U": "upscale", "V": "variation", "R": "reroll"}
_BUTTON = re.compile(r"MJ::JOB::(upsample|variation|reroll)::(\d)")
_OF_BUTTON = {"upsample": "upscale", "variation": "variation", "reroll": "reroll"}


def subject_of(charge: Charge) -> Subject:
    """What this charge was for."""
    body = charge.body
    match charge.endpoint:
        case "imagine":
            return "imagine", str(body["prompt"]), None
        case "change":
            kind = _KINDS[body["action"]]
            return kind, str(body["taskId"]), None if kind == "reroll" else body.get("index")
        case "action":
            pressed = _BUTTON.match(str(body["customId"]))
            assert pressed is not None, body
            return _OF_BUTTON[pressed[1]], str(body["taskId"]), int(pressed[2]) or None
    parent, verb = str(body["content"]).split()
    return _LETTERS[verb[0]], parent, int(verb[1:]) if verb[1:] else None


def rows_of(home: Path, charge: Charge) -> list[dict[str, Any]]:
    """The rows that this charge can be for."""
    wanted = subject_of(charge)
    return [
        row
        for row in rows(home)
        if (row["kind"], row["prompt"] if row["kind"] == "imagine" else row["parent_id"], row["index"]) == wanted
    ]


def broken_promises(sim: Simulator, home: Path) -> list[str]:
    """M1 to M3 as they stand: the ledger against the journal."""
    paid = Counter(subject_of(charge) for charge in sim.ledger)
    broken = [f"charged {times} times: {subject}" for subject, times in paid.items() if times > 1]
    for charge in sim.ledger:
        found = rows_of(home, charge)
        if not found:
            broken.append(f"charged without a row: {charge.body}")
        # A refused request may be made again, and then has two rows: one of them must stand for the charge.
        elif all(row["status"] in WRONG for row in found):
            broken.append(f"charged, yet {found[-1]['status']}: {charge.body}")
    return broken


WRONG = {"failed", "refused"}
"""What no charged submit may ever be called, unless the job itself failed."""


def outcome_of(result: CallToolResult) -> str:
    """The status that a result shows, or the code of its error."""
    if result.is_error:
        return str(error_of(result)["code"])
    assert isinstance(result.structured_content, dict)
    return str(result.structured_content["status"])


@contextmanager
def journal_file(home: Path) -> Iterator[sqlite3.Connection]:
    """The journal's file, to be changed past the server."""
    with closing(sqlite3.connect(home / "data" / "journal.db", timeout=PATIENCE)) as db, db:
        yield db
