"""The tools that cost money: imagine, upscale, vary, reroll, the proxy's shorthand, and its other buttons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from mcp_types import CallToolResult
from pydantic import Field

from mj_mcp.errors import InvalidRequest
from mj_mcp.prompts import Options
from mj_mcp.server.tool_call import ToolCall
from mj_mcp.server.tool_spec import ToolSpec
from mj_mcp.server.tools.types import LIMITS, AllowDuplicate, Index, Label, ParentId, TaskAnswer, WaitSeconds
from mj_mcp.studio import Purchase
from mj_mcp.tasks import Kind, Task


async def generate_image(
    call: ToolCall,
    prompt: Annotated[str, Field(description="What to draw, in words. Midjourney flags in it are checked.")],
    aspect_ratio: Annotated[str | None, Field(description="W:H, e.g. 16:9.")] = None,
    version: Annotated[str | None, Field(description="Model version, e.g. 7. Not with niji.")] = None,
    niji: Annotated[str | None, Field(description="Anime model version: 7, 6, 5 or 4.")] = None,
    stylize: Annotated[Annotated[int, LIMITS["stylize"]] | None, Field(description="Strength of style.")] = None,
    chaos: Annotated[Annotated[int, LIMITS["chaos"]] | None, Field(description="Variety among the four.")] = None,
    weird: Annotated[Annotated[int, LIMITS["weird"]] | None, Field(description="Oddness.")] = None,
    seed: Annotated[Annotated[int, LIMITS["seed"]] | None, Field(description="For repeatable results.")] = None,
    quality: Annotated[float | None, Field(description="0.25, 0.5, 1, 2 or 4, by version.")] = None,
    speed: Annotated[str | None, Field(description="fast, relax or turbo.")] = None,
    draft: Annotated[bool, Field(description="Half the cost, rougher (V7).")] = False,
    raw: Annotated[bool, Field(description="Less of Midjourney's own style.")] = False,
    tile: Annotated[bool, Field(description="A seamless pattern.")] = False,
    no: Annotated[list[str] | None, Field(description="What must not appear.")] = None,
    profile: Annotated[list[str] | None, Field(description="Ids of profiles or moodboards.")] = None,
    image_urls: Annotated[
        list[str] | None, Field(description="Pictures to start from: public URLs, TASK_ID#INDEX or local files.")
    ] = None,
    image_weight: Annotated[
        Annotated[float, LIMITS["image_weight"]] | None, Field(description="Weight of image_urls.")
    ] = None,
    style_reference: Annotated[
        list[str] | None, Field(description="URLs, TASK_ID#INDEX, style codes or random.")
    ] = None,
    style_weight: Annotated[
        Annotated[int, LIMITS["style_weight"]] | None, Field(description="Weight of style_reference.")
    ] = None,
    omni_reference: Annotated[
        str | None, Field(description="URL or TASK_ID#INDEX of a subject to put in (V7).")
    ] = None,
    omni_weight: Annotated[
        Annotated[int, LIMITS["omni_weight"]] | None, Field(description="Weight of omni_reference.")
    ] = None,
    wait_seconds: WaitSeconds = None,
    allow_duplicate: AllowDuplicate = False,
    allow_multiple: Annotated[bool, Field(description="true allows --repeat and {a, b}, which multiply cost.")] = False,
) -> TaskAnswer:
    """Draw a grid of pictures from a prompt. Costs money."""
    options = Options(
        aspect_ratio=aspect_ratio,
        version=version,
        niji=niji,
        stylize=stylize,
        chaos=chaos,
        weird=weird,
        seed=seed,
        quality=quality,
        speed=speed,
        draft=draft,
        raw=raw,
        tile=tile,
        no=tuple(no or ()),
        profile=tuple(profile or ()),
        image_urls=tuple(image_urls or ()),
        image_weight=image_weight,
        style_reference=tuple(style_reference or ()),
        style_weight=style_weight,
        omni_reference=omni_reference,
        omni_weight=omni_weight,
    )
    purchase = Purchase(
        allow_duplicate=allow_duplicate,
        allow_multiple=allow_multiple,
        extra_flags=call.context.settings.extra_flags,
    )
    return await call.bought(await call.studio.imagine(call.caller, prompt, options, purchase))


async def upscale_image(
    call: ToolCall,
    task_id: ParentId,
    index: Index,
    wait_seconds: WaitSeconds = None,
    allow_duplicate: AllowDuplicate = False,
) -> TaskAnswer:
    """Make one picture of a finished grid large. Costs money."""
    return await _change(call, Kind.UPSCALE, task_id, index, allow_duplicate)


async def vary_image(
    call: ToolCall,
    task_id: ParentId,
    index: Index,
    wait_seconds: WaitSeconds = None,
    allow_duplicate: AllowDuplicate = False,
) -> TaskAnswer:
    """Draw a new grid of pictures like one of a finished grid. Costs money."""
    return await _change(call, Kind.VARIATION, task_id, index, allow_duplicate)


async def reroll(
    call: ToolCall,
    task_id: ParentId,
    wait_seconds: WaitSeconds = None,
    allow_duplicate: AllowDuplicate = False,
) -> TaskAnswer:
    """Draw a new grid from a finished task's prompt. Costs money."""
    return await _change(call, Kind.REROLL, task_id, None, allow_duplicate)


