"""A server of ours, a client's script in its own environment, and the lines that go between it and us.

Everything stays on loopback: what a framework sends home all the same ends at a port where nobody listens.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from judge import Reached, Tools
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from mj_mcp.simulator import Simulator

SCRIPTS = Path(__file__).parent / "clients"
STEP_SECONDS = 90.0
START_SECONDS = 60.0
END_SECONDS = 20.0
MOST_BYTES = 2**26
"""The longest line of a script: a result with pictures."""
_DEAD = "http://127.0.0.1:9"
_QUIET = {
    "AGNO_TELEMETRY": "false",
    "ANONYMIZED_TELEMETRY": "false",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "LANGCHAIN_TRACING_V2": "false",
    "MASTRA_TELEMETRY_DISABLED": "1",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "OTEL_SDK_DISABLED": "true",
}
"""The switches by which frameworks are told to send nothing home."""
_BLOCKED = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), _DEAD),
    "NO_PROXY": "127.0.0.1,localhost",
    "NODE_NO_WARNINGS": "1",
    "NODE_USE_ENV_PROXY": "1",
}


@dataclass(frozen=True, slots=True)
class Script:
    """One client: its name as the table shows it, its file, and the environment that it runs in.

    `gate`: `make hosts` runs it too; `http`: it is tried over HTTP as well; `cuts`: it cuts calls after 5 to 10 s.
    """

    name: str
    file: str
    environment: str
    gate: bool = False
    http: bool = False
    cuts: bool = False


class Session:
    """A client's script at work; `said` is what it answered so far, for a person to read."""

    def __init__(self, process: asyncio.subprocess.Process, said: list[str]) -> None:
        self._process = process
        self._said = said

    async def read(self) -> dict[str, Any]:
        """The next thing it says. Raises EOFError when it ends instead, TimeoutError when it says nothing."""
        assert self._process.stdout is not None
        async with asyncio.timeout(STEP_SECONDS):
            async for line in self._process.stdout:
                if line.startswith(b"@@"):  # frameworks print, too
                    answer: dict[str, Any] = json.loads(line[2:])
                    return answer
        raise EOFError

    async def call(self, tool: str, **arguments: Any) -> Reached:
        """Let it call a tool."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"tool": tool, "arguments": arguments}).encode() + b"\n")
        reached = Reached(**await self.read())
        count = f"{len(reached.pictures)} pictures" + (f", {reached.raised}" if reached.raised else "")
        self._said.append(f"{tool}: {reached.text[:500]!r}, {count}")
        return reached


@asynccontextmanager
async def serving(transport: str, home: Path, proxy: Simulator) -> AsyncIterator[dict[str, Any]]:
    """What a client is told of the server: what to spawn, or the URL of one that is ready."""
    arguments = ["-m", "mj_mcp", "serve"]
    variables = {
        "HOME": str(home),
        "PATH": os.defpath,
        "MJ_API_KEY": "test-key",
        "MJ_BASE_URL": proxy.url,
        "MJ_DATA_DIR": str(home / "data"),
        "MJ_OUTPUT_DIR": str(home / "pictures"),
        "MJ_POLL_SECONDS": "0.5",
    }
    if transport == "stdio":
        yield {"command": sys.executable, "args": arguments, "env": variables}
        return
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, "--http", "--port", "0", env=variables, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            said = b""
            while not (found := re.search(rb'"url": ?"([^"]+)"', said)):
                if not (line := await process.stderr.readline()):
                    raise EOFError(said.decode())
                said += line
        drain = asyncio.create_task(process.stderr.read())
        yield {"url": found[1].decode()}
        process.terminate()
        await drain
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def running(
    script: Script, folder: Path, home: Path, server: dict[str, Any], said: list[str]
) -> AsyncIterator[Session]:
    """The client's script, in its environment, in a scratch folder; it leaves when its input ends."""
    environment = folder / script.environment
    in_node = script.environment == "npm"  # its modules are found beside a script, which is copied there
    command = (
        [environment / "node_modules/node/bin/node", environment / script.file]
        if in_node
        else [environment / "bin/python", SCRIPTS / script.file]
    )
    with (home / "client.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            env={
                "HOME": str(home),
                "PATH": f"{command[0].parent}:{os.defpath}",
                "HOSTS_SERVER": json.dumps(server),
                **_QUIET,
                **_BLOCKED,
            },
            cwd=environment if in_node else home,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            limit=MOST_BYTES,
        )
        try:
            yield Session(process, said)
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let it leave; one that stays is killed."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), END_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


async def tools_of(server: dict[str, Any], home: Path) -> Tools:
    """The tools as the server lists them."""
    with (home / "server.log").open("w") as log:
        target = server["url"] if "url" in server else stdio_client(StdioServerParameters(**server), errlog=log)
        async with Client(target) as client:
            listed = await client.list_tools()
    return [{"name": t.name, "description": t.description, "schema": t.input_schema} for t in listed.tools]
