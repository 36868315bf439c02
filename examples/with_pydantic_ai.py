"""The agent of `agent.py` in Pydantic AI, through its MCP client: the model calls every tool itself. Checks itself.

It needs pydantic-ai-slim[mcp], and `mj-mcp` on the PATH; `make examples` runs it so. The server is the demo's: no key,
no cost. The model is a script behind Pydantic AI's interface of a model: give `Agent` the name of a real one instead,
and leave `--demo` out to use your own Midjourney Proxy.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from pathlib import Path

from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import BinaryContent, ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

WISH = "Draw a paper boat, choose the best of the four, make it large and save it. Tell me the file."


class Scripted:
    """Stands in for a model: it is given what a model is given, and works as the results propose."""

    def __init__(self) -> None:
        self.pictures: dict[str, int] = {}
        """The tools that it called, and how many pictures the newest result of each brought."""
        self._called = ""

    async def answer(self, messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        """The next tool call, or the last words."""
        if not self._called:
            return self._call("generate_image", prompt="a paper boat", aspect_ratio="3:2")
        text, self.pictures[self._called] = _seen(messages)
        if wait := re.search(r"get_task with task_id=\W*(\d+)\W+and wait_seconds=(\d+)", text):
            return self._call("get_task", task_id=wait[1], wait_seconds=int(wait[2]))
        if grid := re.search(r"Imagine (\d+) has succeeded", text):
            return self._call("view_image", task_id=grid[1], index=2)
        if looked := re.search(r"Picture 2 of task (\d+)", text):
            return self._call("upscale_image", task_id=looked[1], index=2)
        if large := re.search(r"Upscale (\d+) .*has succeeded", text):
            return self._call("save_images", task_id=large[1], name="boat")
        return ModelResponse(parts=[TextPart(text)])

    def _call(self, tool: str, **arguments: str | int) -> ModelResponse:
        self._called = tool
        return ModelResponse(parts=[ToolCallPart(tool, arguments)])


def _seen(messages: list[ModelMessage]) -> tuple[str, int]:
    """The text of the newest result, and how many pictures are with it."""
    (returned,) = [part for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
    content = returned.content if isinstance(returned.content, list) else [returned.content]
    texts = [one if isinstance(one, str) else json.dumps(one) for one in content if not isinstance(one, BinaryContent)]
    return "\n".join(texts), len(content) - len(texts)


async def main() -> None:
    """Let the agent do what is wished."""
    model = Scripted()
    with tempfile.TemporaryDirectory() as folder:
        settings = {"MJ_OUTPUT_DIR": folder, "MJ_POLL_SECONDS": "0.5", "MJ_LOG_LEVEL": "warning"}
        server = StdioTransport("mj-mcp", ["serve", "--demo"], env={**os.environ, **settings})
        agent = Agent(FunctionModel(model.answer), toolsets=[MCPToolset(server, init_timeout=60)])
        async with agent:
            said = (await agent.run(WISH)).output
        print(f"{' > '.join(model.pictures)}: {said}")
        assert model.pictures["view_image"] == 1, "the model has seen what it chose"
        assert [path.name for path in Path(folder).glob("*.png")] == ["boat-1.png"]  # noqa: ASYNC240 - nothing else runs


if __name__ == "__main__":
    asyncio.run(main())
