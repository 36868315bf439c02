"""smolagents, which adapts by mcpadapt: what is judged is what a tool gives to the agent."""

import asyncio
import base64
import io

from bridge import SERVER, Step, declared, play, reached
from mcp import StdioServerParameters
from PIL import Image
from smolagents import MCPClient
from smolagents.models import get_tool_json_schema
from smolagents.tools import validate_tool_arguments

EMPTY = {"string": "", "integer": 0, "number": 0, "boolean": False, "array": []}
"""What a model fills in where its agent refuses a call without every argument."""


async def main() -> None:
    with MCPClient(StdioServerParameters(**SERVER), structured_output=False) as tools:
        found = {tool.name: tool for tool in tools}

        async def call(step: Step) -> dict[str, object]:
            tool = found[step.tool]
            filled = {name: EMPTY[node["type"]] for name, node in tool.inputs.items()} | step.arguments
            validate_tool_arguments(tool, filled)
            given = await asyncio.to_thread(tool, **filled)
            if not isinstance(given, Image.Image):
                return reached(str(given))
            into = io.BytesIO()
            given.save(into, "PNG")
            return reached(base64.b64encode(into.getvalue()))

        functions = [get_tool_json_schema(tool)["function"] for tool in tools]
        await play(declared("smolagents", functions), call)


asyncio.run(main())
