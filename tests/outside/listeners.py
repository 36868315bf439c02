"""Clients that listen to resources, as each generation of the protocol does."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from conftest import PROTOCOLS, Caller, Served, environment
from lives import PATIENCE
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import ResourceUpdatedNotification

from mj_mcp.simulator import Simulator

MODERN, OLDER = PROTOCOLS


class Listener(Caller):
    """A real client, and the URIs of which it was notified, in order."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.heard: list[str] = []
        self._listeners = anyio.Event()

    def hear(self, uri: str) -> None:
        self.heard.append(uri)
        self._listeners.set()

    async def until(self, uri: str, times: int = 1) -> None:
        """Wait until it was notified of `uri` so often."""
        with anyio.fail_after(PATIENCE):
            while self.heard.count(uri) < times:
                self._listeners = anyio.Event()
                await self._listeners.wait()

    async def read(self, uri: str) -> Any:
        return json.loads((await self.client.read_resource(uri)).contents[0].text)  # type: ignore[union-attr]

    @asynccontextmanager
    async def listen(self, *uris: str) -> AsyncIterator[None]:
        """Listen, as its generation does."""
        if self.client.session.protocol_version != MODERN:
            for uri in uris:
                await self.client.subscribe_resource(uri)
            yield
            return
        async with self.client.listen(resource_subscriptions=uris) as stream, anyio.create_task_group() as group:

            async def follow() -> None:
                async for event in stream:
                    self.hear(event.uri)  # type: ignore[union-attr]

            group.start_soon(follow)
            yield
            group.cancel_scope.cancel()


@asynccontextmanager
async def client_of(target: Any, protocol: str) -> AsyncIterator[Listener]:
    """A client of `target`, which is whatever the SDK's client takes."""
    found: list[Listener] = []

    async def on_message(message: object) -> None:
        if protocol != MODERN and isinstance(message, ResourceUpdatedNotification):
            found[0].hear(message.params.uri)

    mode = "auto" if protocol == MODERN else "legacy"
    async with Client(target, mode=mode, message_handler=on_message) as client:
        found.append(Listener(client))
        yield found[0]


@asynccontextmanager
async def over_stdio(sim: Simulator, home: Path, protocol: str, **extra: str) -> AsyncIterator[Listener]:
    env = environment(sim.url, home, **extra)
    parameters = StdioServerParameters(command=sys.executable, args=["-m", "mj_mcp"], env=env)
    with (home / "listener.log").open("a") as errlog:
        async with client_of(stdio_client(parameters, errlog=errlog), protocol) as listener:
            yield listener


@asynccontextmanager
async def over_http(served: Served, protocol: str, token: str | None = None) -> AsyncIterator[Listener]:
    """Once it is there, an older client also reads what its session is sent: its stream has been opened."""
    opened = anyio.Event()

    async def note(answer: Any) -> None:
        if answer.request.method == "GET":
            opened.set()

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with create_mcp_http_client(headers=headers) as http:
        http.event_hooks = {"response": [note]}
        async with client_of(streamable_http_client(served.url, http_client=http), protocol) as listener:
            if protocol != MODERN:
                with anyio.fail_after(PATIENCE):
                    await opened.wait()
            yield listener
