"""The MCP Inspector: its command line, and its web page as a host of views. `make views-install` brings both."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import anyio
from browsers import INSTALLED
from reverse_proxies import free_port

PATIENCE = 60
MODULES = INSTALLED / "node_modules"
INSPECTOR = (
    str(MODULES / ".bin/node"),
    str(MODULES / "@modelcontextprotocol/inspector/clients/launcher/build/index.js"),
)
TOKEN = "the-token-of-this-inspector"


class Inspector:
    """An Inspector that listens on loopback, alone with its settings."""

    def __init__(self, origin: str) -> None:
        self.origin = origin

    def link(self, server: str, tool: str, **arguments: Any) -> str:
        """The page that connects to a server over HTTP and fills in the form of a tool with a view."""
        filled_in = base64.urlsafe_b64encode(json.dumps(arguments).encode()).decode().rstrip("=")
        query = {"serverUrl": server, "transport": "http", "autoConnect": TOKEN}
        return f"{self.origin}/?{urlencode(query | {'openApp': tool, 'appArgs': filled_in})}"


@asynccontextmanager
async def inspecting(home: Path) -> AsyncIterator[Inspector]:
    """It opens no browser and keeps its secrets in memory; what it keeps besides is in `home`."""
    port, log = free_port(), home / "inspector.log"
    settings = {
        "HOST": "127.0.0.1",
        "CLIENT_PORT": str(port),
        "MCP_SANDBOX_PORT": "0",
        "MCP_APP_ORIGIN_PORT": "0",
        "MCP_AUTO_OPEN_ENABLED": "false",
        "MCP_INSPECTOR_API_TOKEN": TOKEN,
        "MCP_INSPECTOR_SECRET_STORE": "memory",
        "MCP_STORAGE_DIR": str(home / "inspector"),
    }
    with log.open("wb") as out:
        process = await anyio.open_process(
            [*INSPECTOR, "--web"],
            env={"PATH": os.environ["PATH"], "HOME": str(home), **settings},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=home,
        )
    try:
        with anyio.fail_after(PATIENCE):
            while "is up and running" not in log.read_text():
                assert process.returncode is None, log.read_text()
                await anyio.sleep(0.05)
        yield Inspector(f"http://127.0.0.1:{port}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
