"""An HTTP proxy that is asked to CONNECT, and a TLS server in front of a plain one: both on loopback."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Literal, Self

import trustme

RESET = struct.pack("ii", 1, 0)
HOST = "mj.test"
"""A name that only the tunnel can resolve."""

Way = Literal["open", "close", "reset", "hang", "half", "nonsense"]


class Tunnel:
    """Connects names to ports of this machine, and keeps all that it was sent."""

    def __init__(
        self, ports: dict[str, int], *, way: Way = "open", answer: bytes = b"200 Connection established"
    ) -> None:
        """`ports` by `host:port`, as it is asked for them. `way` is how it answers a CONNECT; `answer` its words."""
        self.ports = ports
        self._way = way
        self._answer = answer
        self._open: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.asked: list[bytes] = []
        """The head of each CONNECT."""
        self.passed = bytearray()
        """All that went through afterwards, in both directions."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for work in self._open:
            work.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await _cut(self._writers)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        work = asyncio.current_task()
        assert work is not None
        self._open.add(work)
        self._writers.append(writer)
        work.add_done_callback(self._open.discard)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head)
            await self._connect(head.split()[1].decode(), reader, writer)
        writer.close()

    async def _connect(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match self._way:
            case "reset":
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()
            case "hang":
                await reader.read()
            case "half":
                writer.write(b"HTTP/1.1 200 Conn")
            case "nonsense":
                writer.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
            case "open":
                writer.write(b"HTTP/1.1 " + self._answer + b"\r\n\r\n")
                if self._answer.startswith(b"200"):
                    await self._relay(self.ports[target], reader, writer)

    async def _relay(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_connection("127.0.0.1", port)
        await relay((reader, writer), inner, self.passed)


async def relay(
    one: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    other: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    passed: bytearray,
) -> None:
    """Hand on what either side sends until one of them ends."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            passed.extend(data)
            writer.write(data)
            await writer.drain()

    copies = [asyncio.create_task(copy(one[0], other[1])), asyncio.create_task(copy(other[0], one[1]))]
    try:
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for work in copies:
            work.cancel()
        await asyncio.gather(*copies, return_exceptions=True)
        for _, writer in (one, other):
            writer.close()


@asynccontextmanager
async def secured(port: int, authority: trustme.CA, *names: str) -> AsyncIterator[int]:
    """The port of a TLS server, certified for these names, in front of the plain server at `port`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    open_ones: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        work = asyncio.current_task()
        assert work is not None
        open_ones.add(work)
        writers.append(writer)
        with suppress(OSError, asyncio.CancelledError):
            await relay((reader, writer), await asyncio.open_connection("127.0.0.1", port), bytearray())

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for work in open_ones:
            work.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)
        await _cut(writers)


async def _cut(writers: Sequence[asyncio.StreamWriter]) -> None:
    """End connections now: TLS would wait for the other side's goodbye, and the event loop may end before."""
    for writer in writers:
        writer.transport.abort()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
