"""Semantic Kernel: what is judged is the function result that the chat history gets."""

import asyncio
import json

from bridge import SERVER, Step, declared, play, reached
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.function_calling_utils import kernel_function_metadata_to_function_call_format
from semantic_kernel.connectors.mcp import MCPStdioPlugin
from semantic_kernel.contents import ChatHistory, FunctionCallContent

NAME = "midjourney"


async def main() -> None:
    kernel = Kernel()
    async with MCPStdioPlugin(name=NAME, **SERVER) as plugin:
        kernel.add_plugin(plugin)

        async def call(step: Step) -> dict[str, object]:
            history = ChatHistory()
            wanted = FunctionCallContent(id="1", name=f"{NAME}-{step.tool}", arguments=json.dumps(step.arguments))
            await kernel.invoke_function_call(wanted, history)
            return reached(str(history.messages[-1].items[0].result))

        found = kernel.get_full_list_of_function_metadata()
        functions = [kernel_function_metadata_to_function_call_format(each)["function"] for each in found]
        tools = [{**f, "name": f["name"].removeprefix(f"{NAME}-"), "schema": f["parameters"]} for f in functions]
        await play(declared("semantic-kernel", tools), call)


asyncio.run(main())
