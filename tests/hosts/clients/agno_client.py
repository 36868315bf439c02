"""Agno with a model of ours: what is judged are the messages that the model is given. It cuts calls after 10 s."""

import asyncio
import base64
import json
import shlex

from agno.agent import Agent
from agno.models.base import Model
from agno.models.response import ModelResponse
from agno.tools.mcp import MCPTools
from bridge import SERVER, ask, declared, reached


class Bridge(Model):
    """A model that calls what the steps say."""

    calls = 0

    async def ainvoke(self, messages, tools=None, **_more) -> ModelResponse:
        if self.calls == 0:
            functions = [tool["function"] for tool in tools]
            answer = declared("agno", functions)
        else:
            asked = max(place for place, message in enumerate(messages) if message.role == "assistant")
            answer = reached(*[part for message in messages[asked + 1 :] for part in _parts(message)])
        step = await ask(answer)
        self.calls += 1
        if step is None:
            return ModelResponse(role="assistant", content="done")
        function = {"name": step.tool, "arguments": json.dumps(step.arguments)}
        call = {"id": f"call-{self.calls}", "type": "function", "function": function}
        return ModelResponse(role="assistant", tool_calls=[call])

    invoke = invoke_stream = ainvoke_stream = _parse_provider_response = _parse_provider_response_delta = ainvoke


def _parts(message) -> list[str | bytes]:
    pictures = [base64.b64encode(image.content) for image in message.images or () if image.content]
    return [str(message.content), *pictures]


async def main() -> None:
    command = shlex.join([SERVER["command"], *SERVER["args"]])
    async with MCPTools(command=command, env=SERVER["env"]) as tools:
        await Agent(model=Bridge(id="ours"), tools=[tools], telemetry=False).arun("go")


asyncio.run(main())
