"""LangChain: what is judged is the message of a tool, as an agent hands it to its model."""

import asyncio

from bridge import SERVER, Step, declared, play, reached
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_mcp_adapters.client import MultiServerMCPClient


async def main() -> None:
    transport = {"transport": "streamable_http" if "url" in SERVER else "stdio"}
    tools = await MultiServerMCPClient({"midjourney": {**SERVER, **transport}}).get_tools()
    found = {tool.name: tool for tool in tools}

    async def call(step: Step) -> dict[str, object]:
        message = await found[step.tool].ainvoke(
            {"type": "tool_call", "id": "1", "name": step.tool, "args": step.arguments}
        )
        blocks = [message.content] if isinstance(message.content, str) else message.content
        return reached(*map(_part, blocks)) | {"error": message.status == "error"}

    functions = [convert_to_openai_tool(tool)["function"] for tool in tools]
    await play(
        declared("langchain-mcp-adapters", functions),
        call,
    )


def _part(block: str | dict[str, str]) -> str | bytes:
    if isinstance(block, str):
        return block
    return block["base64"].encode() if block.get("base64") else str(block.get("text", block))


asyncio.run(main())
