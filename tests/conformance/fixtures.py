"""The real server over its real HTTP door, with the fixtures that the official conformance suite calls by name.

`python tests/conformance/fixtures.py serve --http --port 0` is `mj-mcp serve --http --port 0` and these.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import warnings
import wave
from collections.abc import Callable
from typing import Any

import anyio
from jobs import HandlesOfJobs, add_jobs
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    CallToolResult,
    ContentBlock,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)

import mj_mcp.server
from mj_mcp.cli.commands import main

warnings.simplefilter("ignore", MCPDeprecationWarning)

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
PAUSE = 0.05


def add_fixtures(server: MCPServer[Any]) -> None:
    """Everything that the two requirement sets call by name."""
    for add in (add_content, add_talk, add_questions, add_resources, add_prompts, add_older_methods, add_jobs):
        add(server)


def text(words: str) -> TextContent:
    return TextContent(text=words)


def embedded(uri: str, media_type: str, words: str) -> EmbeddedResource:
    return EmbeddedResource(resource=TextResourceContents(uri=uri, mime_type=media_type, text=words))


def image() -> ImageContent:
    return ImageContent(data=PIXEL, mime_type="image/png")


def silence() -> AudioContent:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(8000)
        sound.writeframes(b"\x80" * 8)
    return AudioContent(data=base64.b64encode(file.getvalue()).decode(), mime_type="audio/wav")


def add_content(server: MCPServer[Any]) -> None:
    """Tools that answer with one kind of content each."""
    mixed: list[ContentBlock] = [
        text("Multiple content types test:"),
        image(),
        embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ]
    answers: dict[str, list[ContentBlock]] = {
        "test_simple_text": [text("This is a simple text response for testing.")],
        "test_image_content": [image()],
        "test_audio_content": [silence()],
        "test_embedded_resource": [
            embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
        ],
        "test_multiple_content_types": mixed,
    }
    for name, content in answers.items():
        server.add_tool(_answering(CallToolResult(content=content)), name=name, description=name)
    wrong = CallToolResult(content=[text("This tool intentionally returns an error for testing")], is_error=True)
    server.add_tool(_answering(wrong), name="test_error_handling", description="Fails.")


def _answering(result: CallToolResult) -> Callable[[], CallToolResult]:
    def answer() -> CallToolResult:
        return result

    return answer


def add_talk(server: MCPServer[Any]) -> None:
    """Tools that say or ask something while they run."""

    @server.tool()
    async def test_tool_with_logging(ctx: Context[Any]) -> str:
        """Log three times."""
        for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            await ctx.log("info", words)
            await anyio.sleep(PAUSE)
        return "Logged."

    server.add_tool(test_tool_with_logging, name="test_logging_tool", description="Logs three times.")

    @server.tool()
    async def test_trigger_tool_change(ctx: Context[Any]) -> str:
        """Tell that the tools have changed."""
        await ctx.notify_tools_changed()
        return "Told."

    @server.tool()
    async def test_trigger_prompt_change(ctx: Context[Any]) -> str:
        """Tell that the prompts have changed."""
        await ctx.notify_prompts_changed()
        return "Told."

    @server.tool()
    async def test_tool_with_progress(ctx: Context[Any]) -> str:
        """Tell of progress three times."""
        for done in (0, 50, 100):
            await ctx.report_progress(done, 100)
            await anyio.sleep(PAUSE)
        return "Done."

    @server.tool()
    async def test_sampling(ctx: Context[Any], prompt: str) -> str:
        """Ask the client's model."""
        answer = await ctx.session.create_message(
            [SamplingMessage(role="user", content=text(prompt))], max_tokens=100, related_request_id=ctx.request_id
        )
        return f"LLM response: {said(answer)}"

    @server.tool()
    async def test_elicitation(ctx: Context[Any], message: str) -> str:
        """Ask the client's user."""
        answer = await ask(ctx, message, NAME_AND_MAIL)
        return f"User response: action={answer.action}, content={json.dumps(answer.content)}"

    for name, schema in (("sep1034_defaults", DEFAULTS), ("sep1330_enums", CHOICES)):
        server.add_tool(_asking(schema), name=f"test_elicitation_{name}", description="Asks the client's user.")


