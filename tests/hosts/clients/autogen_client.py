"""AutoGen: what is judged is the result that a workbench hands to an agent. It cuts calls after 5 s."""

import asyncio

from autogen_core.tools import ImageResultContent
from autogen_ext.tools.mcp import McpWorkbench, StdioServerParams, mcp_server_tools
from bridge import SERVER, Step, declared, play, reached


async def main() -> None:
    patient = StdioServerParams(**SERVER, read_timeout_seconds=60)
    schemas = [tool.schema for tool in await mcp_server_tools(patient)]
    async with McpWorkbench(StdioServerParams(**SERVER)) as workbench:
        await workbench.list_tools()  # it does not say before that it could not connect

        async def call(step: Step) -> dict[str, object]:
            result = await workbench.call_tool(step.tool, step.arguments)
            return reached(*map(_part, result.result)) | {"error": result.is_error}

        await play(declared("autogen-ext", schemas), call)


def _part(content) -> str | bytes:
    return content.content.to_base64().encode() if isinstance(content, ImageResultContent) else content.content


asyncio.run(main())
