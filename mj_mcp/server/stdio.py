"""MCP over stdin and stdout on asyncio pipes.

Owns the two pipes while it serves. Reads and writes happen on the event loop itself, without the thread of
the SDK's own transport: a call is cheaper, and the process ends cleanly on EOF and on signals. What is no
pipe (a terminal, a file, Windows) is served by the SDK's own transport.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from anyio import BrokenResourceError, ClosedResourceError
from mcp.server.mcpserver import MCPServer
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

CHUNK_BYTES = 1 << 16

UNREAD_BYTES = 4 << 20
"""What a client leaves unread before nothing more is taken from it. A client that writes many requests before it reads
the first answer must not meet a server that waits for it in turn; hence not less."""


class _Stream:
    """What the SDK asks of either side."""

    async def aclose(self) -> None:
        return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Incoming(_Stream):
    """Messages, one a line, of any size. Back-pressure: nothing is read while the client leaves our answers unread."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._lines: list[bytes] = []
        self._rest: list[bytes] = []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        if self._lines:
            await asyncio.sleep(0)  # a thousand messages that came at once do not hold up those who are at work
        try:
            await self._writer.drain()
        except ConnectionError:
            raise StopAsyncIteration from None  # nobody is there to answer to
        while not self._lines:
            chunk = await self._reader.read(CHUNK_BYTES)
            if not chunk:
                raise StopAsyncIteration
            first, *others = chunk.split(b"\n")
            self._rest.append(first)
            if others:
                whole = [b"".join(self._rest), *others[:-1]]
                self._lines = [line for line in reversed(whole) if line.strip()]
                self._rest = [others[-1]]
        try:
            return SessionMessage(jsonrpc_message_adapter.validate_json(self._lines.pop(), by_name=False))
        except ValueError as failure:
            return failure

    async def receive(self) -> SessionMessage | Exception:
        return await self.__anext__()


class _Outgoing(_Stream):
    """Messages, one a line. Back-pressure: `send` waits while the other side does not read."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def send(self, item: SessionMessage) -> None:
        line = jsonrpc_message_adapter.dump_json(item.message, by_alias=True, exclude_unset=True)
        try:
            self._writer.write(line + b"\n")
            await self._writer.drain()
        except ConnectionError:
            raise BrokenResourceError from None


@asynccontextmanager
async def _pipes() -> AsyncIterator[tuple[_Incoming, _Outgoing]]:
    """Take descriptors 0 and 1 for the protocol; whoever else reads or prints meets the null device and stderr."""
    loop = asyncio.get_running_loop()
    stdin, stdout = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    reader = asyncio.StreamReader(limit=CHUNK_BYTES)
    source, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(stdin, "rb", buffering=0)
    )
    sink, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(stdout, "wb", buffering=0)
    )
    sink.set_write_buffer_limits(high=UNREAD_BYTES)
    writer = asyncio.StreamWriter(sink, protocol, None, loop)
    try:
        yield _Incoming(reader, writer), _Outgoing(writer)
    finally:
        source.close()
        sink.close()


def _is_pipe(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


async def serve_stdio(server: MCPServer[Any]) -> None:
    """Serve one client over stdin and stdout until it leaves."""
    ours = sys.platform != "win32" and _is_pipe(0) and _is_pipe(1)
    inner = server._lowlevel_server  # noqa: SLF001 - the SDK offers no public way to serve over given streams
    async with _pipes() if ours else stdio_server() as (incoming, outgoing):
        try:
            await inner.run(incoming, outgoing, inner.create_initialization_options())
        except ExceptionGroup as group:
            # A message that arrives as a signal ends the server finds the SDK's inner streams closed.
            if group.split((BrokenResourceError, ClosedResourceError))[1] is not None:
                raise
