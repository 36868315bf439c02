"""Requests that are refused before they are read: for another host, from another page, or too long."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest
from conftest import INITIALIZE, KEY, Served
from over_http import ASKING, LIST_TOOLS, MODERN, OURS, by_hand

from mj_mcp.server.host_guard import HostGuard
from mj_mcp.settings import Settings
from mj_mcp.simulator import Simulator

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX"),
]

Serve = Callable[..., AbstractAsyncContextManager[Served]]

PAGE = "https://app.example.com"
LIMIT = 4096


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 1024):
        yield b" " * 1024


CASES: list[tuple[str, dict[str, str], bytes | int, int]] = [
    ("our name", {"Host": OURS}, b"", 200),
    ("our name in capitals", {"Host": OURS.upper()}, b"", 200),
    ("our name with a port", {"Host": f"{OURS}:8443"}, b"", 200),
    ("one more name", {"Host": "also.example.com"}, b"", 200),
    ("one more name, with its port", {"Host": "10.1.2.3:8000"}, b"", 200),
    ("that name with another port", {"Host": "10.1.2.3:8001"}, b"", 421),
    ("a foreign name", {"Host": "evil.example"}, b"", 421),
    ("our name in a longer one", {"Host": f"{OURS}.evil.example"}, b"", 421),
    ("a longer one in front", {"Host": f"evil.{OURS}"}, b"", 421),
    ("loopback, when other names are set", {"Host": "127.0.0.1"}, b"", 421),
    ("our name with a wrong port", {"Host": f"{OURS}:x"}, b"", 421),
    ("no name", {"Host": ""}, b"", 421),
    ("a page that may", {"Host": OURS, "Origin": PAGE}, b"", 200),
    ("a page of ours", {"Host": OURS, "Origin": f"https://{OURS}"}, b"", 200),
    ("a page without an origin", {"Host": OURS, "Origin": "null"}, b"", 403),
    ("a foreign page", {"Host": OURS, "Origin": "https://evil.example"}, b"", 403),
    ("that page on another port", {"Host": OURS, "Origin": f"{PAGE}:444"}, b"", 403),
    ("that page without TLS", {"Host": OURS, "Origin": PAGE.replace("https", "http")}, b"", 403),
    ("a page of our machine", {"Host": OURS, "Origin": "http://localhost:3000"}, b"", 403),
    ("a foreign page with our name in it", {"Host": OURS, "Origin": f"https://{OURS}@evil.example"}, b"", 403),
    ("a page of no web with our name", {"Host": OURS, "Origin": f"chrome-extension://{OURS}"}, b"", 403),
    ("an origin that is none", {"Host": OURS, "Origin": "http://["}, b"", 403),
    ("as long as may be", {"Host": OURS}, LIST_TOOLS.encode().ljust(LIMIT), 200),
    ("one byte too long", {"Host": OURS}, LIST_TOOLS.encode().ljust(LIMIT + 1), 413),
    ("too long without saying so", {"Host": OURS}, LIMIT * 4, 413),
    ("no JSON", {"Host": OURS}, b"{", 400),
    ("JSON too deep", {"Host": OURS}, b"[" * 4000, 400),
    ("no object", {"Host": OURS}, b"7", 400),
    ("a batch", {"Host": OURS}, f"[{LIST_TOOLS}]".encode(), 400),
    ("not UTF-8", {"Host": OURS}, b'"\xff"', 400),
    ("no type", {"Host": OURS, "Content-Type": "text/plain"}, b"", 400),
]


async def test_requests_for_our_names_from_our_pages_are_let_in_and_no_others(
    sim: Simulator, serve_http: Serve
) -> None:
    names = {
        "MJ_PUBLIC_URL": f"https://{OURS.title()}",
        "MJ_HTTP_ALLOWED_HOSTS": " also.Example.com, 10.1.2.3:8000",
        "MJ_HTTP_ALLOWED_ORIGINS": PAGE,
    }
    async with serve_http(sim, MJ_HTTP_MAX_BODY_BYTES=str(LIMIT), **names) as served, by_hand(served) as client:
        answered = {}
        for case, headers, body, _ in CASES:
            content: Any = body or LIST_TOOLS
            if isinstance(body, int):
                content = async_chunks(body)
            answer = await client.post("/mcp", headers=ASKING | MODERN | headers, content=content)
            answered[case] = answer.status_code
            for secret in (KEY, sim.url):
                assert secret not in answer.text
        assert answered == {case: status for case, _, _, status in CASES}
        for path in ("/files/x", "/", "/.well-known/oauth-protected-resource", "/nowhere"):
            assert (await client.get(path, headers={"Host": "evil.example"})).status_code == 421, path
            assert (await client.get(path, headers={"Host": OURS, "Origin": "null"})).status_code == 403, path
            long = await client.post(path, headers={"Host": OURS}, content=b" " * (LIMIT + 1))
            assert long.status_code == 413, path
        at_mcp = await client.post("/mcp/", headers=ASKING | MODERN | {"Host": OURS}, content=LIST_TOOLS)
        assert at_mcp.status_code == 200, "a slash at the end is no other path"
        assert (await client.get("/nowhere", headers={"Host": OURS})).status_code == 404
        assert (await client.get("/healthz")).status_code == 200, "a supervisor knows an address, and no name"
    assert "Traceback" not in served.log.read_text()


async def async_chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 1024):
        yield b" " * 1024


async def test_two_hosts_are_none(sim: Simulator, serve_http: Serve) -> None:
    async with serve_http(sim) as served:
        host, port = served.base.removeprefix("http://").split(":")
        async with await anyio.connect_tcp(host, int(port)) as wire:
            await wire.send(b"GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n")
            assert int((await wire.receive()).split()[1]) in {400, 421}
        async with await anyio.connect_tcp(host, int(port)) as wire:
            await wire.send(b"GET /mcp HTTP/1.0\r\n\r\n")
            assert int((await wire.receive()).split()[1]) == 421


@pytest.mark.parametrize("names", [[], ["127.0.0.1", "evil.example"], ["evil.example", "127.0.0.1"], ["127.0.0.1"] * 2])
async def test_the_host_guard_itself_takes_two_hosts_for_none(
    names: list[str], sim_settings: Callable[..., Settings]
) -> None:
    """Whatever the HTTP server in front of it lets through."""
    said: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        said.append(message)

    scope = {"type": "http", "method": "GET", "path": "/mcp", "headers": [(b"host", name.encode()) for name in names]}
    await HostGuard(_nobody, sim_settings())(scope, _nobody, send)
    assert said[0]["status"] == 421


async def _nobody(*_args: Any) -> Any:
    pytest.fail("nobody is asked")


async def test_a_browser_may_ask_for_pages_that_are_named_only(sim: Simulator, serve_http: Serve) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, mcp-param-x"}
    async with serve_http(sim, MJ_HTTP_ALLOWED_ORIGINS=PAGE) as served, by_hand(served) as client:
        allowed = await client.options("/mcp", headers=ask | {"Origin": PAGE})
        assert allowed.status_code == 200
        assert allowed.headers["Access-Control-Allow-Origin"] == PAGE
        assert "authorization" in allowed.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in allowed.headers
        answer = await client.post("/mcp", headers=ASKING | {"Origin": PAGE}, json=INITIALIZE)
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Mcp-Session-Id" in answer.headers["Access-Control-Expose-Headers"]
        refused = await client.options("/mcp", headers=ask | {"Origin": "https://evil.example"})
        assert refused.status_code == 403
        assert "Access-Control-Allow-Origin" not in refused.headers
    async with serve_http(sim) as served, by_hand(served) as client:
        assert (await client.options("/mcp", headers=ask | {"Origin": PAGE})).status_code == 403


async def test_what_stands_in_a_link_is_not_logged(sim: Simulator, serve_http: Serve) -> None:
    async with serve_http(sim, MJ_LOG_LEVEL="debug") as served, by_hand(served) as client:
        await client.get(
            "/mcp?token=canary-in-a-query&code=canary-in-a-query",
            headers={"Authorization": "Bearer canary-in-a-header"},
        )
        await client.get("/nowhere?token=canary-in-a-query", headers={"Host": "evil.example"})
        assert (await client.get("/files/canary-in-a-path")).status_code == 404
        assert served.logged("http_refused") != []
        assert await served.stop() == 0
    assert "canary" not in served.log.read_text()
