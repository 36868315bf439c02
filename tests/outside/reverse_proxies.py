"""Caddy and nginx themselves, set up by `deploy/Caddyfile` and the nginx block of `docs/deploy.md`.

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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import anyio
import pytest
import trustme

ROOT = Path(__file__).parents[2]
INSTALLED = Path(sys.prefix) / "proxies"
PATIENCE = 60.0


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


PORTS = count(10_000 + os.getpid() % 20_000)
"""Below those that the system gives away by itself, so that nobody takes one before the reverse proxy does."""


def free_port() -> int:
    """A port that is free now and that nobody gets by chance."""
    for port in PORTS:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


@asynccontextmanager
async def running(front: Front, port: int, folder: Path) -> AsyncIterator[None]:
    """The program, once it ends TLS: Caddy listens before it has made its certificate."""
    log = folder / "log"
    with log.open("wb") as out:
        env = {"HOME": str(folder), **front.env}
        process = await anyio.open_process(front.command, env=env, stdout=out, stderr=out, cwd=folder)
    try:
        with anyio.fail_after(PATIENCE):
            while not _is_trusted(front, port):
                assert process.returncode is None, log.read_text()
                await anyio.sleep(0.02)
        yield
    finally:
        process.terminate()
        await process.wait()


def _is_trusted(front: Front, port: int) -> bool:
    try:
        trusted = ssl.create_default_context(cafile=str(front.authority))
        with socket.create_connection(("127.0.0.1", port), timeout=1) as wire:
            trusted.wrap_socket(wire, server_hostname="localhost").close()
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
