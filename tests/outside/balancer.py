"""A balancer as any is: round robin by connection, knows nothing of sessions, passes over who does not answer."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Balancer:
    """Where it listens, its replicas' `ports`, and what it did: connections `dealt`, and how often one was `dead`."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self.url = ""
        self.dealt: Counter[int] = Counter()
        self.dead: Counter[int] = Counter()
        self._open: set[asyncio.Task[None]] = set()

    def accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Join a caller with the next replica, until either hangs up."""
        task = asyncio.create_task(self._join(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _join(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.ports.append(self.ports.pop(0))
        back: StreamWriter | None = None
        try:
            there, back = await self._reached(list(self.ports))
            pouring = [asyncio.create_task(_pour(reader, back)), asyncio.create_task(_pour(there, writer))]
            try:
                await asyncio.wait(pouring, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in pouring:
                    one.cancel()
        finally:
            writer.close()
            if back is not None:
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

    async def aclose(self) -> None:
        """End what is open."""
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


async def _pour(source: StreamReader, sink: StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()


@asynccontextmanager
async def balanced(*ports: int) -> AsyncIterator[Balancer]:
    """A balancer before these ports of this machine."""
    balancer = Balancer(list(ports))
    server = await asyncio.start_server(balancer.accept, "127.0.0.1", 0)
    balancer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    try:
        yield balancer
    finally:
        server.close()
        await balancer.aclose()
