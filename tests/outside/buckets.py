"""An S3 server of our own, over loopback: moto's, in a thread of this process, gone with the tests."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from itertools import count

from connections import listening
from moto.server import ThreadedMotoServer
from obstore.store import S3Store

KEY_ID = "AKIACANARYOFTHEBUCKET"
SECRET = "canary-bucket-secret-7c1e"

numbers = count(1)


class BucketServer:
    """The server, and what can happen to it. Objects outlive a stop; each test has a bucket of its own."""

    def __init__(self) -> None:
        self._server = self._start(0)
        self._port = self._server.get_host_and_port()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def new(self) -> str:
        """The name of an empty bucket."""
        name = f"pictures-{next(numbers)}"
        self._ask("PUT", name)
        return name

    def environment(self) -> dict[str, str]:
        """What an operator sets beside MJ_ARCHIVE_URL."""
        return aws(self.url)

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Everything in the bucket, past the program under test."""
        store = self._store(bucket)
        names = [str(meta["path"]) for page in store.list() for meta in page]
        return {name: bytes(store.get(name).bytes()) for name in names}

    def media_type(self, bucket: str, name: str) -> str:
        """What an object says that it is."""
        return str(self._store(bucket).get(name).attributes["Content-Type"])

    def write(self, bucket: str, name: str, data: bytes) -> None:
        """An object of somebody else's."""
        self._store(bucket).put(name, data, use_multipart=False)

    def stop(self) -> None:
        """Nobody listens any more: connections are refused."""
        self._server.stop()

    def start(self) -> None:
        """At the same address as before, with what was in it."""
        self._server = self._start(self._port)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stopped, until the block ends."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No key is known any more, until the block ends."""
        self._ask("POST", "moto-api/reset-auth", b"0")
        try:
            yield
        finally:
            self._ask("POST", "moto-api/reset-auth", b"inf")

    def _store(self, bucket: str) -> S3Store:
        return S3Store(
            bucket,
            endpoint=self.url,
            access_key_id=KEY_ID,
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True, "timeout": timedelta(seconds=10)},
        )

    def _ask(self, method: str, path: str, data: bytes | None = None) -> None:
        request = urllib.request.Request(f"{self.url}/{path}", data, {"Content-Type": "text/plain"}, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    @staticmethod
    def _start(port: int) -> ThreadedMotoServer:
        server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        server.start()
        return server


def aws(endpoint: str) -> dict[str, str]:
    """The standard variables, for a bucket at this endpoint."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }


class Scripted:
    """A server that a test makes up: it answers as the test says, or never."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str] = []
        self.heard = asyncio.Event()


@asynccontextmanager
async def scripted_server(answer: Callable[[str], bytes | None]) -> AsyncIterator[Scripted]:
    """Listens until the block ends; `answer` is given a request's first line, and gives None to be silent."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"(?i)^content-length: (\d+)", head, re.MULTILINE)
        await reader.readexactly(int(length[1]) if length else 0)
        server.asked.append(line := head.partition("\r\n")[0])
        server.heard.set()
        if (said := answer(line)) is not None:
            writer.write(said)
            await writer.drain()
            writer.close()
        await reader.read()

    async with listening(take) as port:
        server = Scripted(f"http://127.0.0.1:{port}")
        yield server


def silent(_line: str) -> None:
    """Takes a request and never answers."""


def refusing(part: str) -> Callable[[str], bytes]:
    """Refuses for ever what has `part` in its name, and takes everything else. S3 says more than one wants to log."""
    body = f"<Error><Code>KeyTooLongError</Code><AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId></Error>".encode()
    refusal = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    taken = b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\nETag: "x"\r\n\r\n'
    return lambda line: refusal if part in line else taken
