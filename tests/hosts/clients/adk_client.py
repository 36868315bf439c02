"""Google's Agent Development Kit with a model of ours: what is judged is its request. It cuts calls after 5 s."""

import asyncio
import json

from bridge import SERVER, ask, declared, reached
from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import InMemoryRunner
from google.adk.tools.mcp_tool import McpToolset, StdioConnectionParams
from google.genai import types
from mcp import StdioServerParameters


class Bridge(BaseLlm):
    """A model that calls what the steps say."""

    async def generate_content_async(self, llm_request, stream=False):
        parts = llm_request.contents[-1].parts
        if parts[0].function_response:
            answer = reached(*[text for part in parts for text in _parts(part)])
        else:
            functions = [f for tool in llm_request.config.tools for f in tool.function_declarations]
            answer = declared("google-adk", [_declared(function) for function in functions])
        step = await ask(answer)
        part = types.Part.from_function_call(name=step.tool, args=step.arguments) if step else types.Part(text="done")
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


def _declared(function):
    schema = function.parameters_json_schema or function.parameters.model_dump(exclude_none=True, mode="json")
    return {"name": function.name, "description": function.description, "schema": schema}


def _parts(part) -> list[str | bytes]:
    if not part.function_response:
        return [part.text or ""]
    pictures = [p.inline_data.data for p in part.function_response.parts or () if p.inline_data]
    return [json.dumps(part.function_response.response, ensure_ascii=False, default=str), *pictures]


async def main() -> None:
    toolset = McpToolset(connection_params=StdioConnectionParams(server_params=StdioServerParameters(**SERVER)))
    await toolset.get_tools()  # an agent would go on without tools where it cannot connect
    agent = LlmAgent(name="painter", model=Bridge(model="ours"), tools=[toolset])
    await InMemoryRunner(agent=agent).run_debug("go", quiet=True)
    await toolset.close()


asyncio.run(main())
