"""The tools, as values: name, arguments, annotations, and the function that answers.

Owns the published arguments and their descriptions. Decides nothing and words no result.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from mcp_types import ToolAnnotations

from mj_mcp.server.tool_call import CheckedTool, checked
from mj_mcp.server.tools.reading import get_task, get_usage, list_tasks, wait_for_tasks
from mj_mcp.server.tools.spending import generate_image, reroll, simple_change, upscale_image, vary_image
from mj_mcp.server.tools.viewing import save_images, view_image

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
    (wait_for_tasks, "Wait for tasks"),
    (list_tasks, "List tasks"),
    (view_image, "View image"),
    (get_usage, "Get usage"),
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
    return tuple(checked(verb, title=title, annotations=annotations) for verb, title, annotations in chosen)
