"""FastMCP's client: what is judged is the result of a call."""

import asyncio

from bridge import SERVER, Step, declared, play, reached
from fastmcp import Client
from fastmcp.client.transports import StdioTransport


async def main() -> None:
    async with Client(StdioTransport(**SERVER)) as client:

        async def call(step: Step) -> dict[str, object]:
            result = await client.call_tool(step.tool, step.arguments, raise_on_error=False)
            blocks = [b.data.encode() if b.type == "image" else getattr(b, "text", str(b)) for b in result.content]
            more = {"structured": result.structured_content, "error": result.is_error, "meta": result.meta or {}}
            return reached(*blocks) | more

        tools = [tool.model_dump() for tool in await client.list_tools()]
        await play(declared("fastmcp", [{**tool, "schema": tool["input_schema"]} for tool in tools]), call)


asyncio.run(main())
