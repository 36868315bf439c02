"""The tools, as values: name, arguments, annotations, and the studio's verb that each one calls.

Owns the published arguments and their descriptions. Decides nothing and words nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

import structlog
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import BeforeValidator, Field

from mj_mcp.errors import InvalidRequest
from mj_mcp.happenings import Observer
from mj_mcp.prompts import RANGES, Options
from mj_mcp.server.arguments import CheckedTool, checked
from mj_mcp.server.identity import caller
from mj_mcp.server.progress import ticker
from mj_mcp.server.render import (
    GET_TASK_WAIT,
    SPENDING_TOOLS,
    Manner,
    files_result,
    list_result,
    picture_result,
    task_result,
)
from mj_mcp.server.shapes import BriefTaskView, FilesView, PictureView, TaskListView, TaskView
from mj_mcp.settings import Settings
from mj_mcp.studio import Studio, Told
from mj_mcp.tasks import TASKS, Image, Kind, Status, Task


@dataclass(frozen=True, slots=True)
class Face:
    """What a tool needs beside its arguments."""

    studio: Studio
    settings: Settings
    observe: Observer
    tools: frozenset[str]
    link: Callable[[Task, Image], str] | None = None

    def manner(self, follow: int = GET_TASK_WAIT) -> Manner:
        """How the caller is told of tasks; `follow`: how many seconds its next call should wait."""
        tools = self.tools if caller().may_spend else self.tools - SPENDING_TOOLS
        return Manner(tools, follow, self.settings.resource_links, self.link)

    async def call(
        self,
        ctx: Context[Any],
        asked: float | None,
        verb: Callable[..., Awaitable[Told]],
        *args: Any,  # noqa: ANN401 - the verb's own
        bought: bool = True,
        **options: Any,  # noqa: ANN401 - as above
    ) -> CallToolResult:
        """A verb of the studio for this caller, blocking as asked, as a person set it, or as its host survives."""
        owner, host = caller().owner, _client_name(ctx)
        seconds = self.settings.wait_seconds if asked is None else asked
        if seconds is None:
            seconds = await self.studio.patience.seconds(owner, host)
        async with self.studio.patience.watching(owner, host):
            told = await verb(owner, *args, wait_seconds=seconds, tick=ticker(ctx), **options)
        return await self._result(ctx, told, bought=bought)

    async def _result(self, ctx: Context[Any], told: Told, *, bought: bool) -> CallToolResult:
        """The answer; `bought`: of a tool that spends."""
        follow = GET_TASK_WAIT
        if told.task.is_moving:
            budget = await self.studio.patience.seconds(caller().owner, _client_name(ctx))
            follow = max(1, min(follow, int(budget)))  # a call that does not wait would be made again and again
        structlog.contextvars.bind_contextvars(looks=told.looks, waited=round(told.waited, 3))
        return task_result(told, self.studio.remaining(told.task), self.manner(follow), bought=bought)


def _client_name(ctx: Context[Any]) -> str | None:
    client = ctx.session.client_params
    return client.client_info.name if client else None


Ctx = Context[Face]


def _no_bool(value: object) -> object:
    """JSON's true is no number, though Python's is."""
    if isinstance(value, bool):
        raise ValueError("a number, not true or false")  # noqa: TRY004 - pydantic reports ValueErrors
    return value


_Number = BeforeValidator(_no_bool)


_LIMITS = {name: Field(ge=limits.low, le=limits.high) for name, limits in RANGES.items()}

Seconds = Annotated[float, Field(ge=0, le=600), _Number]
WaitSeconds = Annotated[
    Seconds | None,
    Field(description="How long to block, s. 0: return at once with the id. Default: fits the host."),
]
AllowDuplicate = Annotated[bool, Field(description="true pays for another even while an identical request is open.")]
TaskId = Annotated[str, Field(min_length=1, max_length=128, description="task_id or submission_id.")]
ParentId = Annotated[str, Field(min_length=1, max_length=128, description="The finished task's id.")]
Index = Annotated[int, Field(ge=1, le=4, description="Which picture of the grid, 1-4."), _Number]
TaskAnswer = Annotated[CallToolResult, BriefTaskView]


async def generate_image(
    ctx: Ctx,
    prompt: Annotated[str, Field(description="What to draw, in words. Midjourney flags in it are left as they are.")],
    aspect_ratio: Annotated[str | None, Field(description="W:H, e.g. 16:9.")] = None,
    version: Annotated[str | None, Field(description="Model version, e.g. 7. Not with niji.")] = None,
    niji: Annotated[str | None, Field(description="Anime model version: 7, 6, 5 or 4.")] = None,
    stylize: Annotated[
        Annotated[int, _LIMITS["stylize"], _Number] | None, Field(description="Strength of style.")
    ] = None,
    chaos: Annotated[
        Annotated[int, _LIMITS["chaos"], _Number] | None, Field(description="Variety among the four.")
    ] = None,
    weird: Annotated[Annotated[int, _LIMITS["weird"], _Number] | None, Field(description="Oddness.")] = None,
    seed: Annotated[
        Annotated[int, _LIMITS["seed"], _Number] | None, Field(description="For repeatable results.")
    ] = None,
    quality: Annotated[Annotated[float, _Number] | None, Field(description="0.25, 0.5, 1, 2 or 4, by version.")] = None,
    raw: Annotated[bool, Field(description="Less of Midjourney's own style.")] = False,
    tile: Annotated[bool, Field(description="A seamless pattern.")] = False,
    no: Annotated[list[str] | None, Field(description="What to leave out.")] = None,
    image_urls: Annotated[list[str] | None, Field(description="Public URLs of pictures to start from.")] = None,
    image_weight: Annotated[
        Annotated[float, _LIMITS["image_weight"], _Number] | None, Field(description="Weight of image_urls.")
    ] = None,
    style_reference: Annotated[list[str] | None, Field(description="URLs, style codes or random.")] = None,
    style_weight: Annotated[
        Annotated[int, _LIMITS["style_weight"], _Number] | None, Field(description="Weight of style_reference.")
    ] = None,
    omni_reference: Annotated[str | None, Field(description="URL of a subject to put in (V7).")] = None,
    omni_weight: Annotated[
        Annotated[int, _LIMITS["omni_weight"], _Number] | None, Field(description="Weight of omni_reference.")
    ] = None,
    wait_seconds: WaitSeconds = None,
    allow_duplicate: AllowDuplicate = False,
    allow_multiple: Annotated[bool, Field(description="true allows --repeat and {a, b}, which multiply cost.")] = False,
) -> TaskAnswer:
    """Draw a grid of pictures from a prompt. Costs money."""
    face = ctx.request_context.lifespan_context
    options = Options(
        aspect_ratio=aspect_ratio,
        version=version,
        niji=niji,
        stylize=stylize,
        chaos=chaos,
        weird=weird,
        seed=seed,
        quality=quality,
        raw=raw,
        tile=tile,
        no=tuple(no or ()),
        image_urls=tuple(image_urls or ()),
        image_weight=image_weight,
        style_reference=tuple(style_reference or ()),
        style_weight=style_weight,
        omni_reference=omni_reference,
        omni_weight=omni_weight,
    )
    return await face.call(
        ctx,
        wait_seconds,
        face.studio.generate,
        prompt,
        options,
        allow_multiple=allow_multiple,
        allow_duplicate=allow_duplicate,
    )


async def upscale_image(
    ctx: Ctx,
    task_id: ParentId,
    index: Index,
    wait_seconds: WaitSeconds = None,
    allow_duplicate: AllowDuplicate = False,
) -> TaskAnswer:
    """Make one picture of a finished grid large. Costs money."""
    return await _change(ctx, Kind.UPSCALE, task_id, index, wait_seconds, allow_duplicate)


async def vary_image(
    ctx: Ctx,
    task_id: ParentId,
    index: Index,
    wait_seconds: WaitSeconds = None,
    allow_duplicate: AllowDuplicate = False,
) -> TaskAnswer:
    """Draw a new grid of pictures like one of a finished grid. Costs money."""
    return await _change(ctx, Kind.VARIATION, task_id, index, wait_seconds, allow_duplicate)


async def reroll(
    ctx: Ctx, task_id: ParentId, wait_seconds: WaitSeconds = None, allow_duplicate: AllowDuplicate = False
) -> TaskAnswer:
    """Draw a finished task's grid anew from the same prompt. Costs money."""
    return await _change(ctx, Kind.REROLL, task_id, None, wait_seconds, allow_duplicate)


