"""The prompts that a person picks from a menu: what each takes, what it tells the model, and who is offered it.

Arguments are read like those of tools, so each problem is named before the model starts. A prompt submits nothing
itself. The words about several jobs ask for the person's yes first, since each job costs money.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.prompts.base import Message, PromptArgument, UserMessage
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from pydantic import Field

from mj_mcp.errors import InvalidRequest
from mj_mcp.prompts import CHOICES
from mj_mcp.prompts.options import reference
from mj_mcp.server.arguments import read_arguments
from mj_mcp.server.tool_call import ToolContext, prompt_problems
from mj_mcp.server.tools.reading import read_moment

MOST_PICTURES = 8
"""The most jobs of one series: as many pictures as `view_image` compares."""
USUAL_PICTURES = 4
MOST_CHARACTERS = 4_000
"""The longest brief. A Midjourney prompt is at most 8192 characters with all options."""

_OPTIONS = ("aspect_ratio", "version", "style_reference")
"""Arguments that the model passes on to `generate_image` as they are."""


class Argument(PromptArgument):
    """One argument: how it is read, and what a person is offered for it."""

    type: str = Field("string", exclude=True)
    suggested: tuple[str, ...] = Field((), exclude=True)
    is_picture: bool = Field(default=False, exclude=True)
    """Whether the pictures that the caller has made are offered."""

    @property
    def node(self) -> dict[str, Any]:
        """Its schema, as the schemas of tools have it."""
        if self.type == "array":
            return {"type": "array", "items": {"type": "string"}}
        if self.type == "integer":
            return {"type": "integer", "minimum": 2, "maximum": MOST_PICTURES}
        return {"type": "string", "maxLength": MOST_CHARACTERS}


class MenuPrompt(Prompt):
    """One prompt. `fn` makes the text for the model from the values that were given."""

    takes: tuple[Argument, ...] = Field(exclude=True)
    spends: bool = Field(default=False, exclude=True)
    """Whether the model is told to submit jobs, so that a reader is not offered it."""

    async def render(self, arguments: dict[str, Any] | None, context: Context[Any, Any]) -> list[Message]:
        """The message.

        Raises:
            MCPError: names every wrong or missing argument.
        """
        shared: ToolContext = context.request_context.lifespan_context
        try:
            values = self._read(arguments or {}, shared)
        except InvalidRequest as failure:
            raise MCPError(INVALID_PARAMS, failure.message) from failure
        return [UserMessage(str(self.fn(values)))]

    def _read(self, given: Mapping[str, Any], shared: ToolContext) -> dict[str, Any]:
        """Blank arguments count as left out: menus send every field of their form."""
        schema = {
            "properties": {argument.name: argument.node for argument in self.takes},
            "required": [argument.name for argument in self.takes if argument.required],
        }
        filled = {name: text.strip() for name, text in given.items() if text.strip()}

        def check(values: Mapping[str, Any]) -> Sequence[str]:
            return _problems(values, shared)

        values = read_arguments(self.name, filled, schema, check=check).values
        if problems := check(values):
            raise InvalidRequest.because(*problems)
        return values


def _problems(values: Mapping[str, Any], shared: ToolContext) -> Sequence[str]:
    options = {name: values[name] for name in _OPTIONS if name in values}
    problems = [*prompt_problems(options, shared.settings.extra_flags)]
    if "picture" in values and reference(values["picture"]) is None:
        allowed = "TASK_ID#INDEX, such as 4206749475220754#2"
        problems += InvalidRequest("picture", values["picture"], allowed).problems
    read_moment(problems, values.get("since"), shared.studio.now())
    return problems


def _calls_with(values: Mapping[str, Any], *names: str) -> str:
    """What the calls must have, as a line for the model; nothing if nothing was chosen."""
    chosen = [f"{name}={json.dumps(values[name], ensure_ascii=False)}" for name in names if name in values]
    return f"- Pass {', '.join(chosen)} in every call, exactly so.\n" if chosen else ""


_TOGETHER = (
    "- Submit each with wait_seconds=0, then call wait_for_tasks with all the ids until all have ended.\n"
    "- Never submit one again to get its result. Name every one that failed or is unconfirmed.\n"
)


def _make_picture(values: Mapping[str, Any]) -> str:
    return (
        f"Make a Midjourney picture from this brief: {values['brief']}\n"
        "- Write one prompt of at most 60 words: the subject first, then place, light, medium and mood. Name what the "
        "brief leaves open only where the picture needs it.\n"
        "- Choose the options of generate_image that the brief asks for: aspect_ratio for its use, `no` for what must "
        "not appear. Leave out the others.\n"
        f"{_calls_with(values, 'aspect_ratio', 'version')}"
        "- Tell me the prompt and the options, call generate_image once, and wait with get_task until it has "
        "succeeded.\n"
        "- Describe the four pictures, say which one fits the brief best, and ask which index I want before you call "
        "upscale_image."
    )


def _make_series(values: Mapping[str, Any]) -> str:
    count = values.get("count", USUAL_PICTURES)
    style = (
        "- They share their style by style_reference; the words of each prompt say what it shows.\n"
        if "style_reference" in values
        else "- Draw the first one alone and ask me which of its four pictures sets the style. Pass that picture as "
        'style_reference=["TASK_ID#INDEX"] in all the others.\n'
    )
    return (
        f"Make a series of {count} Midjourney pictures that look like one set: {values['theme']}\n"
        f"- Write {count} prompts with the same words for medium, light and palette, so that only what they show "
        f"differs. Show me the prompts and wait for my yes: each of the {count} jobs costs money.\n"
        f"{_calls_with(values, *_OPTIONS)}{style}{_TOGETHER}"
        "- Show the best picture of each side by side with view_image and compare, say which one does not fit the set, "
        "and ask before you draw anything again."
    )


def _vary_theme(values: Mapping[str, Any]) -> str:
    count = values.get("count", USUAL_PICTURES)
    start = ""
    if "picture" in values:
        start = f"- Start each from my picture: pass image_urls={json.dumps([values['picture']])} in every call.\n"
    return (
        f"Make {count} variations on a theme with Midjourney: {values['theme']}\n"
        f"- Write {count} prompts that keep the subject. Each changes one thing, a different one each time: viewpoint, "
        "light, season, medium, palette, era or mood. Show me a list of what each changes and wait for my yes: each of "
        f"the {count} jobs costs money.\n"
        f"{_calls_with(values, 'aspect_ratio', 'version')}{start}{_TOGETHER}"
        "- Show the best picture of each side by side with view_image and compare, name what each changed, and ask "
        "which way to go on (vary_image or upscale_image)."
    )


def _catch_up(values: Mapping[str, Any]) -> str:
    since = f" with since={json.dumps(values['since'])}" if "since" in values else ""
    return (
        f"What became of my pictures? Call list_tasks{since}.\n"
        "- Tell me what is finished, and show the newest pictures side by side with view_image and compare.\n"
        "- Wait with wait_for_tasks for those that are still being made.\n"
        "- Say why each failed task failed, and name every unconfirmed submission.\n"
        "- Do not submit anything."
    )


_COUNT = Argument(
    name="count",
    description=f"How many jobs, 2 to {MOST_PICTURES}. Left out: {USUAL_PICTURES}.",
    type="integer",
    suggested=tuple(str(count) for count in range(2, MOST_PICTURES + 1)),
)
_RATIO = Argument(
    name="aspect_ratio",
    description="Width to height, such as 3:2.",
    suggested=("1:1", "3:2", "2:3", "4:3", "3:4", "4:5", "16:9", "9:16", "21:9"),
)
_VERSION = Argument(name="version", description="Model version, such as 7.", suggested=CHOICES["version"])
_STYLE = Argument(
    name="style_reference",
    description="What sets the style: TASK_ID#INDEX of a picture of yours, a link, or a style code.",
    type="array",
    is_picture=True,
)
_PICTURE = Argument(name="picture", description="TASK_ID#INDEX of a picture to start from.", is_picture=True)
_SINCE = Argument(
    name="since",
    description="Only newer tasks: 30m, 2h, 7d, or a date with its time zone.",
    suggested=("1h", "12h", "1d", "7d", "30d"),
)


def _prompt(
    fn: Callable[[Mapping[str, Any]], str], title: str, description: str, *takes: Argument, spends: bool = True
) -> MenuPrompt:
    name = fn.__name__.removeprefix("_")
    arguments: list[PromptArgument] = [*takes]
    return MenuPrompt(
        name=name, title=title, description=description, arguments=arguments, fn=fn, takes=takes, spends=spends
    )


def _words(name: str, description: str) -> Argument:
    return Argument(name=name, description=description, required=True)


PROMPTS: Mapping[str, MenuPrompt] = {
    prompt.name: prompt
    for prompt in (
        _prompt(
            _make_picture,
            "Make a picture",
            "Turn a brief into a prompt with options, draw it once, and choose the best of four. One job.",
            _words("brief", "What the picture is of, and what it is for."),
            _RATIO,
            _VERSION,
        ),
        _prompt(
            _make_series,
            "Make a consistent series",
            "Draw several pictures that look like one set. Asks before it submits; each picture is a job.",
            _words("theme", "What the series shows, or a list of its pictures."),
            _COUNT,
            _STYLE,
            _RATIO,
            _VERSION,
        ),
        _prompt(
            _vary_theme,
            "Variations on a theme",
            "Draw one subject in several ways, side by side. Asks before it submits; each variation is a job.",
            _words("theme", "The subject that all variations keep."),
            _COUNT,
            _PICTURE,
            _RATIO,
            _VERSION,
        ),
        _prompt(
            _catch_up,
            "What became of my pictures",
            "Look through recent tasks: what is finished, still being made, failed or unconfirmed. Free.",
            _SINCE,
            spends=False,
        ),
    )
}
