"""The server behind Caddy and nginx themselves, set up by `deploy/Caddyfile` and the nginx block of `docs/deploy.md`.

The programs are Debian's; `make proxies-install` unpacks them, and the gate does that first. The test sets the name of
the site, addresses and ports, and Caddy's admin and trust switches. Everything is on loopback.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import ssl
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trustme
from authority import Authority
from conftest import PROTOCOLS, Caller, Served
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from mj_mcp.auth.tokens import SCOPES, add_token
from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
INSTALLED = Path(sys.prefix) / "proxies"
PATIENCE = 60.0

Serve = Callable[..., AbstractAsyncContextManager[Served]]


def program(name: str) -> str:
    """Where this program is. The gate fails without it; elsewhere the test is skipped."""
    folders = [INSTALLED / "usr/bin", INSTALLED / "usr/sbin", *map(Path, os.get_exec_path()), Path("/usr/sbin")]
    found = shutil.which(name, path=os.pathsep.join(map(str, folders)))
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{name} is missing: `make proxies-install`")
    if found is None:
        pytest.skip(f"{name} is missing: `make proxies-install` unpacks Debian's")
    return found


@dataclass
class Front:
    """A reverse proxy that ends TLS: how it is started, and the authority that signed its certificate."""

    url: str
    authority: Path
    command: list[str]
    env: dict[str, str] = field(default_factory=dict)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@asynccontextmanager
async def running(front: Front, port: int, folder: Path) -> AsyncIterator[None]:
    """The program, once it listens."""
    log = folder / "log"
    with log.open("wb") as out:
        env = {"HOME": str(folder), **front.env}
        process = await anyio.open_process(front.command, env=env, stdout=out, stderr=out, cwd=folder)
    try:
        with anyio.fail_after(PATIENCE):
            while not _listens(port):
                assert process.returncode is None, log.read_text()
                await anyio.sleep(0.02)
        yield
    finally:
        process.terminate()
        await process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def caddy(port: int, upstreams: list[str], folder: Path) -> Front:
    """Caddy by `deploy/Caddyfile`. It makes an authority of its own for a site that is `localhost`."""
    text = (ROOT / "deploy/Caddyfile").read_text()
    assert "mj-mcp-a:8080 mj-mcp-b:8080" in text
    text = text.replace("mj-mcp-a:8080 mj-mcp-b:8080", " ".join(upstreams))
    switches = ["admin off", "skip_install_trust", "default_bind 127.0.0.1", f"http_port {free_port()}"]
    file = folder / "Caddyfile"
    file.write_text("{\n" + "\n".join(switches) + "\n}\n" + text)
    command = [program("caddy"), "run", "--config", str(file), "--adapter", "caddyfile"]
    site = f"localhost:{port}"
    authority = folder / "caddy/pki/authorities/local/root.crt"
    return Front(f"https://{site}", authority, command, {"MJ_SITE": site, "XDG_DATA_HOME": str(folder)})


def nginx(port: int, upstreams: list[str], folder: Path) -> Front:
    """nginx by the block of `docs/deploy.md`, which is for one server."""
    guide = (ROOT / "docs/deploy.md").read_text()
    (block,) = re.findall(r"inside `server \{ listen 443 ssl; \.\.\. \}`:\n\n((?:    .*\n)+)", guide)
    assert "http://127.0.0.1:8080;" in block
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "site.pem")
    temporary = [f"{name}_temp_path {folder}/{name};" for name in ("proxy", "fastcgi", "uwsgi", "scgi", "client_body")]
    lines = [
        f"daemon off; user {getpass.getuser()}; pid {folder}/pid; worker_processes 1; error_log stderr; events {{}}",
        f"http {{ access_log off; {' '.join(temporary)} server {{",
        f"listen 127.0.0.1:{port} ssl; server_name localhost;",
        f"ssl_certificate {folder}/site.pem; ssl_certificate_key {folder}/site.pem;",
        textwrap.dedent(block).replace("http://127.0.0.1:8080;", f"http://{upstreams[0]};"),
        "}}",
    ]
    file = folder / "nginx.conf"
    file.write_text("\n".join(lines))
    command = [program("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(file)]
    return Front(f"https://localhost:{port}", folder / "authority.pem", command)


FRONTS = {"caddy": caddy, "nginx": nginx}


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
