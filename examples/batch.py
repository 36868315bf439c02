"""A batch: one process submits several pictures and ends; another process collects them later. Checks itself.

    python examples/batch.py                              both, against the built-in simulator; costs nothing
    python examples/batch.py submit ids.txt PROMPT ...    with your own MJ_BASE_URL and MJ_API_KEY; costs money
    python examples/batch.py collect ids.txt              whenever you like; saves the originals

Nothing is lost in between: the server's journal has each task before it is submitted, and the proxy draws on.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from mj_mcp.simulator import Simulator

Facts = dict[str, Any]

PROMPTS = ("a paper boat", "a paper crane", "a paper lantern")
MOST = 20
"""The most ids that one `wait_for_tasks` takes."""


@asynccontextmanager
async def server() -> AsyncIterator[Client]:
    """A server of this process, with the MJ_ variables of the environment."""
    variables = {name: value for name, value in os.environ.items() if name.startswith("MJ_")}
    command = StdioServerParameters(command=sys.executable, args=["-m", "mj_mcp"], env=variables)
    async with Client(stdio_client(command)) as client:
        yield client


async def call(client: Client, tool: str, arguments: Facts) -> Facts:
    """One tool call. What did not work says why in its text; for programs, in `_meta`."""
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        raise RuntimeError((result.meta or {}).get("io.github.mj-mcp/error") or result.content)
    return result.structured_content or {}


async def submit(prompts: list[str], note: Callable[[str], object]) -> None:
    """Start a job for each prompt, and note its id at once. Nothing waits for a picture."""
    async with server() as client:
        for prompt in prompts:
            task = await call(client, "generate_image", {"prompt": prompt, "wait_seconds": 0})
            note(task["submission_id"] + "\n")  # there from the start, whatever becomes of the submit
            print(f"submitted {task['submission_id']}: {prompt}")


async def collect(ids: list[str]) -> None:
    """Wait until no job moves any more, and save the pictures of those that succeeded. May run as often as you like."""
    async with server() as client:
        seen = await call(client, "wait_for_tasks", {"task_ids": ids})
        while seen["open"]:
            seen = await call(client, "wait_for_tasks", {"task_ids": ids})
        for task in seen["tasks"]:
            saved: Facts = {}
            name = task.get("task_id") or task["submission_id"]
            if task["status"] == "succeeded":
                saved = await call(client, "save_images", {"task_id": name})
            print(f"{name}: {task['status']}, {len(saved.get('files', ()))} files")


async def run(*arguments: str) -> None:
    """This program again, as another process, until it ends."""
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, *arguments)
    assert await process.wait() == 0


async def rehearse(folder: Path) -> None:
    """Submit, leave and collect, with the simulator in the place of the proxy."""
    async with Simulator(key="any", speed=15, image_edge=256) as simulator:
        os.environ |= {
            "MJ_API_KEY": "any",
            "MJ_BASE_URL": simulator.url,
            "MJ_DATA_DIR": str(folder / "data"),
            "MJ_OUTPUT_DIR": str(folder / "pictures"),
            "MJ_POLL_SECONDS": "0.5",
            "MJ_LOG_LEVEL": "warning",
        }
        await run("submit", str(folder / "ids.txt"), *PROMPTS)
        await run("collect", str(folder / "ids.txt"))
        assert [charge.endpoint for charge in simulator.ledger] == ["imagine"] * len(PROMPTS), "each was paid for once"


def main() -> None:
    """Choose by the first argument."""
    match sys.argv[1:]:
        case []:
            with tempfile.TemporaryDirectory() as folder:
                asyncio.run(rehearse(Path(folder)))
                saved = [path for path in Path(folder, "pictures").iterdir() if path.suffix != ".json"]
                assert len(saved) == 4 * len(PROMPTS), saved
        case ["submit", name, *prompts] if 1 <= len(prompts) <= MOST:
            with Path(name).open("x", encoding="utf-8", buffering=1) as file:
                asyncio.run(submit(prompts, file.write))
        case ["collect", name]:
            asyncio.run(collect(Path(name).read_text(encoding="utf-8").split()))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
