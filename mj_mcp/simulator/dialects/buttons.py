"""The buttons below a finished task: which there are, their ids, and what each starts.

Owns the table of buttons by kind of task and model version. An id ends in the hash of the chat message that it belongs
to, so it dies with the message.
"""

import re
from dataclasses import dataclass
from typing import Any, Final, Literal

from mj_mcp.simulator.api import Job
from mj_mcp.simulator.orders import Action

_VERSION: Final = re.compile(r"--(?:v|version)[ =]+(\d+(?:\.\d+)?)")
_NO_TWICE_FROM: Final = 8.0
_LETTERS: Final = range(1, 5)


@dataclass(frozen=True, slots=True)
class MessageButton:
    """One button. `name` is its id up to the hash, `tail` what follows it; a `window` asks before the job starts."""

    name: str
    label: str
    emoji: str
    starts: Action
    index: int | None = None
    tail: Literal["", "::SOLO"] = "::SOLO"
    window: bool = False

    def custom_id(self, message: str) -> str:
        """Return the whole id."""
        return f"{self.name}::{message}{self.tail}"

    def shown(self, message: str) -> dict[str, Any]:
        """Return the button as a task lists it."""
        return {
            "customId": self.custom_id(message),
            "emoji": self.emoji,
            "label": self.label,
            "style": 2,
            "type": 2,
        }


_REROLL: Final = MessageButton("MJ::JOB::reroll::0", "", "🔄", "REROLL")
_SELECT: Final = tuple(MessageButton(f"MJ::JOB::upsample::{n}", f"U{n}", "", "UPSCALE", n, "") for n in _LETTERS)
_VARY: Final = tuple(MessageButton(f"MJ::JOB::variation::{n}", f"V{n}", "", "VARIATION", n, "") for n in _LETTERS)
_VARY_ONE: Final = (
    MessageButton("MJ::JOB::low_variation::1", "Vary (Subtle)", "🪄", "VARIATION"),
    MessageButton("MJ::JOB::high_variation::1", "Vary (Strong)", "🪄", "VARIATION"),
    MessageButton("MJ::Inpaint::1", "Vary (Region)", "🖌️", "VARIATION", window=True),
)
_ZOOM: Final = (
    MessageButton("MJ::Outpaint::50::1", "Zoom Out 2x", "🔍", "ZOOM"),
    MessageButton("MJ::Outpaint::75::1", "Zoom Out 1.5x", "🔍", "ZOOM"),
    MessageButton("MJ::CustomZoom", "Custom Zoom", "🔍", "ZOOM", tail="", window=True),
)
_ARROWS: Final = {"left": "⬅️", "right": "➡️", "up": "⬆️", "down": "⬇️"}
_PAN: Final = tuple(MessageButton(f"MJ::JOB::pan_{way}::1", "", arrow, "PAN") for way, arrow in _ARROWS.items())
_ANIMATE: Final = (
    MessageButton("MJ::JOB::animate_high::1", "Animate (High motion)", "🎞️", "VIDEO"),
    MessageButton("MJ::JOB::animate_low::1", "Animate (Low motion)", "🎞️", "VIDEO"),
)
_TWICE: Final = {"6": "v6", "6.1": "v6r1", "7": "v7"}
_VIDEO: Final = tuple(
    MessageButton(f"MJ::JOB::video_virtual_upscale::{n}", f"U{n}", "", "VIDEO", n, "") for n in _LETTERS
)


def version_of(prompt: str, default: str) -> str:
    """Return the model version that a prompt asks for."""
    found = _VERSION.search(prompt)
    return found[1] if found else default


def buttons_of(job: Job, default_version: str) -> tuple[MessageButton, ...]:
    """Return the buttons of a task that has succeeded."""
    version = version_of(job.prompt, default_version)
    new = float(version) >= _NO_TWICE_FROM
    match job.action:
        case "UPSCALE":
            twice = () if new else _twice(version)
            return (*twice, *_VARY_ONE, *(() if new else (*_ZOOM, *_PAN)), *_ANIMATE, _REROLL)
        case "UPSCALE_HD":
            return (*_VARY_ONE, *(() if new else _ZOOM), *_ANIMATE, _REROLL)
        case "VIDEO":
            return (*_VIDEO, _REROLL)
        case "DESCRIBE" | "SHORTEN":
            return ()
    return (*(() if new else _SELECT), _REROLL, *_VARY)


def _twice(version: str) -> tuple[MessageButton, ...]:
    kind = _TWICE.get(version, "v7")
    return tuple(
        MessageButton(f"MJ::JOB::upsample_{kind}_2x_{way}::1", f"Upscale ({way.title()})", "upscale_1", "UPSCALE_HD")
        for way in ("subtle", "creative")
    )
