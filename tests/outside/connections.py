"""A TCP server on loopback whose connections end when it does."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Serve = Callable[[StreamReader, StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve, *, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a server that hands each connection to `serve` and then closes it, until the block ends."""
    works: list[asyncio.Task[None]] = []
    writers: list[StreamWriter] = []

    async def work(reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):  # the other side has hung up
            await serve(reader, writer)
        writer.close()

    def accept(reader: StreamReader, writer: StreamWriter) -> None:
        writers.append(writer)
        works.append(asyncio.create_task(work(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for _ in range(3):
            await asyncio.sleep(0)  # what is just coming in
        for one in works:
            one.cancel()
        ends = await asyncio.gather(*works, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()  # TLS would wait for the other side's goodbye
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end
