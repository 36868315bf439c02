"""What a caller allows for a purchase, and what it gets: plain values.

Owns these two, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mj_mcp.gallery import Shown
from mj_mcp.proxy import Trouble
from mj_mcp.tasks import Task


@dataclass(frozen=True, slots=True)
class Result:
    """What a caller gets: the task, whether it existed already, and how the wait went."""

    task: Task
    duplicate: bool = False
    finished_ago: float | None = None
    """Seconds since a duplicate finished; None while it is open."""
    notes: tuple[str, ...] = ()
    trouble: tuple[int, Trouble] | None = None
    """How many polls have failed in a row, and how the last one failed."""
    shown: Shown | None = None
    polls: int = 0
    waited: float = 0.0

    def noting(self, *notes: str) -> Result:
        """The same result with more warnings."""
        return replace(self, notes=(*self.notes, *notes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """What the caller allows for this submit."""

    allow_duplicate: bool = False
    """Submit even if an identical request is open or recent."""
    allow_multiple: bool = False
    """Accept a prompt that makes several jobs."""
    extra_flags: frozenset[str] = frozenset()
    """Names of prompt flags that the operator allows beside the known ones."""


PLAIN = Purchase()
