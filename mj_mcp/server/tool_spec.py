"""A tool as a value: what it does, whether it spends, and when a result should propose it.

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
    """One tool of the server. `verb` answers; its name, arguments and first line are published."""

    verb: Callable[..., Awaitable[Any]]
    title: str
    spends: bool = False
    """Whether it buys, so that a read-only server or login has it not."""
    saves: bool = False
    """Whether it writes files on the machine of the server."""
    next: Callable[[Task], dict[str, Any] | None] = _never
    """The arguments with which it can be called for a finished task; None where it cannot."""

    @property
    def name(self) -> str:
        """The name by which it is called."""
        return self.verb.__name__

    @property
    def annotations(self) -> ToolAnnotations:
        """What hosts are told of its effects."""
        reads = not (self.spends or self.saves)
        return ToolAnnotations(
            read_only_hint=reads, destructive_hint=False, idempotent_hint=not self.spends, open_world_hint=True
        )


def next_calls(tools: Iterable[ToolSpec], task: Task) -> list[dict[str, Any]]:
    """The calls of these tools that make sense for a finished task, those that are free first."""
    found = [(spec, spec.next(task)) for spec in sorted(tools, key=lambda spec: spec.spends)]
    return [{"tool": spec.name, "arguments": arguments} for spec, arguments in found if arguments is not None]
