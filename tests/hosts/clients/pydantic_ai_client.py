"""Pydantic AI with a model of ours: what is judged is the last message that the model is given."""

import asyncio
import base64
import json

from bridge import SERVER, ask, declared, reached
from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import (
    BinaryContent,
    ModelResponse,
    RetryPromptPart,
    TextPart,
    ToolCallPart,
)
from pydantic_ai.models.function import FunctionModel


async def model(messages, info) -> ModelResponse:
    if len(messages) == 1:
        functions = [
            {"name": tool.name, "description": tool.description, "schema": tool.parameters_json_schema}
            for tool in info.function_tools
        ]
        answer = declared("pydantic-ai-slim", functions)
    else:
        answer = reached(*[part for given in messages[-1].parts for part in _parts(given)])
    step = await ask(answer)
    return ModelResponse(parts=[ToolCallPart(step.tool, step.arguments) if step else TextPart("done")])


def _parts(part) -> list[str | bytes]:
    if isinstance(part, RetryPromptPart):
        return [part.model_response()]
    return [_plain(item) for item in (part.content if isinstance(part.content, list) else [part.content])]


def _plain(item) -> str | bytes:
    if isinstance(item, BinaryContent):
        return base64.b64encode(item.data)
    return item if isinstance(item, str) else json.dumps(item, default=str)


async def main() -> None:
    toolset = MCPToolset(StdioTransport(**SERVER), init_timeout=60)  # a slow start is not what is judged
    agent = Agent(FunctionModel(model), toolsets=[toolset], retries=10)
    async with agent:
        await agent.run("go")


asyncio.run(main())
