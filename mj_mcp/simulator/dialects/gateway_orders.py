"""Reads a submit of the gateway as strictly as the specification words it.

Owns the documented fields of the three submit endpoints, their checks, and the codes of their refusals. Does not know
which tasks exist, or HTTP.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from mj_mcp.simulator.orders import BANNED_WORD, Action, Order

UNKNOWN_PARENT: Final = 3
INVALID: Final = 4
BANNED: Final = 24

MAX_PROMPT: Final = 8192

_SIMPLE: Final = re.compile(r"(?P<task_id>\S+) (?:(?P<letter>[UV])(?P<index>[1-4])|R)")
_LETTERS: Final[dict[str | None, Action]] = {"U": "UPSCALE", "V": "VARIATION", None: "REROLL"}
_NUMBERED: Final[dict[str, Action]] = {"UPSCALE": "UPSCALE", "VARIATION": "VARIATION"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A submit that creates nothing."""

    code: int
    description: str
    properties: dict[str, Any] = field(default_factory=dict)


def read_order(endpoint: str, media_type: str, raw: bytes) -> Order | Refusal:
    """Check a submit against the specification; `endpoint` is one of ENDPOINTS."""
    if media_type.partition(";")[0].strip().lower() != "application/json":
        return Refusal(INVALID, "Content-Type must be application/json")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return Refusal(INVALID, "the body is not JSON")
    if not isinstance(body, dict):
        return Refusal(INVALID, "the body is not an object")
    fields, read = ENDPOINTS[endpoint]
    if surplus := sorted(body.keys() - fields):
        return Refusal(INVALID, f"unknown fields: {', '.join(surplus)}")
    return read(body)


def _imagine(body: dict[str, Any]) -> Order | Refusal:
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        return Refusal(INVALID, "prompt is missing")
    if len(prompt) > MAX_PROMPT:
        return Refusal(INVALID, f"prompt is longer than {MAX_PROMPT} characters")
    if BANNED_WORD in prompt.lower():
        return Refusal(BANNED, "prompt holds a banned word", {"bannedWord": BANNED_WORD, "promptEn": prompt})
    return Order("IMAGINE", body, prompt=prompt)


def _change(body: dict[str, Any]) -> Order | Refusal:
    task_id, action, index = body.get("taskId"), body.get("action"), body.get("index")
    if not isinstance(task_id, str) or not task_id:
        return Refusal(INVALID, "taskId is missing")
    if action == "REROLL":
        if "index" in body:
            return Refusal(INVALID, "REROLL takes no index")
        return Order("REROLL", body, parent_id=task_id)
    if not isinstance(action, str) or action not in _NUMBERED:
        return Refusal(INVALID, "action must be VARIATION, UPSCALE or REROLL")
    if type(index) is not int or index not in range(1, 5):
        return Refusal(INVALID, "index must be an integer from 1 to 4")
    return Order(_NUMBERED[action], body, parent_id=task_id, index=index)


def _simple_change(body: dict[str, Any]) -> Order | Refusal:
    content = body.get("content")
    found = _SIMPLE.fullmatch(content) if isinstance(content, str) else None
    if found is None:
        return Refusal(INVALID, "content must read 'ID U1', 'ID V1' or 'ID R'")
    index = int(found["index"]) if found["index"] else None
    return Order(_LETTERS[found["letter"]], body, parent_id=found["task_id"], index=index)


ENDPOINTS: Final[dict[str, tuple[frozenset[str], Callable[[dict[str, Any]], Order | Refusal]]]] = {
    "imagine": (frozenset({"prompt"}), _imagine),
    "change": (frozenset({"taskId", "action", "index"}), _change),
    "simple-change": (frozenset({"content"}), _simple_change),
}