async def simple_change(
    ctx: Ctx,
    content: Annotated[str, Field(max_length=140, description='"ID U1" upscales, "ID V3" varies, "ID R" rerolls.')],
    wait_seconds: WaitSeconds = None,
    allow_duplicate: AllowDuplicate = False,
) -> TaskAnswer:
    """Upscale, vary or reroll by shorthand. Costs money."""
    kind, task_id, index = _read_shorthand(content)
    return await _change(ctx, kind, task_id, index, wait_seconds, allow_duplicate, shorthand=True)


async def get_task(
    ctx: Ctx,
    task_id: TaskId,
    wait_seconds: Annotated[Seconds, Field(description="How long to wait for the end, s. 0: as it stands now.")] = 0,
    include_image: Annotated[bool, Field(description="false leaves the picture out, once it was seen.")] = True,
) -> Annotated[CallToolResult, TaskView]:
    """How a task stands, after waiting for it if asked. Free."""
    face = ctx.request_context.lifespan_context
    return await face.call(ctx, wait_seconds, face.studio.recall, task_id, picture=include_image, bought=False)


async def list_tasks(
    ctx: Ctx,
    status: Annotated[Literal[tuple(sorted(TASKS))] | None, Field(description="Only these.")] = None,  # type: ignore[valid-type]
    limit: Annotated[int, Field(ge=1, le=100, description="How many."), _Number] = 20,
    cursor: Annotated[str | None, Field(description="next_cursor of the page before.")] = None,
) -> Annotated[CallToolResult, TaskListView]:
    """The tasks of this account, newest first, also those that finished while nobody waited. Free."""
    face = ctx.request_context.lifespan_context
    page = await face.studio.list_tasks(caller().owner, Status(status) if status else None, limit, cursor)
    return list_result(page, face.studio.remaining, face.manner())


