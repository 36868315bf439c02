"""job: jobs by id and pictures by number, as Legnext documents it (docs.legnext.ai, read 2026-11).

Owns its key check, addresses, the documented fields of each submit, the words of its refusals, and the job object. The
documentation is silent about the refusal of a parent that is unknown or not finished; here it is a 404 and a 400.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any, Final

from mj_mcp.simulator.api import FAILED, PROCESSING, QUEUED, QUEUED_SHARE, SUCCEED, Job
from mj_mcp.simulator.dialects.desk import Desk, Route, answer, same
from mj_mcp.simulator.listener import Reply, Request
from mj_mcp.simulator.orders import BANNED_WORD, UPSCALES, Action, Order

MAX_TEXT: Final = 8192

_FIELDS: Final = {
    "diffusion": {"text", "callback"},
    "upscale": {"jobId", "imageNo", "type", "callback"},
    "variation": {"jobId", "imageNo", "type", "remixPrompt", "callback"},
    "reroll": {"jobId", "callback"},
}
_ACTIONS: Final[dict[str, Action]] = {"upscale": "UPSCALE", "variation": "VARIATION", "reroll": "REROLL"}
_TASK_TYPES: Final = {action: endpoint for endpoint, action in _ACTIONS.items()} | {"IMAGINE": "diffusion"}
_HIGHEST_TYPE: Final = {"upscale": 3, "variation": 1}
_OFFERED: Final = ("edit", "inpaint", "outpaint", "pan", "remix", "upscale", "variation")
_STATUSES: Final = {QUEUED: "pending", PROCESSING: "processing", SUCCEED: "completed", FAILED: "failed"}
_NEVER: Final = "0001-01-01T00:00:00Z"


class Jobs:
    """Answers as Legnext documents its API."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        desk.proxy.uuids = True
        self.routes: tuple[Route, ...] = (
            Route("POST", re.compile(rf"/v1/(?P<endpoint>{'|'.join(_FIELDS)})"), self._submit),
            Route("GET", re.compile(r"/v1/job/(?P<task_id>[^/]+)"), self._fetch, "fetch"),
        )

    def elsewhere(self, _request: Request, allowed: str | None) -> Reply:
        """Answer a request that no route takes."""
        return Reply(405, b"", (("Allow", allowed),)) if allowed else _refused(404, "Not found")

    def _locked(self, request: Request) -> Reply | None:
        if same(request.headers.get("x-api-key", ""), self._desk.settings.key):
            return None
        return _refused(401, "Failed to verify api key")

    # --- submits

    async def _submit(self, request: Request, endpoint: str) -> Reply:
        if locked := self._locked(request):
            return locked
        try:
            body = json.loads(request.body)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict) or body.keys() - _FIELDS[endpoint]:
            return _refused(400, "Invalid request parameters")
        order = _imagine(body) if endpoint == "diffusion" else self._change(endpoint, body)
        if isinstance(order, Reply):
            return order
        job = self._desk.proxy.create(order, self._desk.proxy.jobs.get(order.parent_id or ""))
        self._desk.charge(job, endpoint, body)
        return answer(200, self._job(job, self._desk.base(request)))

    def _change(self, endpoint: str, body: dict[str, Any]) -> Order | Reply:
        parent_id, number = body.get("jobId"), body.get("imageNo")
        if not isinstance(parent_id, str):
            return _refused(400, "Invalid request parameters")
        if endpoint != "reroll" and not (_whole(number, 3) and _whole(body.get("type"), _HIGHEST_TYPE[endpoint])):
            return _refused(422, "Invalid parameter values")
        parent = self._desk.proxy.jobs.get(parent_id)
        if parent is None:
            return _refused(404, "Job not found")
        offered = self._actions(parent).get(endpoint, False)
        if offered is False or (endpoint != "reroll" and number not in offered):
            return _refused(400, "The job does not allow this action")
        index = None if endpoint == "reroll" else int(str(number)) + 1
        return Order(_ACTIONS[endpoint], body, parent_id=parent_id, index=index)

    # --- jobs

    async def _fetch(self, request: Request, task_id: str) -> Reply:
        if locked := self._locked(request):
            return locked
        job = self._desk.proxy.jobs.get(task_id)
        return answer(200, self._job(job, self._desk.base(request))) if job else _refused(404, "Job not found")

    def _actions(self, job: Job) -> dict[str, Any]:
        """Return what may be done with a job: the numbers of its pictures by action; nothing with an upscaled one."""
        if self._desk.proxy.shown(job).status != SUCCEED or job.action in UPSCALES:
            return {}
        return {name: list(range(job.images)) for name in _OFFERED} | {"reroll": True}

    def _job(self, job: Job, base: str) -> dict[str, Any]:
        standing, now = self._desk.proxy.shown(job), self._desk.now()
        status = _STATUSES.get(standing.status, standing.status)
        if status == "pending" and job.seconds and now - job.created_at > job.seconds * QUEUED_SHARE / 2:
            status = "staged"
        done, ended = status == "completed", status in {"completed", "failed"}
        links = [self._desk.link(base, job, index) for index in range(1, job.images + 1)] if done else []
        grid = links[:1] if job.images == 1 else [self._desk.link(base, job, 0)]
        failed = status == "failed"
        actions = self._actions(job)
        return {
            "job_id": job.task_id,
            "model": "midjourney",
            "task_type": _TASK_TYPES[job.action],
            "status": status,
            "config": {"service_mode": "public", "webhook_config": {"endpoint": "", "secret": ""}},
            "input": None,
            "output": {
                "image_url": grid[0] if links else "",
                "image_urls": links or None,
                "seed": str(job.created_at).replace(".", "") if done else "",
                **({"available_actions": actions} if actions else {}),
            },
            "meta": {
                "created_at": _time(job.created_at),
                "started_at": _NEVER if status in {"pending", "staged"} else _time(job.created_at),
                "ended_at": _time(job.pinned_at or job.ends_at or now) if ended else _NEVER,
                "usage": {"type": "point", "frozen": 80, "consume": 80 if done else 0},
            },
            "detail": None,
            "logs": [],
            "error": _error(400 if failed else 0, standing.reason if failed else ""),
        }


def _imagine(body: dict[str, Any]) -> Order | Reply:
    text = body.get("text")
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_TEXT:
        return _refused(400, "Invalid request parameters")
    if BANNED_WORD in text.lower():
        return _refused(403, "Sensitive content detected")
    return Order("IMAGINE", body, text)


def _whole(value: object, highest: int) -> bool:
    return type(value) is int and 0 <= value <= highest


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _error(code: int, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "raw_message": message, "detail": None}


def _refused(status: int, message: str) -> Reply:
    return answer(status, _error(status, message))
