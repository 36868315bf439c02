"""A tool as a value: its function, whether it spends, and when a result proposes it.

Owns what is derived from that: names, annotations, and the calls that make sense next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mcp_types import ToolAnnotations

from mj_mcp.tasks import Task


def _never(_task: Task) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """One tool of the server. The function `verb` answers; its name, arguments and first line are published."""

    verb: Callable[..., Awaitable[Any]]
    title: str
    spends: bool = False
    """Whether it costs money, so that a read-only server or login does not have it."""
    saves: bool = False
    """Whether it writes files on the server's machine."""
    view: bool = False
    """Whether its results are tasks, which the view shows."""
    next: Callable[[Task], dict[str, Any] | None] = _never
    """The arguments with which it can be called for a finished task; None if it cannot."""

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.verb.__name__

    @property
    def annotations(self) -> ToolAnnotations:
        """What hosts are told about its effects."""
        reads = not (self.spends or self.saves)
        return ToolAnnotations(
            read_only_hint=reads, destructive_hint=False, idempotent_hint=not self.spends, open_world_hint=True
        )


def next_calls(tools: Iterable[ToolSpec], task: Task) -> list[dict[str, Any]]:
    """The calls of these tools that make sense for a finished task, the free ones first."""
    found = [(spec, spec.next(task)) for spec in sorted(tools, key=lambda spec: spec.spends)]
    return [{"tool": spec.name, "arguments": arguments} for spec, arguments in found if arguments is not None]
