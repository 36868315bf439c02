"""Requests to a server over HTTP that are written by hand.

A plugin of pytest: its fixtures are there for every test.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from conftest import INITIALIZE, Served

from mj_mcp.settings import Settings

PATIENCE = 60.0


MODERN = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}
ASKING = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "by-hand", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
LIST_TOOLS = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}})


@asynccontextmanager
async def by_hand(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, base_url=served.base, timeout=PATIENCE) as client:
        yield client


async def open_session(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post("/mcp", headers=ASKING, json=INITIALIZE)


async def ping(client: httpx.AsyncClient, session: str) -> int:
    headers = ASKING | {"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}
    answer = await client.post("/mcp", headers=headers, json={"jsonrpc": "2.0", "id": 2, "method": "ping"})
    return answer.status_code


OURS = "mcp.example.com"


@pytest.fixture
def sim_settings(settings_for: Callable[..., Settings]) -> Callable[..., Settings]:
    return lambda **extra: settings_for("http://127.0.0.1:9", **extra)
