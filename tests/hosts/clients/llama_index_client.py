"""LlamaIndex: what is judged are the blocks of a tool's output."""

import asyncio

from bridge import SERVER, Step, declared, play, reached
from llama_index.tools.mcp import BasicMCPClient, McpToolSpec


async def main() -> None:
    client = BasicMCPClient(SERVER["command"], args=SERVER["args"], env=SERVER["env"])
    tools = {tool.metadata.name: tool for tool in await McpToolSpec(client).to_tool_list_async()}

    async def call(step: Step) -> dict[str, object]:
        output = await tools[step.tool].acall(**step.arguments)
        return reached(*[block.text if block.block_type == "text" else str(block) for block in output.blocks])

    functions = [tool.metadata.to_openai_tool()["function"] for tool in tools.values()]
    await play(
        declared("llama-index-tools-mcp", functions),
        call,
    )


asyncio.run(main())
