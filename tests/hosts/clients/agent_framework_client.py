"""Microsoft's Agent Framework: what is judged are the contents that a function hands to the model."""

import asyncio

from agent_framework import MCPStdioTool
from bridge import SERVER, Step, declared, play, reached


async def main() -> None:
    async with MCPStdioTool(name="midjourney", **SERVER) as server:
        found = {function.name: function for function in server.functions}

        async def call(step: Step) -> dict[str, object]:
            contents = await found[step.tool].invoke(arguments=step.arguments)
            return reached(*map(_part, [contents] if isinstance(contents, str) else contents))

        functions = [
            {"name": function.name, "description": function.description, "schema": function.parameters()}
            for function in server.functions
        ]
        await play(declared("agent-framework-core", functions), call)


def _part(content) -> str | bytes:
    if isinstance(content, str):
        return content
    return content.uri.partition(",")[2].encode() if content.type == "data" else str(content.text)


asyncio.run(main())
