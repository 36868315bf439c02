"""Argument types that several tools share, with their published descriptions and ranges."""

from __future__ import annotations

from typing import Annotated

from mcp_types import CallToolResult
from pydantic import Field

from mj_mcp.prompts import RANGES
from mj_mcp.server.shapes import BriefTaskView

LIMITS = {name: Field(ge=limits.low, le=limits.high) for name, limits in RANGES.items()}
"""Ranges of the options of `generate_image`, from the table that checks them."""

WaitSeconds = Annotated[
    Annotated[float, Field(ge=0, le=600)] | None,
    Field(description="Seconds to wait for the result. 0: return at once. Default: what the client allows."),
]
AllowDuplicate = Annotated[bool, Field(description="true buys another even if the same request is open or recent.")]
TaskId = Annotated[str, Field(max_length=128, description="task_id or submission_id.")]
Label = Annotated[str, Field(max_length=60, description="A label in `buttons` of that task.")]
ParentId = Annotated[str, Field(max_length=128, description="The finished task.")]
Index = Annotated[int, Field(ge=1, le=4, description="Which picture of the grid.")]
PictureIndex = Annotated[int, Field(ge=1, le=16)]
TaskAnswer = Annotated[CallToolResult, BriefTaskView]
