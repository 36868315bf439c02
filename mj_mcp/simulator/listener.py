"""A small HTTP/1.1 server on asyncio streams that can also fail at the level of the connection.

Owns the listening socket, the connections, the framing of requests and replies (through h11), and the ways in which a
reply can break off. Knows nothing of tasks, pictures or the API, nor why a reply breaks off.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal

import h11

Way = Literal["whole", "half", "drip", "reset", "close", "hang"]
"""How a reply leaves: whole; half of it and a close; byte by byte; or not at all (reset, clean close, silence)."""

JSON: Final = (("Content-Type", "application/json; charset=utf-8"),)

_READ: Final = 64 * 1024
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_BODILESS: Final = frozenset({204, 304})


def _nothing() -> None:
    """The default observer: does nothing."""


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request. `path` is as sent (percent signs kept, no query); header names are lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply and how it is sent. A callable body is streamed in chunks, without a declared length.

    `acted` is called once: when the reply (or what is left of it) has been sent, or when the silence starts.
    """

    status: int = 200
    body: bytes | Callable[[], Iterator[bytes]] = b""
    headers: tuple[tuple[str, str], ...] = ()
    way: Way = "whole"
    pace: float = 0.0
    acted: Callable[[], None] = _nothing


Handle = Callable[[Request], Awaitable[Reply]]


class Listener:
    """One listening socket and all its connections. The port stays reserved while not listening.

    `longest` is the greatest number of bytes in a request's body.
    """

    def __init__(self, handle: Handle, host: str, port: int, longest: int) -> None:
        self._handle = handle
        self._host = host
        self._longest = longest
        self.port = port
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._broken: list[Exception] = []

    async def open(self) -> None:
        """Bind, and accept connections.

        Raises:
            OSError: The port is taken.
        """
        await self._bind()
        await self.start()

    async def start(self) -> None:
        """Accept connections (again)."""
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, sock=self._socket, limit=_READ, backlog=1024)

    async def stop(self, *, abort: bool) -> None:
        """Refuse connections. Idle ones are closed; busy ones are answered first, or reset when `abort`."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for connection in self._connections.values():
            connection.leave(abort=abort)
        await asyncio.sleep(0)  # the closed socket leaves the selector in the next step of the loop
        await self._bind()

    async def close(self) -> None:
        """End everything.

        Raises:
            ExceptionGroup: The handler failed while it answered: a bug in the simulator must not look like a fault.
        """
        if self._server is not None:
            self._server.close()
            self._server = None
        elif self._socket is not None:
            self._socket.close()
        connections = dict(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        for connection in connections.values():
            connection.leave(abort=True)  # one that was cancelled before it started has not closed itself
        await asyncio.sleep(0)  # aborted transports close their sockets in the next step of the loop
        if self._broken:
            raise ExceptionGroup("the simulator broke while it answered", self._broken)

    async def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        self._socket = socket.socket(family, kind, protocol)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(address)
        except OSError:
            self._socket.close()
            raise
        self.port = self._socket.getsockname()[1]

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer, self._handle, self._longest)
        task = asyncio.get_running_loop().create_task(connection.run())
        self._connections[task] = connection
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._connections[task]
        if not task.cancelled() and isinstance(broken := task.exception(), Exception):
            self._broken.append(broken)


class _Connection:
    """One connection: serves requests one by one, each in the way that its reply asks for."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handle, longest: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handle = handle
        self._longest = longest
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_READ)
        self._idle = True
        self._leaving = False

    async def run(self) -> None:
        """Serve until either side ends it."""
        try:
            with contextlib.suppress(ConnectionError):
                while await self._exchange():
                    pass
                self._writer.close()
                await self._writer.wait_closed()
        finally:
            self._writer.transport.abort()

    def leave(self, *, abort: bool) -> None:
        """End after the current answer; at once if there is none, with a reset when `abort`."""
        self._leaving = True
        if abort:
            self._reset()
        elif self._idle:
            self._writer.close()

    async def _exchange(self) -> bool:
        """Answer one request. Returns whether another may follow."""
        try:
            request = await self._request()
        except h11.RemoteProtocolError as broken:
            if self._h11.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                await self._whole("GET", Reply(broken.error_status_hint, str(broken).encode()))
            return False
        if request is None:
            return False
        return await self._deliver(request.method, await self._handle(request))

    async def _request(self) -> Request | None:
        self._idle = True
        head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        self._idle = False
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > self._longest:
                raise h11.RemoteProtocolError("the body is too large", error_status_hint=413)
        if not isinstance(event, h11.EndOfMessage):
            return None
        path, _, query = head.target.decode("ascii").partition("?")
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        return Request(head.method.decode("ascii"), path, query, headers, bytes(body))

    async def _event(self) -> object:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            if self._h11.they_are_waiting_for_100_continue:
                self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._h11.receive_data(await self._reader.read(_READ))
        return event

    async def _deliver(self, method: str, reply: Reply) -> bool:
        match reply.way:
            case "whole":
                return await self._whole(method, reply)
            case "half":
                await self._half(method, reply)
            case "drip":
                return await self._drip(method, reply)
            case "reset":
                self._reset()
                reply.acted()
            case "close":
                self._writer.close()
                reply.acted()
            case "hang":
                reply.acted()
                while await self._reader.read(_READ):
                    pass
        return False

    async def _whole(self, method: str, reply: Reply) -> bool:
        for chunk in self._head(method, reply):
            self._send(h11.Data(data=chunk))
            await self._writer.drain()
        return await self._finish(reply.acted)

    async def _half(self, method: str, reply: Reply) -> None:
        chunks = self._head(method, reply)
        if isinstance(reply.body, bytes):
            chunks = iter([reply.body[: len(reply.body) // 2]])
        self._send(h11.Data(data=next(chunks, b"")))
        await self._writer.drain()
        self._writer.close()
        reply.acted()

    async def _drip(self, method: str, reply: Reply) -> bool:
        acted = reply.acted
        for chunk in self._head(method, reply):
            for byte in chunk:
                self._send(h11.Data(data=bytes([byte])))
                acted()
                acted = _nothing
                await self._writer.drain()
                await asyncio.sleep(reply.pace)
        return await self._finish(acted)

    def _head(self, method: str, reply: Reply) -> Iterator[bytes]:
        """Send the head; return the body in chunks."""
        headers = [*reply.headers, ("Server", "mj-mcp-simulator")]
        body = reply.body
        bodiless = reply.status in _BODILESS or method == "HEAD"
        if isinstance(body, bytes) and reply.status not in _BODILESS:
            headers.append(("Content-Length", str(len(body))))
        if self._leaving:
            headers.append(("Connection", "close"))
        phrase = _PHRASES.get(reply.status, "Unassigned")
        self._send(h11.Response(status_code=reply.status, headers=headers, reason=phrase))
        if bodiless:
            return iter(())
        if isinstance(body, bytes):
            return (body[at : at + _READ] for at in range(0, len(body), _READ))
        return body()

    async def _finish(self, acted: Callable[[], None]) -> bool:
        self._send(h11.EndOfMessage())
        acted()
        await self._writer.drain()
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return not self._leaving

    def _send(self, event: h11.Event) -> None:
        if data := self._h11.send(event):
            self._writer.write(data)

    def _reset(self) -> None:
        """Close with a TCP reset, so that the peer loses what it has not read yet."""
        transport = self._writer.transport
        if not transport.is_closing():
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
