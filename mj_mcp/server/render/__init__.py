"""The only package that writes text for a model: turns tasks, errors and advice into results of MCP calls.

Owns the words. Decides nothing: that happens below.
"""

from __future__ import annotations

from mj_mcp.server.render.error_results import ERROR_META, FREE_STEPS, NEXT_STEPS, error_result
from mj_mcp.server.render.instructions import CANNOT, instructions
from mj_mcp.server.render.list_results import list_result, list_view, usage_result, wait_result
from mj_mcp.server.render.picture_results import compared_result, files_result, picture_result, sheet_result
from mj_mcp.server.render.task_results import Presentation, rfc3339, task_result, task_view

__all__ = [
    "CANNOT",
    "ERROR_META",
    "FREE_STEPS",
    "NEXT_STEPS",
    "Presentation",
    "compared_result",
    "error_result",
    "files_result",
    "instructions",
    "list_result",
    "list_view",
    "picture_result",
    "rfc3339",
    "sheet_result",
    "task_result",
    "task_view",
    "usage_result",
    "wait_result",
]
