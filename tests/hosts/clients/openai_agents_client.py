"""OpenAI's Agents SDK with a model of ours: what is judged is the input of that model. It cuts calls after 5 s."""

import asyncio
import json

from agents import Agent, Model, ModelResponse, Runner, Usage
from agents.mcp import MCPServerStdio
from bridge import SERVER, ask, declared, reached
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText


class Bridge(Model):
    """A model that calls what the steps say."""

    def __init__(self) -> None:
        self.calls = 0

    async def get_response(self, *, input, tools, **_more) -> ModelResponse:  # noqa: A002 - passed by this name
        if self.calls == 0:
            functions = [
                {"name": tool.name, "description": tool.description, "schema": tool.params_json_schema}
                for tool in tools
            ]
            answer = declared("openai-agents", functions)
        else:
            output = input[-1]["output"]
            answer = reached(*map(_part, output if isinstance(output, list) else [output]))
        step = await ask(answer)
        self.calls += 1
        return ModelResponse(output=[_wanted(step, self.calls)], usage=Usage(), response_id=None)

    def stream_response(self, *_args, **_more):
        raise NotImplementedError


def _wanted(step, number):
    if step is None:
        text = ResponseOutputText(type="output_text", text="done", annotations=[])
        return ResponseOutputMessage(id="1", type="message", role="assistant", status="completed", content=[text])
    return ResponseFunctionToolCall(
        type="function_call", call_id=f"call-{number}", name=step.tool, arguments=json.dumps(step.arguments)
    )


def _part(item) -> str | bytes:
    if isinstance(item, str):
        return item
    if item["type"] == "input_image":
        return item["image_url"].partition(",")[2].encode()
    return item.get("text") or json.dumps(item)


async def main() -> None:
    async with MCPServerStdio(params=SERVER) as server:
        agent = Agent(name="painter", model=Bridge(), mcp_servers=[server])
        await Runner.run(agent, "go", max_turns=50)


asyncio.run(main())
