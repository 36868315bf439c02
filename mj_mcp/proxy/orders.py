"""What can be bought from a proxy, in our terms, and the request that a dialect makes of it.

Owns these values, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mj_mcp.errors import InvalidRequest
from mj_mcp.proxy.text import check_task_id
from mj_mcp.tasks import Kind


@dataclass(frozen=True, slots=True)
class Imagine:
    """A grid from a prompt. `uploads` are image prompts as data URLs, where the dialect takes them."""

    prompt: str
    uploads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """An upscale, a variation or a reroll. `index` counts from 1, and a reroll has none.

    `shorthand` prefers the proxy's shorthand, where it has one.
    """

    kind: Kind
    parent_id: str
    index: int | None = None
    shorthand: bool = False

    def __post_init__(self) -> None:
        check_task_id(self.parent_id)


@dataclass(frozen=True, slots=True)
class Press:
    """Any other button of a finished task, by its label. `prompt` is for a button that asks for one."""

    parent_id: str
    button: str
    prompt: str | None = None

    def __post_init__(self) -> None:
        check_task_id(self.parent_id)


@dataclass(frozen=True, slots=True)
class Describe:
    """Four prompts for a picture, given as a data URL."""

    upload: str


@dataclass(frozen=True, slots=True)
class Blend:
    """A grid from two to five pictures, given as data URLs."""

    uploads: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.uploads) <= 5:
            raise InvalidRequest("pictures", len(self.uploads), "2 to 5 pictures")


Order = Imagine | Change | Press | Describe | Blend


@dataclass(frozen=True, slots=True)
class Post:
    """One POST: its path, and exactly the fields that the dialect documents.

    `may_ask` says that code 21 in the answer means a dialog, which `Dialect.dialog` answers, and not that the task
    existed already.
    """

    path: str
    body: dict[str, Any] = field(default_factory=dict)
    may_ask: bool = False
