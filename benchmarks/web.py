"""A client of nothing but HTTP requests, so that what is measured is the server's share; the twin of `pipe.py`.

Each call under way has a connection of its own, which is kept and used again.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY

MODERN, OLDER = "2026-07-28", "2025-06-18"

CLIENT = {"name": "benchmark", "version": "1"}
START_SECONDS = 30.0
KEPT_SECONDS = 2.0
"""How long an idle connection is used again: servers close theirs after 5 s."""


class Server:
    """A server process that listens, and a client of it that has shaken hands where its protocol wants that."""

    def __init__(
        self,
        arguments: list[str],
        env: Mapping[str, str] | None = None,
        *,
        protocol: str = MODERN,
        stateless: bool = False,
    ) -> None:
        """Spawn `python ARGUMENTS serve --http`. The log goes nowhere, as its reader would share the processor."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        options = ["serve", "--http", "--port", str(self._port)]
        self._process = subprocess.Popen(
            [sys.executable, *arguments, *options, *(["--stateless"] if stateless else [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )
        self._protocol = protocol
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": protocol,
        }
        self._numbers = itertools.count(1)
        self._idle: list[tuple[float, HTTPConnection]] = []
        self._busy: dict[int, HTTPConnection] = {}
        self._wait_until_it_listens()
        if protocol == OLDER:
            self._shake_hands()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in (*(one for _, one in self._idle), *self._busy.values()):
            connection.close()
        self._process.terminate()
        self._process.wait()

    @property
    def resident_kib(self) -> int:
        """The memory of the server's process, as Linux counts it."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))

    @property
    def busy_seconds(self) -> float:
        """The processor time that the server's process has had. It means something on a busy machine too."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ping(self) -> None:
        """The cheapest request that there is."""
        self.ask("ping" if self._protocol == OLDER else "server/discover")

    def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request and its result."""
        return self.answer(self.begin(method, params))

    def begin(self, method: str, params: dict[str, Any] | None = None) -> int:
        """Send one request; its number leads to its answer."""
        number, params = next(self._numbers), dict(params or {})
        headers = self._headers
        if self._protocol == MODERN:
            params["_meta"] = {
                PROTOCOL_VERSION_META_KEY: MODERN,
                CLIENT_INFO_META_KEY: CLIENT,
                CLIENT_CAPABILITIES_META_KEY: {},
            }
            headers = {**headers, "Mcp-Method": method, **({"Mcp-Name": params["name"]} if "name" in params else {})}
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        self._busy[number] = self._post(message, headers)
        return number

    def body(self, number: int) -> bytes:
        """The answer to the request with this number, unread."""
        connection = self._busy.pop(number)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        self._idle.append((time.monotonic(), connection))
        return body

    def answer(self, number: int) -> dict[str, Any]:
        """The result of the request with this number; notifications on the way are dropped."""
        body = self.body(number)
        lines = (
            [body] if body.startswith(b"{") else [line[5:] for line in body.splitlines() if line.startswith(b"data:")]
        )
        messages = [json.loads(line) for line in lines if line.strip()]
        result: dict[str, Any] = next(message["result"] for message in messages if message.get("id") == number)
        return result

    def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """One tool call that must work."""
        result = self.ask("tools/call", {"name": tool, "arguments": arguments})
        assert not result.get("isError"), result
        return result

    def _post(self, message: dict[str, Any], headers: dict[str, str]) -> HTTPConnection:
        connection = self._connection()
        connection.request("POST", "/mcp", json.dumps(message), headers)
        return connection

    def _connection(self) -> HTTPConnection:
        while self._idle:
            since, connection = self._idle.pop()
            if time.monotonic() - since < KEPT_SECONDS:
                return connection
            connection.close()
        return HTTPConnection("127.0.0.1", self._port)

    def _shake_hands(self) -> None:
        hello = {"protocolVersion": OLDER, "capabilities": {}, "clientInfo": CLIENT}
        connection = self._post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}, self._headers)
        response = connection.getresponse()
        session = response.getheader("Mcp-Session-Id")
        response.read()
        assert response.status == 200
        if session:
            self._headers["Mcp-Session-Id"] = session
        connection = self._post({"jsonrpc": "2.0", "method": "notifications/initialized"}, self._headers)
        response = connection.getresponse()
        response.read()
        assert response.status == 202

    def _wait_until_it_listens(self) -> None:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port)).close()
            except ConnectionRefusedError:
                assert time.monotonic() < until, "it does not listen"
                assert self._process.poll() is None, "it ended"
                time.sleep(0.02)
            else:
                return
