"""A client of nothing but JSON lines over pipes, so that what is measured is the server's share."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).parent
BARE = [str(HERE / "bare.py")]
OURS = ["-m", "mj_mcp"]


class Server:
    """A server process that has answered the handshake."""

    def __init__(self, arguments: list[str], env: Mapping[str, str] | None = None) -> None:
        """Spawn `python ARGUMENTS`. The log goes nowhere, as its reader would share the processor."""
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )
        self._asked = 0
        self._early: dict[int, dict[str, Any]] = {}
        client = {"name": "benchmark", "version": "1"}
        self.ask("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client})
        self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    @property
    def resident_kib(self) -> int:
        """The memory of the server's process, as Linux counts it."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))

    def ping(self) -> None:
        """The cheapest request that there is."""
        self.ask("ping")

    def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request and its result."""
        return self.answer(self.begin(method, params))

    def begin(self, method: str, params: dict[str, Any] | None = None) -> int:
        """Send one request; its number leads to its answer."""
        self._asked += 1
        self._write({"jsonrpc": "2.0", "id": self._asked, "method": method, "params": params or {}})
        return self._asked

    def answer(self, number: int) -> dict[str, Any]:
        """The result of the request with this number; answers to others are kept, notifications are dropped."""
        assert self._process.stdout is not None
        while number not in self._early:
            if not (line := self._process.stdout.readline()):
                raise RuntimeError("the server ended early")
            message = json.loads(line)
            if "result" in message:
                self._early[message["id"]] = message["result"]
        return self._early.pop(number)

    def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """One tool call that must work."""
        result = self.ask("tools/call", {"name": tool, "arguments": arguments})
        assert not result.get("isError"), result
        return result

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()


def percentile(values: list[float], share: float) -> float:
    """The value below which this share (of 1) lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def report(title: str, unit: str, rows: list[tuple[str, list[float], list[float], float | None]]) -> None:
    """A table: what, of the bare server, of ours, the ratio, and the target where there is one."""
    print(f"{title}\n{'':34}{'bare':>10}{'mj-mcp':>10}{'ratio':>8}{'target':>8}")
    for name, bare, ours, target in rows:
        ratio = statistics.median(ours) / statistics.median(bare)
        aim = f"{target:8.2f}" if target is not None else ""
        print(f"{f'{name}, {unit}':34}{statistics.median(bare):10.2f}{statistics.median(ours):10.2f}{ratio:8.2f}{aim}")
