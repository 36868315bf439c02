"""The guard and the client that fetches pictures.

Hostile targets are dialled through a recorder that never connects; real connections are made to loopback only.
"""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import math
import re
import selectors
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mj_mcp.errors import ImageUnavailable
from mj_mcp.pictures import LinkExpired, PictureClient
from mj_mcp.pictures.guard import GuardedBackend, is_public, parse_address

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


# ---------------------------------------------------------------- hostile targets

LITERALS = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.254",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.9",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "233.252.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[::127.0.0.1]",
    "[::8.8.8.8]",
    "[::ffff:127.0.0.1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:0001]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::7f00:1]",
    "[64:ff9b:1::808:808]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[2002:c0a8:1::1]",
    "[2001:0:7f00:1::1]",
    "[2001:0:808:808::1]",
    "[2001:db8::1]",
    "[2001:2::1]",
    "[2001:10::1]",
    "[2001:20::1]",
    "[100::1]",
    "[fe80::1]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[ff0e::1]",
    "[3fff::1]",
    "[5f00::1]",
    "[4000::1]",
    "[1::1]",
]

TRICKS = [
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0/",
    "http://127.0.0.1./",
    "http://127.0.0.1.:80/",
    "http://134744072/",
    "http://%31%32%37.0.0.1/",
    "http://127%2e0%2e0%2e1/",
    "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
    "http://127\u30020\u30020\u30021/",
    "http://\u2460\u2461\u2466.0.0.1/",
    "http://\u24dbocalhost/",
    "http://localhost\u200b/",
    "http://[::1%25lo]/",
    "http://[fe80::1%25eth0]/",
    "http://[2606:2800:21f:cb07:6820:80da:af6b:8b2c%25eth0]/",
    "http://[::1",
    "http://::1/",
    "http://[v1.x]/",
    "http://x[::1]/",
    "http://user@public.example/",
    "http://user:pass@public.example/",
    "http://public.example@127.0.0.1/",
    "http://public.example\\@127.0.0.1/",
    "http://127.0.0.1\\@public.example/",
    "http://public.example\t.evil/",
    "http://public.example/\r\nHost: x",
    "http://public.example:0/",
    "http://public.example:99999/",
    "http://public.example:80:80/",
    "http:///x",
    "http:127.0.0.1/",
    "http:/127.0.0.1/",
    "//127.0.0.1/",
    "/etc/passwd",
    "",
    "file:///etc/passwd",
    "ftp://public.example/x.png",
    "gopher://127.0.0.1:6379/_x",
    "data:image/png;base64,AAAA",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "jar:http://public.example!/",
    "http://a..b/",
    "http://.public.example/",
    "http://exa mple.example/",
    "http://public.example" + "/x" * 20_000,
]

