"""A balancer as any is: round robin by connection, knows nothing of sessions, passes over who does not answer."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from connections import listening


class Balancer:
    """Where it listens, its replicas' `ports`, and what it did: connections `dealt`, and how often one was `dead`."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self.url = ""
        self.dealt: Counter[int] = Counter()
        self.dead: Counter[int] = Counter()

    async def join(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Join a caller with the next replica, until either hangs up."""
        self.ports.append(self.ports.pop(0))
        there, back = await self._reached(list(self.ports))
        pouring = [asyncio.create_task(_pour(reader, back)), asyncio.create_task(_pour(there, writer))]
        try:
            await asyncio.wait(pouring, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in pouring:
                one.cancel()
            back.close()

    async def _reached(self, ports: list[int]) -> tuple[StreamReader, StreamWriter]:
        for port in ports:
            try:
                joined = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                self.dead[port] += 1
            else:
                self.dealt[port] += 1
                return joined
        raise ConnectionRefusedError("no replica answers")


async def _pour(source: StreamReader, sink: StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()


@asynccontextmanager
async def balanced(*ports: int) -> AsyncIterator[Balancer]:
    """A balancer before these ports of this machine."""
    balancer = Balancer(list(ports))
    async with listening(balancer.join) as port:
        balancer.url = f"http://127.0.0.1:{port}/mcp"
        yield balancer