def _asking(schema: dict[str, Any]) -> Callable[..., Any]:
    async def asking(ctx: Context[Any]) -> str:
        answer = await ask(ctx, "Please fill this in", schema)
        return f"Elicitation completed: action={answer.action}, content={json.dumps(answer.content)}"

    return asking


async def ask(ctx: Context[Any], message: str, schema: dict[str, Any]) -> ElicitResult:
    answer: ElicitResult = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    return answer


def said(answer: Any) -> str:
    """The text of a model's answer."""
    return str(getattr(answer.content, "text", answer.content))


def form(*required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties} | ({"required": [*required]} if required else {})


def titled(*titles: str) -> list[dict[str, str]]:
    return [{"const": f"value{number}", "title": title} for number, title in enumerate(titles, 1)]


OPTIONS = ["option1", "option2", "option3"]
NAME_AND_MAIL = form(
    "username",
    "email",
    username={"type": "string", "description": "User's response"},
    email={"type": "string", "description": "User's email address"},
)
DEFAULTS = form(
    name={"type": "string", "default": "John Doe"},
    age={"type": "integer", "default": 30},
    score={"type": "number", "default": 95.5},
    status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    verified={"type": "boolean", "default": True},
)
CHOICES = form(
    untitledSingle={"type": "string", "enum": OPTIONS},
    titledSingle={"type": "string", "oneOf": titled("First Option", "Second Option", "Third Option")},
    legacyEnum={
        "type": "string",
        "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["Option One", "Option Two", "Option Three"],
    },
    untitledMulti={"type": "array", "items": {"type": "string", "enum": OPTIONS}},
    titledMulti={"type": "array", "items": {"anyOf": titled("First Choice", "Second Choice", "Third Choice")}},
)


def elicit(message: str, field: str, kind: str = "string") -> ElicitRequest:
    schema = form(field, **{field: {"type": kind}})
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(words: str, max_tokens: int) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=text(words))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=max_tokens))


NAME = elicit("What is your name?", "name")
CAPITAL = sample("What is the capital of France?", 100)
GREETING = sample("Generate a greeting", 50)
CONFIRM = elicit("Please confirm", "ok", "boolean")
# The name that ends it, what is asked, and the state that goes along.
ROUNDS: dict[str, tuple[dict[str, InputRequest], str | None]] = {
    "elicitation": ({"user_name": NAME}, None),
    "sampling": ({"capital_question": CAPITAL}, None),
    "list_roots": ({"client_roots": ListRootsRequest()}, None),
    "request_state": ({"confirm": CONFIRM}, "asked"),
    "multiple_inputs": ({"user_name": NAME, "greeting": GREETING, "client_roots": ListRootsRequest()}, "asked"),
    "tampered_state": ({"confirm": CONFIRM}, "asked"),
}


def add_questions(server: MCPServer[Any]) -> None:
    """Tools that need another round; the SDK seals the state that goes along."""
    for name, (asked, state) in ROUNDS.items():
        server.add_tool(_needing(asked, state), name=f"test_input_required_result_{name}", description="Asks.")
    server.add_tool(_needing({"user_name": NAME}, None), name="test_streaming_elicitation", description="Asks.")

    @server.tool()
    async def test_input_required_result_multi_round(ctx: Context[Any]) -> CallToolResult | InputRequiredResult:
        """Ask twice."""
        answers = ctx.input_responses or {}
        if ctx.request_state == "second" and "step2" in answers:
            return CallToolResult(content=[text("Both steps are done.")])
        if ctx.request_state == "first" and "step1" in answers:
            color = elicit("Step 2: What is your favorite color?", "color")
            return InputRequiredResult(input_requests={"step2": color}, request_state="second")
        name = elicit("Step 1: What is your name?", "name")
        return InputRequiredResult(input_requests={"step1": name}, request_state="first")

    @server.tool()
    async def test_input_required_result_capabilities(ctx: Context[Any]) -> CallToolResult | InputRequiredResult:
        """Ask for what the client can give."""
        client = ctx.session.client_params
        able = client.capabilities if client else None
        asked: dict[str, InputRequest] = {}
        if able and able.sampling:
            asked["capital_question"] = CAPITAL
        if able and able.elicitation:
            asked["user_name"] = NAME
        return InputRequiredResult(input_requests=asked) if asked else CallToolResult(content=[text("Unable.")])

    @server.tool()
    async def test_missing_capability(ctx: Context[Any]) -> str:
        """Need a client that can sample."""
        client = ctx.session.client_params
        if client is None or client.capabilities.sampling is None:
            missing: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
            raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "this needs a client that can sample", missing)
        return "The client can sample."


