"""CrewAI: what is judged is what a tool gives to the crew's model."""

import asyncio

from bridge import SERVER, Step, declared, play, reached
from crewai_tools import MCPServerAdapter
from mcp import StdioServerParameters


async def main() -> None:
    with MCPServerAdapter(StdioServerParameters(**SERVER), connect_timeout=60) as tools:
        found = {tool.name: tool for tool in tools}

        async def call(step: Step) -> dict[str, object]:
            return reached(str(await asyncio.to_thread(found[step.tool].run, **step.arguments)))

        functions = [
            {"name": tool.name, "description": tool.description, "schema": tool.args_schema.model_json_schema()}
            for tool in tools
        ]
        await play(declared("crewai-tools", functions), call)


asyncio.run(main())
