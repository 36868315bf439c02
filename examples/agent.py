"""A minimal agent-side client: draw, wait with `next`, choose a picture, make it large. Checks itself.

Runs against the built-in simulator, so it needs no key and costs nothing. For the real proxy, drop the simulator and
put your own MJ_BASE_URL and MJ_API_KEY into the environment.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from typing import Any

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from mj_mcp.simulator import Simulator

Task = dict[str, Any]


async def call(client: Client, tool: str, arguments: dict[str, Any]) -> Task:
    """One tool call. What did not work says why, and what to do, in its text; for programs, in `_meta`."""
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        raise RuntimeError((result.meta or {}).get("io.github.mj-mcp/error") or result.content)
    return result.structured_content or {}


async def finished(client: Client, task: Task) -> Task:
    """Wait for a task by doing what it says comes `next`. Nothing is ever submitted again to get a result."""
    while task["next"] and task["next"][0]["tool"] == "get_task":
        print(f"  {task['status']}, about {task.get('eta_seconds', '?')} s to go")
        task = await call(client, **task["next"][0])
    return task


async def make_pictures(client: Client) -> None:
    """A grid of four, then the second one large."""
    started = await call(
        client, "generate_image", {"prompt": "a paper boat", "aspect_ratio": "3:2", "wait_seconds": 0.5}
    )
    assert started["status"] in {"queued", "processing"}, "half a second is not enough, and that is no error"
    grid = await finished(client, started)
    assert grid["status"] == "succeeded"
    assert grid["task_id"] == started["task_id"]
    assert [image["index"] for image in grid["images"]] == [1, 2, 3, 4]
    print(f"grid {grid['task_id']}: {len(grid['images'])} pictures")

    large = await finished(client, await call(client, "upscale_image", {"task_id": grid["task_id"], "index": 2}))
    assert (large["status"], large["parent_id"], large["index"]) == ("succeeded", grid["task_id"], 2)
    print(f"picture 2, large: {large['images'][0]['url']}")


async def main() -> None:
    """Start a simulator and a server that uses it, and work with them as a host would."""
    async with Simulator(key="any", speed=15) as simulator:
        with tempfile.TemporaryDirectory() as folder:
            environment = {
                "MJ_API_KEY": "any",
                "MJ_BASE_URL": simulator.url,
                "MJ_DATA_DIR": folder,
                "MJ_POLL_SECONDS": "0.5",
                "MJ_LOG_LEVEL": "warning",
            }
            server = StdioServerParameters(command=sys.executable, args=["-m", "mj_mcp"], env=environment)
            async with Client(stdio_client(server)) as client:
                await make_pictures(client)
        assert [charge.endpoint for charge in simulator.ledger] == ["imagine", "change"], "two jobs were paid for"


if __name__ == "__main__":
    asyncio.run(main())
