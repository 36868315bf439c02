"""A whole job as a host would run it: a real server process, a real client, the built-in simulator.

Owns the steps of `mj-mcp demo`. Prints nothing itself: the caller passes in the output.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import ImageContent
from pydantic import SecretStr

from mj_mcp.files import make_folder
from mj_mcp.settings import Settings
from mj_mcp.simulator import Simulator

DEMO_KEY = "demo-key"
SPEED = 8.0
"""Jobs of 30 s take 4 s."""


HOST_SPEED = 2.0
"""In a host, a job takes 15 s: long enough to show that the call waits."""


@asynccontextmanager
async def demo_settings(settings: Settings) -> AsyncIterator[Settings]:
    """The settings of a server with its own simulator and a temporary journal."""
    with tempfile.TemporaryDirectory(prefix="mj-mcp-demo-") as data:
        async with Simulator(key=DEMO_KEY, speed=HOST_SPEED, report_progress=True) as simulator:
            proxy = {"api_key": SecretStr(DEMO_KEY), "base_url": simulator.url}
            journal = {"data_dir": Path(data), "database_url": SecretStr("")}
            yield settings.model_copy(update=proxy | journal)


Say = Callable[[str], None]
Bars = Callable[[str], AbstractContextManager[Callable[[float, str], None]]]
"""Opens a progress bar with this label. What it gives takes the per cent that are done, and a label."""


async def run_demo(prompt: str, out: Path, say: Say, bars: Bars) -> None:
    """Imagine, upscale, vary, reroll and a simple-change. The pictures are saved in `out`."""
    with tempfile.TemporaryDirectory(prefix="mj-mcp-demo-") as data, _log(out).open("w") as log:
        async with Simulator(key=DEMO_KEY, speed=SPEED, report_progress=True) as simulator:
            say(f"A simulated Midjourney Proxy runs at {simulator.url}; nothing is spent.")
            server = StdioServerParameters(
                command=sys.executable,
                args=["-m", "mj_mcp", "serve"],
                env={
                    "MJ_API_KEY": DEMO_KEY,
                    "MJ_BASE_URL": simulator.url,
                    "MJ_DATA_DIR": data,
                    "MJ_OUTPUT_DIR": str(_log(out).parent),
                    "MJ_POLL_SECONDS": "0.5",
                    "MJ_IMAGE_FORMAT": "png",  # every viewer opens it
                },
            )
            async with Client(stdio_client(server, errlog=log)) as client:
                await _make_five(client, prompt, out, say, bars)
    say(f"The server's log is {_log(out)}.")


async def _make_five(client: Client, prompt: str, out: Path, say: Say, bars: Bars) -> None:
    """A grid, and a picture by each of the four changes."""
    tools = await client.list_tools()
    say(f"The server offers {', '.join(tool.name for tool in tools.tools)}.")
    grid = await _run(client, bars, out, say, "generate_image", prompt=prompt)
    await _run(client, bars, out, say, "upscale_image", task_id=grid, index=2)
    await _run(client, bars, out, say, "vary_image", task_id=grid, index=3)
    await _run(client, bars, out, say, "reroll", task_id=grid)
    await _run(client, bars, out, say, "simple_change", content=f"{grid} U1")


async def _run(client: Client, bars: Bars, out: Path, say: Say, tool: str, **arguments: Any) -> str:  # noqa: ANN401 - a tool's arguments
    """One tool call, followed to its end as an agent would, with a progress bar."""
    label = tool.ljust(16)
    with bars(label) as done:

        async def show(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001 - the SDK's signature
            done(progress, label)

        result = await client.call_tool(tool, {**arguments, "wait_seconds": 25}, progress_callback=show)
        task: dict[str, Any] = result.structured_content or {}
        while not result.is_error and task["next"] and task["next"][0]["tool"] == "get_task":
            follow = task["next"][0]
            result = await client.call_tool(follow["tool"], follow["arguments"], progress_callback=show)
            task = result.structured_content or {}
        done(100, label)
    if result.is_error:
        raise SystemExit(f"{tool} did not work: {result.content}")
    for block in result.content:
        if isinstance(block, ImageContent):
            sheet = out / f"{task['task_id']}-sheet.{block.mime_type.removeprefix('image/')}"
            await asyncio.to_thread(sheet.write_bytes, base64.b64decode(block.data))
            say(f"    what the model sees: {sheet.absolute()}")
    saved = await client.call_tool("save_images", {"task_id": task["task_id"]})
    for file in (saved.structured_content or {})["files"]:
        say(f"    {file['path']}")
    return str(task["task_id"])


def _log(out: Path) -> Path:
    make_folder(out)
    return out.resolve() / "server.log"
