"""What a well-formed submit asks for, in every dialect.

Owns the order and the kinds of job. Does not know how a dialect words one, which tasks exist, or HTTP.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

Action = Literal[
    "IMAGINE",
    "UPSCALE",
    "VARIATION",
    "REROLL",
    "BLEND",
    "DESCRIBE",
    "SHORTEN",
    "ZOOM",
    "PAN",
    "UPSCALE_HD",
    "VIDEO",
]

SINGLE: Final[frozenset[Action]] = frozenset({"UPSCALE", "UPSCALE_HD", "DESCRIBE"})
"""The kinds of job with one picture; SHORTEN has none, all others have a grid."""

UPSCALES: Final[frozenset[Action]] = frozenset({"UPSCALE", "UPSCALE_HD"})

BANNED_WORD: Final = "forbiddenword"


@dataclass(frozen=True, slots=True)
class Order:
    """What a well-formed submit asks for: a prompt, or an action upon a parent task.

    `button` is the name of the pressed one, `description` what the task says of itself; `waits` says that the job
    starts only when its window is confirmed; `fails` is the reason why the job will fail.
    """

    action: Action
    body: dict[str, Any]
    prompt: str = ""
    parent_id: str | None = None
    index: int | None = None
    state: str | None = None
    button: str = ""
    description: str = ""
    waits: bool = False
    fails: str = ""