def _needing(asked: dict[str, InputRequest], state: str | None) -> Callable[..., Any]:
    async def needing(ctx: Context[Any]) -> CallToolResult | InputRequiredResult:
        answers = ctx.input_responses or {}
        if not asked.keys() <= answers.keys() or ctx.request_state != state:
            return InputRequiredResult(input_requests=asked, request_state=state)
        words = "; ".join(_told(answers[key]) for key in asked)
        return CallToolResult(content=[text(words + (" state-ok" if state else ""))])

    return needing


def _told(answer: object) -> str:
    match answer:
        case ElicitResult():
            return f"Hello, {(answer.content or {}).get('name', answer.action)}!"
        case ListRootsResult():
            return ", ".join(str(root.uri) for root in answer.roots)
        case CreateMessageResult():
            return said(answer)
    return str(answer)


def add_resources(server: MCPServer[Any]) -> None:
    """Resources of text, of bytes, and from a template."""

    @server.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        """Some text."""
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        """A pixel."""
        return base64.b64decode(PIXEL)

    @server.resource("test://watched-resource", mime_type="text/plain")
    def watched() -> str:
        """To subscribe to."""
        return "Watched."

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def templated(id: str) -> str:  # noqa: A002 - the name in the suite's template
        """From a template."""
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


def add_prompts(server: MCPServer[Any]) -> None:
    """Prompts of each kind of content."""

    @server.prompt()
    def test_simple_prompt() -> str:
        """Simple."""
        return "This is a simple prompt for testing."

    @server.prompt()
    def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        """With arguments."""
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt()
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:  # noqa: N803 - the suite's name
        """With a resource."""
        resource = embedded(resourceUri, "text/plain", "Embedded resource content for testing.")
        return [UserMessage(resource), UserMessage(text("Please process the embedded resource above."))]

    @server.prompt()
    def test_prompt_with_image() -> list[UserMessage]:
        """With a picture."""
        return [UserMessage(image()), UserMessage(text("Please analyze the image above."))]

    @server.prompt()
    def test_input_required_result_prompt(ctx: Context[Any]) -> str | InputRequiredResult:
        """Asks."""
        if "user_context" in (ctx.input_responses or {}):
            return "A prompt with the context."
        asked = elicit("What context should the prompt use?", "context")
        return InputRequiredResult(input_requests={"user_context": asked})


def add_older_methods(server: MCPServer[Any]) -> None:
    """What clients of the older generation may ask, and the SDK's face does not offer."""

    async def accept(_ctx: object, _params: object) -> EmptyResult:
        return EmptyResult()

    inner = server._lowlevel_server
    inner.add_request_handler("logging/setLevel", SetLevelRequestParams, accept)
    inner.add_request_handler("resources/subscribe", SubscribeRequestParams, accept)
    inner.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, accept)


if __name__ == "__main__":
    build = mj_mcp.server.build_server

    def build_with_fixtures(*args: Any, **options: Any) -> MCPServer[Any]:
        server = build(*args, **options)
        add_fixtures(server)
        return server

    mj_mcp.server.build_server = build_with_fixtures
    mj_mcp.server.TaskHandles = HandlesOfJobs  # type: ignore[attr-defined]
    main(sys.argv[1:])
