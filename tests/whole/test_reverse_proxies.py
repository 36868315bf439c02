"""Two replicas behind Caddy and nginx themselves: progress arrives, links open, over TLS."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from authority import Authority
from conftest import PROTOCOLS, Caller, Served
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from reverse_proxies import FRONTS, PATIENCE, Front, free_port, program, running

from mj_mcp.auth.tokens import SCOPES, add_token
from mj_mcp.simulator import Simulator

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture(params=FRONTS)
async def front(
    request: pytest.FixtureRequest, sim: Simulator, serve_http: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Front]:
    """Two replicas, an issuer of logins, and a reverse proxy in front, which is trusted by every client here."""
    program(request.param)
    port, folder = free_port(), tmp_path / "front"
    folder.mkdir()
    with Authority() as issuer:
        env = {"MJ_PUBLIC_URL": f"https://localhost:{port}", "MJ_AUTH_ISSUER": issuer.url, "MJ_SECRET_KEY": "s" * 32}
        # In containers the reverse proxy has another address, whose X-Forwarded-Proto nobody believes.
        env["FORWARDED_ALLOW_IPS"] = "127.0.0.9"
        async with (
            serve_http(sim, "--stateless", name="a", **env) as one,
            serve_http(sim, "--stateless", name="b", **env) as other,
        ):
            upstreams = [replica.base.removeprefix("http://") for replica in (one, other)]
            found = FRONTS[request.param](port, upstreams, folder)
            monkeypatch.setenv("SSL_CERT_FILE", str(found.authority))
            async with running(found, port, folder):
                yield found


@asynccontextmanager
async def caller(front: Front, token: str, protocol: str) -> AsyncIterator[Caller]:
    mode: Any = protocol if protocol == PROTOCOLS[0] else "legacy"
    async with (
        create_mcp_http_client(headers={"Authorization": f"Bearer {token}"}) as http,
        Client(streamable_http_client(f"{front.url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield Caller(client)


def browser(front: Front) -> httpx.AsyncClient:
    trusted = ssl.create_default_context(cafile=str(front.authority))
    return httpx.AsyncClient(base_url=front.url, verify=trusted, trust_env=False, timeout=PATIENCE)


async def test_callers_see_progress_and_open_their_pictures_over_tls(
    front: Front, sim: Simulator, tmp_path: Path
) -> None:
    """A job ends only when its progress has been heard, so a proxy that holds answers back would never end it."""
    heard: list[str] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append(protocol)
        sim.finish(sim.ledger[-1].task_id)

    token = add_token(tmp_path / "data/tokens.json", "anna", SCOPES, now=0.0)
    for protocol in PROTOCOLS:
        async with caller(front, token, protocol) as anna, browser(front) as anywhere:
            with anyio.fail_after(PATIENCE):
                result = await anna.client.call_tool(
                    "generate_image", {"prompt": protocol, "wait_seconds": 30}, progress_callback=progress
                )
            task: Any = result.structured_content
            assert task["status"] == "succeeded"
            assert protocol in heard
            assert len(task["images"]) == 4
            for image in task["images"]:
                assert image["url"].startswith(f"{front.url}/files/")
                opened = await anywhere.get(image["url"])
                assert (opened.status_code, opened.content[:4]) == (200, b"\x89PNG")
    assert len(sim.submits()) == len(PROTOCOLS)


async def test_metadata_and_health_from_outside(front: Front) -> None:
    async with browser(front) as anywhere:
        refused = await anywhere.post("/mcp")
        assert refused.status_code == 401
        (where,) = re.findall(r'resource_metadata="([^"]+)"', refused.headers["www-authenticate"])
        assert where == f"{front.url}/.well-known/oauth-protected-resource/mcp"
        assert (await anywhere.get(where)).json()["resource"] == f"{front.url}/mcp"
        for path in ("/healthz", "/readyz", "/%68ealthz", "//readyz", "/mcp/../healthz", "/healthz?x=1"):
            answer = await anywhere.get(front.url + path)
            assert (path, answer.status_code) == (path, 404)
            assert "mj" not in answer.text
