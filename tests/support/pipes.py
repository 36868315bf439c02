"""A server process on raw pipes, and a host that writes lines to it by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from conftest import environment

from mj_mcp.simulator import Simulator

PATIENCE = 30.0
SERVER = ["-m", "mj_mcp"]


class Host:
    """What starts the server and talks to it in lines, with nothing between."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lines: list[bytes] = []
        self._asked = 0

    def send(self, method: str, **params: Any) -> int:
        self._asked += 1
        self.write({"jsonrpc": "2.0", "id": self._asked, "method": method, "params": params})
        return self._asked

    def write(self, *messages: dict[str, Any]) -> None:
        """Write these messages at once."""
        self.put(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def put(self, raw: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(raw)
        self.process.stdin.flush()

    def next(self) -> dict[str, Any]:
        """Read one message."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server ended early"
        self.lines.append(line)
        message = json.loads(line)
        assert isinstance(message, dict)
        assert message["jsonrpc"] == "2.0"
        return message

    def read(self, number: int) -> dict[str, Any]:
        """Read up to the answer with this number."""
        while (message := self.next()).get("id") != number:
            pass
        return message

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        return self.read(self.send(method, **params))

    def greet(self) -> None:
        client = {"name": "by-hand", "version": "1"}
        self.ask("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=client)
        self.write({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def buy(self, prompt: str = "a mug") -> str:
        arguments = {"prompt": prompt, "wait_seconds": 0}
        answer = self.ask("tools/call", name="generate_image", arguments=arguments)
        return str(answer["result"]["structuredContent"]["task_id"])

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


@contextmanager
def host(sim: Simulator, home: Path, arguments: list[str] = SERVER, **extra: str) -> Iterator[Host]:
    """A server and its host. A watchdog ends what hangs: a read on a pipe has no time limit of its own."""
    with (home / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **environment(sim.url, home, **extra)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        watchdog = threading.Timer(2 * PATIENCE, process.kill)
        watchdog.start()
        try:
            yield Host(process)
        finally:
            watchdog.cancel()
            process.kill()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            process.wait()
