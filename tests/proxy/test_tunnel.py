"""https through the HTTP proxy of the environment: it sees no key, and its failures cost nothing."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import pytest
import stamina
import trustme
from commands import run
from conftest import KEY, Caller, environment
from structlog.testing import capture_logs
from tunnels import HOST, Tunnel, Way, secured

from mj_mcp.errors import ImageUnavailable
from mj_mcp.pictures import PictureClient
from mj_mcp.proxy.http import Answer, Http, HttpRequest, NoAnswer
from mj_mcp.proxy.transport import TRIES_BEFORE_SENDING
from mj_mcp.simulator import Fault, Simulator, faults
from mj_mcp.urls import authorities, read_tunnel

pytestmark = pytest.mark.anyio

TARGET = f"https://{HOST}"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificates(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of our authority, which this process trusts for one test."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    authorities.cache_clear()
    yield path
    authorities.cache_clear()


@pytest.fixture(autouse=True)
def _tries_without_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=TRIES_BEFORE_SENDING, cap=True):
        yield


@asynccontextmanager
async def reached(sim: Simulator, authority: trustme.CA, tunnel: Tunnel) -> AsyncIterator[Http]:
    """A client of the simulator behind TLS, which only the tunnel can find."""
    async with secured(sim.port, authority, HOST) as port, tunnel:
        tunnel.ports[f"{HOST}:443"] = port
        http = Http(TARGET, KEY, tunnel=tunnel.url)
        yield http
        await http.aclose()


def post(seconds: float = 20.0) -> HttpRequest:
    return HttpRequest(method="POST", path="/mj/submit/imagine", json={"prompt": "a red mug"}, seconds=seconds)


@pytest.mark.usefixtures("certificates")
async def test_a_tunnel_carries_submits_and_fetches_and_never_sees_the_key(
    sim: Simulator, authority: trustme.CA
) -> None:
    tunnel = Tunnel({})
    async with reached(sim, authority, tunnel) as http:
        assert isinstance(await http.request(post()), Answer)
        for _ in range(2):
            fetch = HttpRequest(method="GET", path="/mj/task/77/fetch", seconds=20.0)
            assert isinstance(await http.request(fetch), Answer)
    connect = f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\nAccept: */*\r\n\r\n".encode()
    assert tunnel.asked == [connect] * 2, "fetches share a connection, submits have one each"
    assert len(tunnel.passed) > 1000
    assert KEY.encode() not in tunnel.passed
    assert [seen.headers["authorization"] for seen in sim.requests] == [f"Bearer {KEY}"] * 3
    assert len(sim.ledger) == 1


@pytest.mark.usefixtures("certificates")
async def test_the_tunnels_password_is_for_the_tunnel_alone(sim: Simulator, authority: trustme.CA) -> None:
    tunnel = Tunnel({})
    async with secured(sim.port, authority, HOST) as port, tunnel:
        tunnel.ports[f"{HOST}:443"] = port
        http = Http(TARGET, KEY, tunnel=tunnel.url.replace("//", "//me:canary-pass@"))
        assert isinstance(await http.request(post()), Answer)
        await http.aclose()
    given = base64.b64encode(b"me:canary-pass")
    assert b"Proxy-Authorization: Basic " + given in tunnel.asked[0]
    assert "proxy-authorization" not in sim.requests[0].headers


# --- before the request leaves

FAILED_CONNECTS: list[tuple[str, Way, bytes]] = [
    ("403", "open", b"403 Forbidden"),
    ("407", "open", b"407 Proxy Authentication Required"),
    ("502", "open", b"502 Bad Gateway"),
    ("closed", "close", b""),
    ("reset", "reset", b""),
    ("half a head", "half", b""),
    ("no HTTP", "nonsense", b""),
]


@pytest.mark.usefixtures("certificates")
@pytest.mark.parametrize(
    ("way", "answer"), [row[1:] for row in FAILED_CONNECTS], ids=[row[0] for row in FAILED_CONNECTS]
)
async def test_a_connect_that_fails_is_tried_again_and_never_left(
    way: Way, answer: bytes, sim: Simulator, authority: trustme.CA
) -> None:
    tunnel = Tunnel({}, way=way, answer=answer)
    async with reached(sim, authority, tunnel) as http:
        outcome = await http.request(post())
    assert isinstance(outcome, NoAnswer)
    assert not outcome.sent
    assert outcome.reason.endswith(" (through the proxy of HTTPS_PROXY)")
    assert len(tunnel.asked) == TRIES_BEFORE_SENDING
    assert sim.requests == []


@pytest.mark.usefixtures("certificates")
async def test_a_connect_without_an_answer_never_left(sim: Simulator, authority: trustme.CA) -> None:
    tunnel = Tunnel({}, way="hang")
    async with reached(sim, authority, tunnel) as http:
        outcome = await http.request(post(seconds=0.5))
    assert isinstance(outcome, NoAnswer)
    assert not outcome.sent
    assert len(tunnel.asked) == 1
    assert sim.requests == []


@pytest.mark.usefixtures("certificates")
async def test_a_tunnel_to_a_server_without_tls_never_left(sim: Simulator) -> None:
    async with Tunnel({f"{HOST}:443": sim.port}) as tunnel:
        http = Http(TARGET, KEY, tunnel=tunnel.url)
        reason = "no connection could be made (through the proxy of HTTPS_PROXY)"
        assert await http.request(post()) == NoAnswer(sent=False, reason=reason)
        await http.aclose()
        assert len(tunnel.asked) == TRIES_BEFORE_SENDING
        assert KEY.encode() not in tunnel.passed
    assert sim.ledger == []


async def test_a_certificate_that_is_not_trusted_names_the_setting(sim: Simulator, authority: trustme.CA) -> None:
    tunnel = Tunnel({})
    async with reached(sim, authority, tunnel) as http:
        outcome = await http.request(post())
    assert isinstance(outcome, NoAnswer)
    assert not outcome.sent
    assert "SSL_CERT_FILE" in outcome.reason
    assert sim.requests == []


# --- after it


@pytest.mark.usefixtures("certificates")
@pytest.mark.parametrize(
    "fault", [faults.reset_after_accept(), faults.close_after_accept(), faults.half_body()], ids=lambda it: it.name
)
async def test_an_answer_that_is_lost_in_the_tunnel_is_in_doubt_and_nothing_is_sent_again(
    fault: Fault, sim: Simulator, authority: trustme.CA
) -> None:
    sim.inject("submit", fault)
    tunnel = Tunnel({})
    async with reached(sim, authority, tunnel) as http:
        outcome = await http.request(post())
    assert isinstance(outcome, NoAnswer)
    assert outcome.sent
    assert sim.fired == {fault.name: 1}
    assert len(tunnel.asked) == len(sim.ledger) == 1


# --- where no tunnel is used


async def test_plain_http_never_goes_through_a_tunnel(sim: Simulator) -> None:
    async with Tunnel({}) as tunnel:
        http = Http(sim.url, KEY, tunnel=tunnel.url)
        assert isinstance(await http.request(post()), Answer)
        await http.aclose()
        assert tunnel.asked == []


@pytest.mark.parametrize(
    ("url", "proxy", "no_proxy", "used"),
    [
        ("https://mj.test", "http://127.0.0.1:3128", "", "http://127.0.0.1:3128"),
        ("https://mj.test", "127.0.0.1:3128", "", "http://127.0.0.1:3128"),
        ("https://mj.test:8443", "http://127.0.0.1:3128", "other.test", "http://127.0.0.1:3128"),
        ("https://mj.test", "", "", None),
        ("http://mj.test", "http://127.0.0.1:3128", "", None),
        ("https://mj.test", "http://127.0.0.1:3128", "mj.test", None),
        ("https://mj.test", "http://127.0.0.1:3128", "other.test, .test", None),
        ("https://mj.test:8443", "http://127.0.0.1:3128", "mj.test:8443", None),
        ("https://mj.test", "http://127.0.0.1:3128", "*", None),
    ],
)
@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_the_environment_says_which_proxy_and_for_whom(  # noqa: PLR0917 - the columns of a table
    url: str,
    proxy: str,
    no_proxy: str,
    used: str | None,
    case: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(case("HTTPS_PROXY"), proxy)
    monkeypatch.setenv(case("NO_PROXY"), no_proxy)
    assert read_tunnel(url) == used


# --- what cannot be used is named


@pytest.mark.parametrize("proxy", ["socks5://me:canary-pass@127.0.0.1:1080", "http://", "ftp://canary-pass"])
async def test_a_proxy_that_cannot_be_used_is_named_and_its_password_is_not(proxy: str) -> None:
    http = Http(TARGET, KEY, tunnel=proxy)
    with capture_logs() as lines:
        outcome = await http.request(post())
    await http.aclose()
    assert outcome == NoAnswer(sent=False, reason="HTTPS_PROXY cannot be used: it must be like http://host:port")
    assert "canary" not in str(lines)


@pytest.mark.parametrize("text", [None, "no certificate"])
async def test_certificates_that_cannot_be_read_are_named(text: str | None, certificates: Path) -> None:
    if text is None:
        certificates.unlink()
    else:
        certificates.write_text(text)
    http = Http(TARGET, KEY)
    outcome = await http.request(post())
    await http.aclose()
    assert isinstance(outcome, NoAnswer)
    assert not outcome.sent
    assert "SSL_CERT_FILE" in outcome.reason


# --- pictures

CDN = "cdn.test"


async def never(*_: object) -> NoReturn:
    raise AssertionError("this machine must neither resolve nor dial")


@asynccontextmanager
async def fetching(
    sim: Simulator, authority: trustme.CA, tunnel: Tunnel, own: str = TARGET
) -> AsyncIterator[PictureClient]:
    """A client of pictures that reaches https through the tunnel alone."""
    names = (CDN, urlsplit(own).hostname or "")
    async with secured(sim.port, authority, *names) as port, tunnel:
        tunnel.ports.update({f"{name}:443": port for name in names})
        async with PictureClient(own, None, never, never, tunnel_for=lambda _url: tunnel.url) as pictures:
            yield pictures


@pytest.mark.usefixtures("certificates")
@pytest.mark.parametrize(
    ("link", "own"),
    [
        (f"https://{CDN}/hostile/large", TARGET),
        ("https://intranet/hostile/large", "https://intranet/api"),  # a person configured that one
    ],
)
async def test_a_picture_comes_through_the_tunnel_which_resolves_its_name(
    link: str, own: str, sim: Simulator, authority: trustme.CA
) -> None:
    picture = b"the bytes of a picture"
    sim.inject("picture", faults.status(200, picture))
    tunnel = Tunnel({})
    async with fetching(sim, authority, tunnel, own) as pictures:
        assert await pictures.fetch(link) == picture
    assert [head.split()[1].decode() for head in tunnel.asked] == [f"{urlsplit(link).hostname}:443"]
    assert sim.fired == {"status_200": 1}


NOT_PUBLIC = [
    "127.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "a.localhost",
    "intranet",
    "intranet.",
]


@pytest.mark.parametrize("host", NOT_PUBLIC)
@pytest.mark.parametrize("redirected", [False, True])
async def test_a_tunnel_is_never_asked_for_what_is_not_public(
    host: str, redirected: bool, sim: Simulator, authority: trustme.CA, certificates: Path
) -> None:
    there = f"https://{host}/x.png"
    if redirected:
        sim.inject("picture", faults.status(302, headers={"Location": there}))
    tunnel = Tunnel({})
    async with fetching(sim, authority, tunnel) as pictures:
        with pytest.raises(ImageUnavailable, match="is not a public one"):
            await pictures.fetch(f"https://{CDN}/hostile/large" if redirected else there)
    assert len(tunnel.asked) == redirected
    assert sum(sim.fired.values()) == redirected


@pytest.mark.usefixtures("certificates")
@pytest.mark.parametrize(
    ("way", "answer"), [row[1:] for row in FAILED_CONNECTS], ids=[row[0] for row in FAILED_CONNECTS]
)
async def test_a_picture_whose_connect_fails_is_unavailable(
    way: Way, answer: bytes, sim: Simulator, authority: trustme.CA
) -> None:
    tunnel = Tunnel({}, way=way, answer=answer)
    async with fetching(sim, authority, tunnel) as pictures:
        with pytest.raises(ImageUnavailable, match=f"the connection to the picture's host {CDN} failed"):
            await pictures.fetch(f"https://{CDN}/hostile/large")
    assert len(tunnel.asked) == 1


async def test_a_picture_over_plain_http_never_goes_through_a_tunnel(sim: Simulator) -> None:
    sim.inject("picture", faults.status(200, b"the bytes"))
    async with Tunnel({}) as tunnel, PictureClient(sim.url, tunnel_for=lambda _url: tunnel.url) as pictures:
        assert await pictures.fetch(f"{sim.url}/hostile/large") == b"the bytes"
        assert tunnel.asked == []


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://127.0.0.1:port", "http://["])
async def test_pictures_name_a_proxy_that_cannot_be_used(proxy: str) -> None:
    async with PictureClient(TARGET, None, never, never, tunnel_for=lambda _url: proxy) as pictures:
        with pytest.raises(ImageUnavailable, match="HTTPS_PROXY cannot be used"):
            await pictures.fetch(f"https://{CDN}/x.png")


# --- the whole server


async def test_a_server_behind_a_tunnel_buys_and_its_doctor_says_so(
    sim: Simulator,
    spawn: Callable[..., AbstractAsyncContextManager[Caller]],
    authority: trustme.CA,
    certificates: Path,
    tmp_path: Path,
) -> None:
    outside = {"SSL_CERT_FILE": str(certificates), "MJ_BASE_URL": TARGET}
    tunnel = Tunnel({})
    async with reached(sim, authority, tunnel):
        outside["HTTPS_PROXY"] = tunnel.url
        async with spawn(sim, **outside) as caller:
            task = await caller.task("generate_image", prompt="a mug", wait_seconds=0)
        assert task["task_id"] == sim.ledger[0].task_id
        doctor = await run(tmp_path, "doctor", env=environment(sim.url, tmp_path, **outside))
        assert "ok    proxy: a Midjourney gateway answers through HTTPS_PROXY" in doctor.stdout
        assert doctor.returncode == 0
    assert len(tunnel.asked) >= 2
    assert KEY.encode() not in tunnel.passed


async def test_a_host_in_no_proxy_is_reached_directly(
    sim: Simulator, authority: trustme.CA, certificates: Path, tmp_path: Path
) -> None:
    async with secured(sim.port, authority, "localhost") as port, Tunnel({}) as tunnel:
        outside = {"SSL_CERT_FILE": str(certificates), "HTTPS_PROXY": tunnel.url, "NO_PROXY": "localhost"}
        env = environment(sim.url, tmp_path, **outside, MJ_BASE_URL=f"https://localhost:{port}")
        doctor = await run(tmp_path, "doctor", env=env)
        assert "ok    proxy: a Midjourney gateway answers\n" in doctor.stdout
        assert tunnel.asked == []
    assert len(sim.polls()) == 1
