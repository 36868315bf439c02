"""The client that fetches pictures: what it sends, says, follows and gives up.

Real connections are made to loopback only.
"""

from __future__ import annotations

import asyncio
import gzip
import math
import selectors
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpcore
import pytest
from connections import listening
from picture_hosts import OWN, PUBLIC, Answering, Names, Recorder, ok, redirect, status

from mj_mcp.errors import ImageUnavailable
from mj_mcp.pictures import LinkExpired, PictureClient

# ---------------------------------------------------------------- what is sent, what is said

SIGNED = "http://cdn.example/a%2Fb/é|'.png?X-Sig=AbC%2B%2f/+~'!*()&b=[1]\"&sig=SECRET#frag"


async def test_a_signature_is_sent_as_it_came_and_what_no_url_may_hold_is_encoded() -> None:
    recorder = Recorder()
    async with PictureClient(OWN, None, Names(cdn_example=[PUBLIC]), recorder) as client:
        await client.fetch(SIGNED)
    first = recorder.log[0].split(b"\r\n")[0]
    assert first == b"GET /a%2Fb/%C3%A9%7C'.png?X-Sig=AbC%2B%2f/+~'!*()&b=[1]%22&sig=SECRET HTTP/1.1"


@pytest.mark.parametrize(
    "answer",
    [
        status(403),
        status(500),
        b"garbage\r\n\r\n",
        b"",
        ok(b"x", "Content-Encoding: gzip"),
        redirect("http://[::1]/?sig=SECRET"),
        redirect("http://cdn.example/?sig=SECRET"),
        redirect("http://u:SECRET@cdn.example/"),
    ],
)
async def test_no_message_holds_a_signature(answer: bytes) -> None:
    async with PictureClient(OWN, None, Names(cdn_example=[PUBLIC]), Recorder([answer] * 9)) as client:
        with pytest.raises(ImageUnavailable) as caught:
            await client.fetch(SIGNED)
    error: BaseException | None = caught.value
    assert "SECRET" not in str(error)
    assert "SECRET" not in repr(error)


@pytest.mark.parametrize("code", [401, 403, 404, 410])
async def test_a_refused_link_says_that_a_fresh_one_may_help(code: int) -> None:
    async with PictureClient(OWN, None, Names(cdn_example=[PUBLIC]), Recorder([status(code)])) as client:
        with pytest.raises(LinkExpired, match=f"cdn.example .*expired or is refused .HTTP {code}") as caught:
            await client.fetch("http://cdn.example/a.png")
    assert caught.value.code == "image_unavailable"


@pytest.mark.parametrize("code", [204, 206, 304, 400, 429, 500, 503])
async def test_other_answers_than_200_are_no_picture_and_no_expiry(code: int) -> None:
    async with PictureClient(OWN, None, Names(cdn_example=[PUBLIC]), Recorder([status(code)])) as client:
        with pytest.raises(ImageUnavailable, match=f"HTTP {code}") as caught:
            await client.fetch("http://cdn.example/a.png")
    assert not isinstance(caught.value, LinkExpired)


async def test_three_redirects_are_followed_each_dialled_anew_without_cookies() -> None:
    hops = [redirect("/b?x=1"), redirect("//other.example/c"), redirect("http://cdn.example/d")]
    recorder, names = Recorder(hops), Names(cdn_example=[PUBLIC], other_example=["1.1.1.1"])
    async with PictureClient(OWN, None, names, recorder) as client:
        assert await client.fetch("http://cdn.example/a") == b"picture"
    assert recorder.dialled == [(PUBLIC, 80), (PUBLIC, 80), ("1.1.1.1", 80), (PUBLIC, 80)]
    sent = b"".join(recorder.log).lower()
    assert b"cookie" not in sent
    assert b"authorization" not in sent
    assert b"referer" not in sent


