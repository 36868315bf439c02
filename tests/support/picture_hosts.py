"""Hosts of pictures that answer as a test says, and a resolver and a dialler that record what is asked of them."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore

OWN = "https://proxy.example"
PUBLIC = "93.184.215.14"


class Answering(httpcore.AsyncNetworkStream):
    """A stream that answers one request with prepared bytes and remembers what it was asked."""

    def __init__(self, answer: bytes, log: list[Any]) -> None:
        self._answer = answer
        self.log = log

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's signature
        part, self._answer = self._answer[:max_bytes], self._answer[max_bytes:]
        return part

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's signature
        self.log.append(buffer)

    async def aclose(self) -> None:
        return None

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        self.log.append(("tls", server_hostname))
        return self

    def get_extra_info(self, info: str) -> Any:
        return None


class Recorder:
    """Stands in for the dialler: writes down who would have been dialled, connects to nobody."""

    def __init__(self, answers: Iterable[bytes] = ()) -> None:
        self.dialled: list[tuple[str, int]] = []
        self.log: list[Any] = []
        self._answers = iter(answers)

    async def __call__(
        self,
        address: str,
        port: int,
        timeout: float | None,  # noqa: ASYNC109 - httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        self.dialled.append((address, port))
        return Answering(next(self._answers, ok(b"picture")), self.log)


class Names:
    """A fake name server: each question about a name takes the next of its answers, the last one for ever."""

    def __init__(self, **names: Sequence[str] | Sequence[Sequence[str]]) -> None:
        self._names = names
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answers: Any = self._names.get(host.replace(".", "_").replace("-", "_"))
        if answers is None:
            return ["127.0.0.1"]  # as the system does for 2130706433, 0x7f.1 and the like
        if answers and not isinstance(answers[0], str):
            return list(answers[min(self.asked.count(host), len(answers)) - 1])
        return list(answers)


def ok(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(where: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {where}\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n".encode()


def status(code: int) -> bytes:
    return f"HTTP/1.1 {code} Nope\r\nContent-Length: 0\r\n\r\n".encode()
