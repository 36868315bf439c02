"""DSPy: what is judged is what a tool gives to the module that called it."""

import asyncio

import dspy
from bridge import SERVER, Step, declared, play, reached
from mcp import Client, StdioServerParameters


async def main() -> None:
    async with Client(StdioServerParameters(**SERVER)) as client:
        tools = [dspy.Tool.from_mcp_tool(client, tool) for tool in (await client.list_tools()).tools]
        found = {tool.name: tool for tool in tools}

        async def call(step: Step) -> dict[str, object]:
            given = await found[step.tool].acall(**step.arguments)
            items = given if isinstance(given, list) else [given]
            return reached(
                *[item.data.encode() if getattr(item, "type", "") == "image" else str(item) for item in items]
            )

        functions = [tool.format_as_litellm_function_call()["function"] for tool in tools]
        await play(declared("dspy", functions), call)


asyncio.run(main())
