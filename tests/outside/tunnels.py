"""An HTTP proxy that is asked to CONNECT, and a TLS server in front of a plain one: both on loopback."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal, Self

import trustme
from connections import listening

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
        self._stack = AsyncExitStack()
        self.asked: list[bytes] = []
        """The head of each CONNECT."""
        self.passed = bytearray()
        """All that went through afterwards, in both directions."""

    async def __aenter__(self) -> Self:
        self.url = f"http://127.0.0.1:{await self._stack.enter_async_context(listening(self._serve))}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        await self._connect(head.split()[1].decode(), reader, writer)

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
        for _, writer in (one, other):
            writer.close()
        for work in copies:
            work.cancel()
        await asyncio.gather(*copies, return_exceptions=True)


@asynccontextmanager
async def secured(port: int, authority: trustme.CA, *names: str) -> AsyncIterator[int]:
    """The port of a TLS server, certified for these names, in front of the plain server at `port`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay((reader, writer), await asyncio.open_connection("127.0.0.1", port), bytearray())

    async with listening(serve, context=context) as own:
        yield own
