"""What is sent: the four endpoints, with exactly the fields that the specification gives them.

Owns paths and request bodies. Knows nothing of answers or of connections.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from mj_mcp.errors import InvalidRequest
from mj_mcp.tasks import Kind

TASK_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""Letters, digits and four signs, up to 128: anything else could change the URL."""


@dataclass(frozen=True, slots=True)
class Submit:
    """One POST: its path and exactly the fields that the specification gives it."""

    path: str
    body: dict[str, str | int]


def imagine(prompt: str) -> Submit:
    """POST /mj/submit/imagine."""
    return Submit("/mj/submit/imagine", {"prompt": prompt})


_ACTIONS = {Kind.UPSCALE: ("UPSCALE", "U"), Kind.VARIATION: ("VARIATION", "V"), Kind.REROLL: ("REROLL", "R")}


def change(kind: Kind, task_id: str, index: int | None) -> Submit:
    """POST /mj/submit/change; `index` is sent for UPSCALE and VARIATION only."""
    action, _ = _ACTIONS[kind]
    body: dict[str, str | int] = {"taskId": check_task_id(task_id), "action": action}
    if index is not None:
        body["index"] = index
    return Submit("/mj/submit/change", body)


def simple_change(kind: Kind, task_id: str, index: int | None) -> Submit:
    """POST /mj/submit/simple-change with "ID U1", "ID V3" or "ID R"."""
    _, letter = _ACTIONS[kind]
    content = f"{check_task_id(task_id)} {letter}{index or ''}"
    return Submit("/mj/submit/simple-change", {"content": content})


FETCH = "/mj/task/{id}/fetch"


def fetch_path(task_id: str) -> str:
    """GET /mj/task/{id}/fetch."""
    return FETCH.format(id=quote(check_task_id(task_id), safe=""))


def check_task_id(task_id: str) -> str:
    """`task_id`, when it can stand in a URL.

    Raises:
        InvalidRequest: it holds other characters, or is longer than 128.
    """
    if not is_task_id(task_id):
        raise InvalidRequest("task_id", task_id, "1 to 128 letters, digits, `.`, `_`, `:` or `-`")
    return task_id


def is_task_id(text: str) -> bool:
    """Whether the text can be a task id, and can stand in a URL."""
    return TASK_ID.fullmatch(text) is not None and set(text) != {"."}