async def test_a_fourth_redirect_is_refused() -> None:
    recorder = Recorder([redirect("/again")] * 9)
    async with PictureClient(OWN, None, Names(cdn_example=[PUBLIC]), recorder) as client:
        with pytest.raises(ImageUnavailable, match="more than 3"):
            await client.fetch("http://cdn.example/a")
    assert len(recorder.dialled) == 4


async def test_a_redirect_from_https_to_http_is_refused() -> None:
    recorder = Recorder([redirect("http://cdn.example/plain")])
    async with PictureClient(OWN, None, Names(cdn_example=[PUBLIC]), recorder) as client:
        with pytest.raises(ImageUnavailable, match="from https to http"):
            await client.fetch("https://cdn.example/a")
    assert len(recorder.dialled) == 1


# ---------------------------------------------------------------- slow hosts, on a clock that skips


class Skipping(selectors.DefaultSelector):
    """Time passes only while nothing can be done: a wait of minutes takes none."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events:
            assert timeout is not None, "it would wait for ever"
            self.now += timeout
        return events


class Clockwork(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


class Slow(Answering):
    """A stream whose body comes as `part` bytes every `gap` seconds; after `parts` of them nothing comes any more."""

    def __init__(self, size: int, *, part: int, gap: float, parts: float = math.inf) -> None:
        super().__init__(bytes(size), [])
        self._head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()
        self._part, self._gap, self._left = part, gap, parts

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's signature
        if self._head:
            head, self._head = self._head, b""
            return head
        await asyncio.sleep(self._gap if self._left > 0 else 1e6)
        self._left -= 1
        return await super().read(min(max_bytes, self._part))


def fetched(stream: Slow) -> tuple[str, float]:
    """What came of it, and how long it took on the clock that skips."""

    async def connect(
        address: str,
        port: int,
        timeout: float | None,  # noqa: ASYNC109 - httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        return stream

    async def fetch() -> str:
        async with PictureClient(OWN, None, Names(cdn_example=[PUBLIC]), connect) as client:
            try:
                return f"{len(await client.fetch('http://cdn.example/a.png'))} bytes"
            except ImageUnavailable as failure:
                return failure.message

    with asyncio.Runner(loop_factory=Clockwork) as runner:
        return runner.run(fetch()), runner.get_loop().time()


STALLED = "the picture from cdn.example did not arrive: less than 65,536 bytes came in 20 s"


@pytest.mark.parametrize(
    ("stream", "said", "seconds"),
    [
        (Slow(6 * 2**20, part=2**15, gap=0.65), f"{6 * 2**20} bytes", 125),
        (Slow(64 * 2**20, part=2**16, gap=0.25), f"{64 * 2**20} bytes", 256),
        (Slow(30_000, part=2000, gap=1.3), "30000 bytes", 19.5),
        (Slow(6 * 2**20, part=2**15, gap=0.65, parts=40), STALLED, 46),
        (Slow(6 * 2**20, part=1, gap=0.1), STALLED, 20),
        (Slow(6 * 2**20, part=3000, gap=1), STALLED, 20),
        (
            Slow(64 * 2**20, part=2**16, gap=19),
            "the picture from cdn.example did not arrive: it was not complete after 300 s",
            300,
        ),
        (Slow(64 * 2**20 + 1, part=2**16, gap=0), "the picture from cdn.example is larger than 67,108,864 bytes", 0),
    ],
    ids=["6 MiB at 50 kB/s", "64 MiB", "small", "stopped", "drip", "trickle", "just fast enough", "too large"],
)
@pytest.mark.timeout(300)  # 64 MiB in pieces, under coverage, on a busy machine
@pytest.mark.slow
def test_a_slow_picture_is_waited_for_while_bytes_come_and_no_longer(stream: Slow, said: str, seconds: float) -> None:
    message, took = fetched(stream)
    assert message == said
    assert took == pytest.approx(seconds, abs=0.7)


# ---------------------------------------------------------------- a real server on loopback

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await handler(reader, writer)

    async with listening(handle) as port:
        yield f"http://127.0.0.1:{port}"


def sending(data: bytes) -> Handler:
    async def handler(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return handler


async def test_bytes_arrive_whole_over_a_real_connection() -> None:
    body = bytes(range(256)) * 4096
    async with serving(sending(ok(body))) as url, PictureClient(url) as client:
        assert await client.fetch(f"{url}/a.png") == body


async def test_a_proxy_in_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(sending(status(418))) as trap, serving(sending(ok(b"direct"))) as url:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, trap)
        async with PictureClient(url) as client:
            assert await client.fetch(f"{url}/a.png") == b"direct"


async def test_the_system_resolver_is_guarded_too() -> None:
    async with (
        serving(sending(ok(b"secret"))) as url,
        PictureClient(OWN, None) as client,
    ):
        with pytest.raises(ImageUnavailable, match="not public"):
            await client.fetch(url.replace("127.0.0.1", "localhost"))


async def test_a_redirect_from_the_own_host_to_another_loopback_port_is_refused() -> None:
    async with (
        serving(sending(ok(b"secret"))) as inner,
        serving(sending(redirect(inner))) as url,
        PictureClient(url) as client,
    ):
        with pytest.raises(ImageUnavailable, match="not public"):
            await client.fetch(url)


async def test_an_announced_size_over_the_cap_is_refused_before_the_body() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 209715200\r\n\r\n"
    async with serving(sending(answer)) as url, PictureClient(url) as client:
        with pytest.raises(ImageUnavailable, match="larger than"):
            await client.fetch(url)


async def test_an_endless_stream_is_cut_at_the_cap() -> None:
    sent = 0

    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while sent < 2**26:
            writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
            await writer.drain()
            sent += 65536

    async with serving(endless) as url, PictureClient(url, max_bytes=2**20) as client:
        with pytest.raises(ImageUnavailable, match="larger than 1,048,576"):
            await client.fetch(url)
    assert sent < 2**25


async def test_exactly_the_cap_is_allowed() -> None:
    async with serving(sending(ok(bytes(1000)))) as url, PictureClient(url, max_bytes=1000) as client:
        assert len(await client.fetch(url)) == 1000


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "GZIP", "x"])
async def test_an_encoding_that_was_not_asked_for_is_refused(encoding: str) -> None:
    answer = ok(gzip.compress(bytes(10_000)), f"Content-Encoding: {encoding}")
    async with serving(sending(answer)) as url, PictureClient(url) as client:
        with pytest.raises(ImageUnavailable, match="encoding"):
            await client.fetch(url)


async def test_a_name_server_that_never_answers_is_given_up() -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    async with PictureClient(OWN, None, never, Recorder(), stall_seconds=0.1) as client:
        with pytest.raises(ImageUnavailable, match="did not arrive"):
            await client.fetch("http://slow.example/")


async def test_half_a_body_is_refused() -> None:
    async with serving(sending(ok(bytes(1000))[:-500])) as url, PictureClient(url) as client:
        with pytest.raises(ImageUnavailable, match=r"connection .* failed"):
            await client.fetch(url)


async def test_a_cancelled_fetch_is_cancelled_and_the_client_goes_on() -> None:
    started = asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not started.is_set():
            started.set()
            await asyncio.Event().wait()
        writer.write(ok(b"second"))
        await writer.drain()

    async with serving(hang) as url, PictureClient(url) as client:
        task = asyncio.create_task(client.fetch(url))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await client.fetch(url) == b"second"


async def test_at_most_eight_pictures_are_fetched_at_once() -> None:
    open_now = most = 0
    gate = asyncio.Event()

    async def count(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        if most == 8:
            asyncio.get_running_loop().call_later(0.05, gate.set)
        await gate.wait()
        open_now -= 1
        writer.write(ok(b"x"))
        await writer.drain()

    async with serving(count) as url, PictureClient(url) as client:
        await asyncio.gather(*(client.fetch(url) for _ in range(20)))
    assert most == 8