NAMES = {
    "localhost": ["127.0.0.1", "::1"],
    "localhost.": ["127.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
    "127.0.0.1.nip.io": ["127.0.0.1"],
    "half.example": [PUBLIC, "10.0.0.1"],
    "other-half.example": ["10.0.0.1", PUBLIC],
    "mapped.example": ["::ffff:192.168.1.1"],
    "scoped.example": ["fe80::1%eth0"],
    "nat64.example": [PUBLIC, "64:ff9b::10.0.0.1"],
    "unparsable.example": ["not an address"],
    "numbers.example": ["2130706433"],
    "nobody.example": [],
    "multicast.example": ["224.0.0.251"],
}


LEADS_AWAY = re.compile(r"[a-z+]+://[^/]")


def hostile() -> list[str]:
    return [f"http://{literal}/x.png" for literal in LITERALS] + TRICKS + [f"http://{name}/x.png" for name in NAMES]


def hostile_names() -> Names:
    names = Names()
    names._names = {name.replace(".", "_").replace("-", "_"): answers for name, answers in NAMES.items()}
    names._names["public_example"] = [PUBLIC]
    return names


def test_the_corpus_is_large_enough() -> None:
    assert len(set(hostile())) >= 60


@pytest.mark.parametrize("url", hostile(), ids=lambda url: ascii(url)[:60])
async def test_a_hostile_link_is_refused_and_nobody_is_dialled(url: str) -> None:
    recorder = Recorder()
    async with PictureClient(OWN, None, hostile_names(), recorder) as client:
        with pytest.raises(ImageUnavailable):
            await client.fetch(url)
    assert recorder.dialled == []


@pytest.mark.parametrize("url", hostile(), ids=lambda url: ascii(url)[:60])
async def test_a_redirect_to_a_hostile_link_is_refused_there(url: str) -> None:
    if not url.isascii() or any(letter in url for letter in "\r\n\t") or not LEADS_AWAY.match(url) or len(url) > 10_000:
        pytest.skip("cannot be put in a header, or is relative there and so leads back to the public host")
    recorder = Recorder([redirect(url)])
    async with PictureClient(OWN, None, hostile_names(), recorder) as client:
        with pytest.raises(ImageUnavailable):
            await client.fetch("http://public.example/start.png")
    assert recorder.dialled == [(PUBLIC, 80)]


async def test_a_public_name_is_dialled_at_the_address_that_was_checked() -> None:
    recorder, names = Recorder(), Names(public_example=[PUBLIC])
    async with PictureClient(OWN, None, names, recorder) as client:
        assert await client.fetch("http://public.example/a.png") == b"picture"
    assert recorder.dialled == [(PUBLIC, 80)]


async def test_a_name_is_resolved_once_so_a_second_answer_is_never_dialled() -> None:
    recorder = Recorder()
    names = Names(rebind_example=[[PUBLIC], ["127.0.0.1"]])
    async with PictureClient(OWN, None, names, recorder) as client:
        assert await client.fetch("http://rebind.example/a.png") == b"picture"
        assert names.asked == ["rebind.example"]
        with pytest.raises(ImageUnavailable, match="not public"):
            await client.fetch("http://rebind.example/a.png")
    assert recorder.dialled == [(PUBLIC, 80)]


async def test_the_tls_server_name_and_the_host_header_stay_the_name() -> None:
    recorder = Recorder()
    async with PictureClient(OWN, None, Names(cdn_example=[PUBLIC]), recorder) as client:
        await client.fetch("https://cdn.example:8443/a.png")
    assert recorder.dialled == [(PUBLIC, 8443)]
    assert ("tls", "cdn.example") in recorder.log
    assert b"Host: cdn.example:8443\r\n" in b"".join(part for part in recorder.log if isinstance(part, bytes))


async def test_a_mapped_public_address_is_dialled_as_the_ipv4_address_it_is() -> None:
    recorder = Recorder()
    async with PictureClient(OWN, None, Names(), recorder) as client:
        await client.fetch(f"http://[::ffff:{PUBLIC}]/a.png")
    assert recorder.dialled == [(PUBLIC, 80)]


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    dialled = []

    async def connect(
        address: str,
        port: int,
        timeout: float | None,  # noqa: ASYNC109 - httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        dialled.append(address)
        if ":" in address:
            raise httpcore.ConnectTimeout
        return Answering(ok(b"x"), [])

    names = Names(cdn_example=["2606:4700::1", PUBLIC])
    async with PictureClient(OWN, None, names, connect) as client:
        assert await client.fetch("http://cdn.example/a.png") == b"x"
    assert dialled == ["2606:4700::1", PUBLIC]


@pytest.mark.parametrize(
    ("own", "link", "allowed"),
    [
        ("http://192.168.1.5:8080/mj", "http://192.168.1.5:8080/a.png", True),
        ("http://192.168.1.5:8080/mj", "http://192.168.1.5:8081/a.png", False),
        ("http://192.168.1.5:8080/mj", "http://192.168.1.5/a.png", False),
        ("http://192.168.1.5:8080/mj", "http://192.168.1.6:8080/a.png", False),
        ("http://Proxy.Lan", "http://proxy.lan/a.png", True),
        ("http://proxy.lan", "http://proxy.lan./a.png", True),
        ("http://proxy.lan", "http://other.lan/a.png", False),
        ("https://proxy.lan", "http://proxy.lan/a.png", False),
        ("http://[::1]:9000", "http://[::1]:9000/a.png", True),
    ],
)
async def test_only_the_own_host_at_its_own_port_may_be_private(own: str, link: str, allowed: bool) -> None:
    lan = {"proxy_lan": ["10.1.1.1"], "proxy_lan_": ["10.1.1.1"], "other_lan": ["10.1.1.1"]}
    recorder = Recorder()
    async with PictureClient(own, None, Names(**lan), recorder) as client:
        if allowed:
            assert await client.fetch(link) == b"picture"
        else:
            with pytest.raises(ImageUnavailable, match="not public"):
                await client.fetch(link)
    assert bool(recorder.dialled) is allowed


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("cdn.example", True),
        ("CDN.example", True),
        ("a.pics.example", True),
        ("a.b.pics.example", True),
        ("pics.example", False),
        ("evilpics.example", False),
        ("cdn.example.evil", False),
        ("proxy.example", True),
    ],
)
async def test_image_hosts_narrow_where_pictures_may_come_from(host: str, allowed: bool) -> None:
    recorder = Recorder()
    names = Names(**{host.lower().replace(".", "_"): [PUBLIC]})
    hosts = frozenset({"cdn.example", "*.Pics.example"})
    async with PictureClient(OWN, hosts, names, recorder) as client:
        if allowed:
            await client.fetch(f"https://{host}/a.png")
        else:
            with pytest.raises(ImageUnavailable, match="not among the hosts"):
                await client.fetch(f"https://{host}/a.png")
    assert bool(recorder.dialled) is allowed


