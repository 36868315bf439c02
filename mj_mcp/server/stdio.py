"""MCP over stdin and stdout on asyncio pipes.

Owns the two pipes while it serves, and answers every line that is not a message. Reads and writes happen on the event
loop itself, without the thread of the SDK's own transport: a call costs less, and the process ends cleanly on EOF and
on signals. If stdin or stdout is a file, and on Windows, the SDK's own transport serves it.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Self

from anyio import BrokenResourceError, ClosedResourceError
from mcp.server.mcpserver import MCPServer
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import (
    INVALID_REQUEST,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCRequest,
)
from pydantic import ValidationError

from mj_mcp.server.jsonrpc import Read, read, refusal, write

CHUNK_BYTES = 1 << 16

LINE_BYTES = 8 << 20
"""The longest line. Parsing a line blocks everything else: 0.02 s at this length for ordinary text, 1 s for a line
made to be slow."""

UNREAD_BYTES = 4 << 20
"""How many unread bytes a client may have before we stop reading from it. Some clients write many requests before they
read the first answer; a lower limit would block both sides."""


Source = AsyncIterator[Read | JSONRPCError]
"""Messages of the client, or the errors to answer invalid ones with."""

Send = Callable[[SessionMessage], Coroutine[Any, Any, None]]
"""Write one message. Waits while the client does not read.

Raises:
    BrokenResourceError: the client has gone.
"""


class _Stream:
    """The interface that the SDK needs on either side."""

    async def aclose(self) -> None:
        return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Outgoing(_Stream):
    """The SDK's output. It stays open when the SDK has finished with one protocol generation."""

    def __init__(self, send: Send) -> None:
        self.send = send


class _Incoming(_Stream):
    """The SDK's input: messages only. An invalid line is answered here.

    The SDK fixes the protocol generation of a connection by its first request and refuses the other one afterwards. A
    client that gets no answer to `server/discover` starts again with `initialize`. So that message ends the SDK's
    input; the next reader gets the `initialize` first.
    """

    def __init__(self, source: Source, outgoing: _Outgoing) -> None:
        self.ended = False
        self._source = source
        self._outgoing = outgoing
        self._discovering: bool | None = None  # whether only `server/discover` has come so far; None: no message yet
        self._kept: SessionMessage | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage:
        if self._kept is not None:
            item, self._kept = self._kept, None
            return item
        item = SessionMessage(await self._message())
        if self._starts_anew(item.message):
            self._kept = item
            raise StopAsyncIteration
        return item

    async def receive(self) -> SessionMessage:
        return await self.__anext__()

    async def _message(self) -> JSONRPCMessage:
        try:
            async for found in self._source:
                if isinstance(found, Read):
                    return found.message
                await self._outgoing.send(SessionMessage(found))
        except (BrokenResourceError, ClosedResourceError):
            pass  # the client has gone
        self.ended = True
        raise StopAsyncIteration

    def _starts_anew(self, message: JSONRPCMessage) -> bool:
        if not isinstance(message, JSONRPCRequest):
            return False
        anew = message.method == "initialize" and self._discovering is True
        self._discovering = message.method == "server/discover" and self._discovering is not False
        return anew


async def _lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Source:
    """Lines as they arrive. Nothing is read while the client leaves our answers unread."""
    rest = bytearray()
    try:
        while chunk := await reader.read(CHUNK_BYTES):
            first, *others = chunk.split(b"\n")
            if len(rest) <= LINE_BYTES:  # a longer line is refused anyway
                rest += first
            for line in [bytes(rest), *others[:-1]] if others else []:
                if line.strip():
                    await writer.drain()
                    yield _read_line(line)
                    await asyncio.sleep(0)  # lets running calls continue between a thousand lines that arrive at once
            if others:
                rest = bytearray(others[-1])
            await writer.drain()
    except ConnectionError:
        return  # the client has gone
    if rest.strip():
        yield _read_line(bytes(rest))


def _read_line(line: bytes) -> Read | JSONRPCError:
    if len(line) > LINE_BYTES:
        return refusal(INVALID_REQUEST, f"Invalid request: a line may have {LINE_BYTES} bytes at most.")
    return read(line)


@asynccontextmanager
async def _pipes() -> AsyncIterator[tuple[Source, Send]]:
    """Use descriptors 0 and 1 for the protocol only. Other code reads the null device and prints to stderr."""
    loop = asyncio.get_running_loop()
    stdin, stdout = _own(0, os.O_RDONLY), _own(1, os.O_WRONLY)
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

    async def send(item: SessionMessage) -> None:
        try:
            writer.write(write(item.message) + b"\n")
            await writer.drain()
        except ConnectionError:
            raise BrokenResourceError from None

    try:
        yield _lines(reader, writer), send
    finally:
        source.close()
        sink.close()


@asynccontextmanager
async def _sdks_own() -> AsyncIterator[tuple[Source, Send]]:
    """The SDK's own transport. A line that it cannot read is read again from its error, to answer it."""
    async with stdio_server() as (incoming, outgoing), outgoing:

        async def items() -> Source:
            async for item in incoming:
                if isinstance(item, SessionMessage):
                    yield Read(item.message, b"")
                else:
                    yield read(_line_of(item))

        yield items(), outgoing.send


def _line_of(failure: Exception) -> bytes:
    """The line that is not JSON, or the value that is not a message, from the error."""
    for error in failure.errors() if isinstance(failure, ValidationError) else []:
        if error["type"] == "json_invalid":
            return str(error["input"]).encode()
        # The error lists, for each kind of message, why the value is not one: its type, or a missing field.
        if len(error["loc"]) == 1 or (len(error["loc"]) == 2 and error["type"] == "missing"):
            return json.dumps(error["input"]).encode()
    return b""


def _can_wait(descriptor: int) -> bool:
    """Whether the event loop can wait for it: a pipe, a socket, or a terminal."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


def _own(descriptor: int, flags: int) -> int:
    """A descriptor of ours. A terminal is opened anew: the shell shares the old one, and ours must not block."""
    if sys.platform != "win32" and os.isatty(descriptor):
        return os.open(os.ttyname(descriptor), flags)
    return os.dup(descriptor)


async def serve_stdio(server: MCPServer[Any]) -> None:
    """Serve one client over stdin and stdout until it disconnects."""
    ours = sys.platform != "win32" and _can_wait(0) and _can_wait(1)
    inner = server._lowlevel_server  # noqa: SLF001 - the SDK offers no public way to serve over given streams
    async with _pipes() if ours else _sdks_own() as (source, send):
        outgoing = _Outgoing(send)
        incoming = _Incoming(source, outgoing)
        try:
            while not incoming.ended:
                await inner.run(incoming, outgoing, inner.create_initialization_options())
        except ExceptionGroup as group:
            # A message that arrives while a signal ends the server finds the SDK's inner streams closed.
            if group.split((BrokenResourceError, ClosedResourceError))[1] is not None:
                raise
