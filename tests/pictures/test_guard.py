"""The guard: no link leads to an address that is not public.

Hostile targets are dialled through a recorder that never connects.
"""

from __future__ import annotations

import ipaddress
import re

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_hosts import OWN, PUBLIC, Answering, Names, Recorder, ok, redirect

from mj_mcp.errors import ImageUnavailable
from mj_mcp.pictures import PictureClient
from mj_mcp.pictures.guard import GuardedBackend, is_public, parse_address

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