async def test_image_hosts_hold_for_redirects_too() -> None:
    recorder = Recorder([redirect("http://other.example/")])
    names = Names(cdn_example=[PUBLIC], other_example=[PUBLIC])
    async with PictureClient(OWN, frozenset({"cdn.example"}), names, recorder) as client:
        with pytest.raises(ImageUnavailable, match="not among the hosts"):
            await client.fetch("http://cdn.example/")
    assert len(recorder.dialled) == 1


async def test_unix_sockets_are_refused() -> None:
    with pytest.raises(ImageUnavailable):
        await GuardedBackend(("x", 1), Names(), Recorder()).connect_unix_socket("/var/run/docker.sock")


def test_addresses_of_the_internet_are_public() -> None:
    for text in ("8.8.8.8", PUBLIC, "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "64:ff9b::808:808"):
        address = parse_address(text)
        assert address is not None
        assert is_public(address)


def test_an_address_with_a_zone_is_never_public() -> None:
    for text in ("2606:4700::1111%eth0", "::ffff:8.8.8.8%eth0", "64:ff9b::808:808%1"):
        address = parse_address(text)
        assert address is not None
        assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_every_ipv4_address_called_public_is_global_unicast(address: ipaddress.IPv4Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved
        assert not any((address.is_private, address.is_loopback, address.is_link_local, address.is_unspecified))


@given(
    st.ip_addresses(v=6)
    | st.builds(
        lambda prefix, inner: ipaddress.IPv6Address(prefix(int(inner))),
        st.sampled_from(
            [
                lambda inner: inner,
                lambda inner: 0xFFFF << 32 | inner,
                lambda inner: 0x2002 << 112 | inner << 80,
                lambda inner: 0x64FF9B << 96 | inner,
                lambda inner: 0x64FF9B0001 << 80 | inner,
                lambda inner: 0x20010000 << 96 | inner << 64 | inner ^ 0xFFFFFFFF,
            ]
        ),
        st.ip_addresses(v=4),
    )
)
def test_every_ipv6_address_called_public_holds_a_public_one(address: ipaddress.IPv6Address) -> None:
    if not is_public(address):
        return
    teredo = address.teredo or ()
    nat64 = int(address) >> 32 == 0x64FF9B << 64
    inner = [one for one in (address.ipv4_mapped, address.sixtofour, *teredo) if one]
    if nat64:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    for one in inner:
        assert is_public(one)
        assert one.is_global
    assert inner or (address.is_global and address in ipaddress.IPv6Network("2000::/3"))


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
def test_a_slow_picture_is_waited_for_while_bytes_come_and_no_longer(stream: Slow, said: str, seconds: float) -> None:
    told, took = fetched(stream)
    assert told == said
    assert took == pytest.approx(seconds, abs=0.7)


# ---------------------------------------------------------------- a real server on loopback

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


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