async def view_image(
    ctx: Ctx,
    task_id: TaskId,
    index: Annotated[int, Field(ge=1, le=16, description="Which picture, from 1."), _Number],
    max_edge: Annotated[int, Field(ge=256, le=2048, description="Longer edge, pixels."), _Number] = 1024,
) -> Annotated[CallToolResult, PictureView]:
    """One picture of a finished task, large enough to judge. Free."""
    task, picture = await ctx.request_context.lifespan_context.studio.view(caller().owner, task_id, index, max_edge)
    return picture_result(task, index, picture)


async def save_images(
    ctx: Ctx,
    task_id: TaskId,
    indexes: Annotated[
        list[Annotated[int, Field(ge=1, le=16), _Number]] | None, Field(description="Which pictures. Default: all.")
    ] = None,
    folder: Annotated[str | None, Field(description="A folder inside the output folder.")] = None,
) -> Annotated[CallToolResult, FilesView]:
    """Save a finished task's full-size pictures on this machine; returns their paths. Free."""
    task, files = await ctx.request_context.lifespan_context.studio.save(caller().owner, task_id, indexes, folder)
    return files_result(task, files)


async def _change(
    ctx: Ctx,
    kind: Kind,
    task_id: str,
    index: int | None,
    wait_seconds: float | None,
    allow_duplicate: bool,
    *,
    shorthand: bool = False,
) -> CallToolResult:
    face = ctx.request_context.lifespan_context
    return await face.call(
        ctx,
        wait_seconds,
        face.studio.change,
        kind,
        task_id,
        index,
        shorthand=shorthand,
        allow_duplicate=allow_duplicate,
    )


_LETTERS = {"U": Kind.UPSCALE, "V": Kind.VARIATION}


def _read_shorthand(content: str) -> tuple[Kind, str, int | None]:
    words = content.split()
    if len(words) == 2:
        task_id, verb = words[0], words[1].upper()
        if verb == "R":
            return Kind.REROLL, task_id, None
        if len(verb) == 2 and verb[0] in _LETTERS and verb[1] in "1234":
            return _LETTERS[verb[0]], task_id, int(verb[1])
    raise InvalidRequest("content", content, '"ID U1" to "ID U4", "ID V1" to "ID V4", or "ID R"')


_SPENDS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True)
_READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=True)

_SAVES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=True)

_Verb = Callable[..., Awaitable[Any]]
SPENDING: list[tuple[_Verb, str]] = [
    (generate_image, "Generate image"),
    (upscale_image, "Upscale image"),
    (vary_image, "Vary image"),
    (reroll, "Reroll"),
    (simple_change, "Simple change"),
]
READING: list[tuple[_Verb, str]] = [
    (get_task, "Get task"),
    (list_tasks, "List tasks"),
    (view_image, "View image"),
]
SAVING: list[tuple[_Verb, str]] = [(save_images, "Save images")]


@cache
def build_tools(*, spends: bool, saves: bool) -> tuple[CheckedTool, ...]:
    """Every tool of the server; without those that spend, or that save files, where it does not do so.

    They hold nothing of one server, so that all servers of a process share them.
    """
    chosen = [(verb, title, _READS) for verb, title in READING]
    if saves:
        chosen += [(verb, title, _SAVES) for verb, title in SAVING]
    if spends:
        chosen = [(verb, title, _SPENDS) for verb, title in SPENDING] + chosen
    return tuple(
        checked(CheckedTool.from_function(verb, title=title, annotations=annotations))
        for verb, title, annotations in chosen
    )
