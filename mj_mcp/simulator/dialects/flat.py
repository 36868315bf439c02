"""What the proxies with flat tasks have in common.

Owns the body of a submit's answer, the words for a job's state, its times, and the checks of uploaded pictures. Each
dialect words its own answers with these.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from mj_mcp.simulator.api import FAILED, PROCESSING, QUEUED, QUEUED_SHARE, SUCCEED, Job
from mj_mcp.simulator.dialects.desk import Desk
from mj_mcp.simulator.listener import Request
from mj_mcp.simulator.orders import Action

SUCCESS: Final = 1
NOT_FOUND: Final = 3
INVALID: Final = 4
EXISTED: Final = 21
BANNED: Final = 24

INSTANCE: Final = "1118138338562560102"
ACCEPTED: Final = "提交成功"
NO_PARENT: Final = "关联任务不存在或已失效"
PARENT_OPEN: Final = "关联任务状态错误"

_STATUSES: Final = {QUEUED: "NOT_START", PROCESSING: "IN_PROGRESS", SUCCEED: "SUCCESS", FAILED: "FAILURE"}
_DATA_URL: Final = re.compile(r"data:image/[a-z]+;base64,[A-Za-z0-9+/]+={0,2}")
_FEWEST_BLENDED, _MOST_BLENDED = 2, 5


@dataclass(frozen=True, slots=True)
class Flat:
    """A job's state in the words of the family. Times are epoch milliseconds; a preview exists only while it runs."""

    status: str
    progress: int
    reason: str
    submitted: int
    started: int | None
    finished: int | None

    @property
    def has_preview(self) -> bool:
        """Whether the job shows something of itself while it runs."""
        return self.status == "IN_PROGRESS" and self.progress > 0


def flat(desk: Desk, job: Job) -> Flat:
    """Return the state of a job at this moment."""
    standing, now = desk.proxy.shown(job), desk.now()
    status = _STATUSES.get(standing.status, standing.status)
    waited = job.seconds is not None and now - job.created_at > job.seconds * QUEUED_SHARE / 2
    if job.pinned is None and status == "NOT_START" and waited:
        status = "SUBMITTED"
    submitted = int(job.created_at * 1000)
    started = None if status in {"NOT_START", "MODAL", ""} else submitted + 1
    ended = status in {"SUCCESS", "FAILURE", "CANCEL"}
    finished = int((job.pinned_at or job.ends_at or now) * 1000) if ended else None
    return Flat(status, standing.progress, standing.reason, submitted, started, finished)


def image_link(desk: Desk, base: str, job: Job, state: Flat) -> str | None:
    """Return the one link of a task: the grid or the picture, or the preview while it runs."""
    if state.has_preview:
        return desk.link(base, job, 0, "preview.png")
    if state.status != "SUCCESS" or not job.images:
        return None
    if job.action == "VIDEO":
        return desk.link(base, job, 1, "{}.mp4")
    return desk.link(base, job, 1 if job.images == 1 else 0)


def final_prompt(job: Job) -> str:
    """Return what the task's `finalPrompt` says: the prompt, or the prompts that were made of a picture or a text."""
    match job.action:
        case "DESCRIBE":
            return "\n\n".join(f"{number}\ufe0f\u20e3 a picture, described {number} --ar 1:1" for number in range(1, 5))
        case "SHORTEN":
            return "\n\n".join(f"{number}\ufe0f\u20e3 {job.prompt[: 40 // number]}" for number in range(1, 6))
    return job.prompt


def message_hash(desk: Desk, job: Job) -> str:
    """Return the id of the chat message of a task, in the form of a UUID; a replaced message has another."""
    digest = hashlib.md5(
        f"{job.task_id}/{desk.proxy.messages[job.task_id]}".encode(), usedforsecurity=False
    ).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}"


def said(code: int, description: str, result: str | None = None, **properties: object) -> dict[str, Any]:
    """Return the body of a submit's answer."""
    return {"code": code, "description": description, "result": result, "properties": properties}


def already(desk: Desk, job: Job) -> dict[str, Any]:
    """Return the body of an answer that names an existing task."""
    return said(EXISTED, "任务已存在", job.task_id, status=flat(desk, job).status)


def read_object(request: Request) -> dict[str, Any] | None:
    """Return the JSON object that was sent, or None."""
    if "json" not in request.headers.get("content-type", "").lower():
        return None
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def wrong_uploads(body: dict[str, Any]) -> bool:
    """Return whether an uploaded picture is no data URL."""
    given = body.get("base64Array") or []
    if body.get("base64"):
        given = [*given, body["base64"]]
    return any(not isinstance(item, str) or not _DATA_URL.fullmatch(item) for item in given)


def wrong_blend(body: dict[str, Any]) -> bool:
    """Return whether the number of pictures to blend is wrong."""
    given = body.get("base64Array")
    return not isinstance(given, list) or not _FEWEST_BLENDED <= len(given) <= _MOST_BLENDED


def text_of(body: dict[str, Any], name: str) -> str:
    """Return a text field without surrounding space; "" when it is missing or no text."""
    value = body.get(name)
    return value.strip() if isinstance(value, str) else ""


def state_of(body: dict[str, Any]) -> str | None:
    """Return the client's own mark."""
    state = body.get("state")
    return state if isinstance(state, str) else None


LETTERS: Final[dict[str, Action]] = {"u": "UPSCALE", "v": "VARIATION"}
