"""A minimal agent: draw, wait with `next`, look, choose, make large, save. Checks itself.

The model's part is one function, `Choose`. Runs against the built-in simulator, so it needs no key and costs nothing.
For the real proxy, drop the simulator and put your own MJ_BASE_URL and MJ_API_KEY into the environment.
`with_pydantic_ai.py` is the same through a framework, where the model does every step.
"""

from __future__ import annotations

import asyncio
import base64
import io
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_types import ImageContent
from PIL import Image

from mj_mcp.simulator import Simulator

Task = dict[str, Any]

Choose = Callable[[str, bytes], Awaitable[int]]
"""The model's part: which of the four pictures on this contact sheet fits the wish best, 1 to 4."""


async def brightest(_wish: str, sheet: bytes) -> int:
    """Stands in for a model. A real one is sent the wish and the sheet, and asked for a number."""
    with Image.open(io.BytesIO(sheet)) as image:
        tiles = image.convert("L").resize((2, 2), Image.Resampling.BOX).tobytes()
    return 1 + tiles.index(max(tiles))


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


async def look(client: Client, task: Task) -> bytes:
    """The contact sheet of a finished task."""
    result = await client.call_tool("view_image", {"task_id": task["task_id"]})
    (picture,) = [block for block in result.content if isinstance(block, ImageContent)]
    return base64.b64decode(picture.data)


async def make_picture(client: Client, wish: str, choose: Choose) -> Path:
    """A grid of four, the best of them large, and its file."""
    started = await call(client, "generate_image", {"prompt": wish, "aspect_ratio": "3:2", "wait_seconds": 0.5})
    assert started["status"] in {"queued", "processing"}, "half a second is not enough, and that is no error"
    grid = await finished(client, started)
    assert grid["status"] == "succeeded"
    assert grid["task_id"] == started["task_id"]
    assert [image["index"] for image in grid["images"]] == [1, 2, 3, 4]
    print(f"grid {grid['task_id']}: {len(grid['images'])} pictures")

    best = await choose(wish, await look(client, grid))
    large = await finished(client, await call(client, "upscale_image", {"task_id": grid["task_id"], "index": best}))
    assert (large["status"], large["parent_id"], large["index"]) == ("succeeded", grid["task_id"], best)
    saved = await call(client, "save_images", {"task_id": large["task_id"], "name": "boat"})
    (file,) = saved["files"]
    print(f"picture {best}, large: {file['path']}")
    return Path(file["path"])


async def main() -> None:
    """Start a simulator and a server that uses it, and work with them as a host would."""
    async with Simulator(key="any", speed=15) as simulator:
        with tempfile.TemporaryDirectory() as folder:
            environment = {
                "MJ_API_KEY": "any",
                "MJ_BASE_URL": simulator.url,
                "MJ_DATA_DIR": folder,
                "MJ_OUTPUT_DIR": folder,
                "MJ_POLL_SECONDS": "0.5",
                "MJ_LOG_LEVEL": "warning",
            }
            server = StdioServerParameters(command=sys.executable, args=["-m", "mj_mcp"], env=environment)
            async with Client(stdio_client(server)) as client:
                file = await make_picture(client, "a paper boat", brightest)
            assert file.stat().st_size, "the picture is on the disk"
        assert [charge.endpoint for charge in simulator.ledger] == ["imagine", "change"], "two jobs were paid for"


if __name__ == "__main__":
    asyncio.run(main())
