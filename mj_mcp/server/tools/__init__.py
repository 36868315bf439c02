"""The tools, in files by subject: name, arguments, annotations, and the function that answers.

Owns the published arguments and their descriptions. Decides nothing and writes no results.
"""

from __future__ import annotations

from functools import cache

from mj_mcp.server.tool_call import CheckedTool, checked
from mj_mcp.server.tool_spec import ToolSpec
from mj_mcp.server.tools import reading, spending, viewing

TOOLS: tuple[ToolSpec, ...] = (*spending.TOOLS, *reading.TOOLS, *viewing.TOOLS)
"""Every tool, in the order in which they are listed."""

SPENDING_TOOLS = frozenset(spec.name for spec in TOOLS if spec.spends)


@cache
def build_tools(*, spends: bool, saves: bool, view: bool) -> tuple[CheckedTool, ...]:
    """Every tool of the server, without those that spend or save files if it does not allow that.

    With `view`, those that yield tasks name the view. They hold no state of a server, so all servers of a process
    share them.
    """
    offered = (spec for spec in TOOLS if (spends or not spec.spends) and (saves or not spec.saves))
    return tuple(checked(spec, view=view) for spec in offered)
