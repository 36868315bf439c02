"""The first start: without a key the server says where to put it, and `serve --demo` needs none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from anyio import fail_after
from conftest import HOST, PROTOCOLS, Caller, measured
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from mj_mcp.simulator import Simulator

pytestmark = pytest.mark.anyio

Spawn = Callable[..., AbstractAsyncContextManager[Caller]]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_without_a_key_every_call_says_where_to_put_it(protocol: str, sim: Simulator, spawn: Spawn) -> None:
    arguments = {"prompt": "a mug", "content": "1 R", "task_id": "1", "task_ids": ["1"], "index": 1, "button": "Zoom"}
    async with spawn(sim, protocol=protocol, MJ_API_KEY="") as caller:
        tools = (await caller.client.list_tools()).tools
        assert len(tools) == 12
        for tool in tools:
            given = {name: arguments[name] for name in tool.input_schema.get("required", [])}
            error = await caller.error(tool.name, **given)
            assert error["code"] == "not_configured"
            assert "MJ_API_KEY" in error["message"]
            assert "MJ_API_KEY" in error["next_step"]
        for uri in ("mj://tasks/1", "mj://tasks/1/images/1"):
            with pytest.raises(Exception, match="MJ_API_KEY is not set"):
                await caller.client.read_resource(uri)
    assert sim.requests == []


@pytest.mark.slow
async def test_a_demo_server_makes_pictures_without_a_key(tmp_path: Path) -> None:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "mj_mcp", "serve", "--demo"],
        env={
            **measured(),
            "HOME": str(tmp_path),
            "MJ_OUTPUT_DIR": str(tmp_path / "pictures"),
            "MJ_POLL_SECONDS": "0.5",
        },
    )
    with (tmp_path / "log").open("w") as log, fail_after(60):
        async with Client(stdio_client(server, errlog=log), client_info=HOST) as client:
            result = await client.call_tool("generate_image", {"prompt": "a mug", "wait_seconds": 40})
            assert [block.type for block in result.content] == ["text", "image"]
            assert (result.structured_content or {})["status"] == "succeeded"
    assert not (tmp_path / ".local/share/mj-mcp").exists()
