"""What every client in Python shares: steps come in as lines, what reached the caller goes out as lines."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

SERVER: dict[str, Any] = json.loads(os.environ["HOSTS_SERVER"])
"""{command, args, env} of a server to spawn, or {url} of one that runs."""


@dataclass(frozen=True, slots=True)
class Step:
    """A tool call that a caller is to make."""

    tool: str
    arguments: dict[str, Any]


async def ask(answer: dict[str, Any]) -> Step | None:
    """Say what reached the caller; what it is to do next, None when there is nothing more."""
    print(f"@@{json.dumps(answer)}", flush=True)
    line = await asyncio.to_thread(sys.stdin.readline)
    return Step(**json.loads(line)) if line else None


def declared(package: str, tools: list[dict[str, Any]]) -> dict[str, Any]:
    """What is said first: the version, and the tools, each with `name`, `description` and `schema` or `parameters`."""
    return {"version": version(package), "tools": [{"schema": tool.get("parameters"), **tool} for tool in tools]}


def reached(*parts: str | bytes, raised: str = "") -> dict[str, Any]:
    """What a caller was given: texts, and pictures as base64 in bytes."""
    return {
        "text": "\n".join(part for part in parts if isinstance(part, str)),
        "pictures": [part.decode() for part in parts if isinstance(part, bytes)],
        "raised": raised,
    }


async def play(first: dict[str, Any], call: Callable[[Step], Awaitable[dict[str, Any]]]) -> None:
    """Make each step that comes with `call`; what it raises is what the caller has."""
    step = await ask(first)
    while step is not None:
        try:
            answer = await call(step)
        except Exception as error:  # noqa: BLE001 - what it raises is what the caller has
            answer = reached(str(error), raised=type(error).__name__)
        step = await ask(answer)