async def simple_change(
    call: ToolCall,
    content: Annotated[str, Field(max_length=140, description='"ID U1" upscales, "ID V3" varies, "ID R" rerolls.')],
    wait_seconds: WaitSeconds = None,
    allow_duplicate: AllowDuplicate = False,
) -> TaskAnswer:
    """Upscale, vary or reroll by shorthand. Costs money."""
    kind, task_id, index = _read_shorthand(content)
    return await _change(call, kind, task_id, index, allow_duplicate, shorthand=True)


async def press_button(
    call: ToolCall,
    task_id: ParentId,
    button: Label,
    prompt: Annotated[str | None, Field(description="For a button that asks for one, like Custom Zoom.")] = None,
    wait_seconds: WaitSeconds = None,
    allow_duplicate: AllowDuplicate = False,
) -> TaskAnswer:
    """Zoom, pan, animate and the like: press any other button of a finished task. Costs money."""
    purchase = Purchase(allow_duplicate=allow_duplicate, extra_flags=call.context.settings.extra_flags)
    return await call.bought(await call.studio.press(call.caller, task_id, button, prompt, purchase))


async def _change(
    call: ToolCall, kind: Kind, task_id: str, index: int | None, allow_duplicate: bool, *, shorthand: bool = False
) -> CallToolResult:
    purchase = Purchase(allow_duplicate=allow_duplicate)
    return await call.bought(await call.studio.change(call.caller, kind, task_id, index, purchase, shorthand=shorthand))


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


def _offers(task: Task, kind: Kind) -> bool:
    """Whether the task's buttons offer it; without buttons, whether it is a grid."""
    if task.offers is not None:
        return kind in task.offers
    return len(task.images) > 1 if task.kind is Kind.BUTTON else task.kind is not Kind.UPSCALE


def _of_whole(task: Task) -> dict[str, Any] | None:
    return {"task_id": task.handle} if _offers(task, Kind.REROLL) else None


def _of_one(kind: Kind) -> Callable[[Task], dict[str, Any] | None]:
    def arguments(task: Task) -> dict[str, Any] | None:
        return {"task_id": task.handle, "index": task.images[0].index} if _offers(task, kind) else None

    return arguments


TOOLS = (
    ToolSpec(verb=generate_image, title="Generate image", spends=True),
    ToolSpec(verb=upscale_image, title="Upscale image", spends=True, next=_of_one(Kind.UPSCALE)),
    ToolSpec(verb=vary_image, title="Vary image", spends=True, next=_of_one(Kind.VARIATION)),
    ToolSpec(verb=reroll, title="Reroll", spends=True, next=_of_whole),
    ToolSpec(verb=simple_change, title="Simple change", spends=True),
    ToolSpec(verb=press_button, title="Press button", spends=True),
)
