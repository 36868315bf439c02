"""The gateway: the dialect of the specification.

Owns its key check, its addresses, the codes of a submit, and the shape of a fetch.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from mj_mcp.simulator.api import SUCCEED, Job
from mj_mcp.simulator.dialects.desk import Desk, Route, Unknown, answer, error, same
from mj_mcp.simulator.dialects.gateway_orders import INVALID, UNKNOWN_PARENT, Refusal, read_order
from mj_mcp.simulator.listener import JSON, Reply, Request
from mj_mcp.simulator.orders import Action, Order

_UNKNOWN: Final[dict[Unknown, Reply]] = {
    "empty": Reply(200, b"", JSON),
    "null": Reply(200, b"null", JSON),
    "{}": Reply(200, b"{}", JSON),
    "204": Reply(204),
    "404": Reply(404, b'{"error": {"message": "task not found", "type": "invalid_request_error"}}', JSON),
}
_CHALLENGE: Final = ("WWW-Authenticate", "Bearer")
_TYPES: Final[dict[Action, str]] = {
    "IMAGINE": "MIDJOURNEY_TEXT_TO_IMAGE_FAST_MODE",
    "UPSCALE": "MIDJOURNEY_UPSCALE_FAST_MODE",
    "VARIATION": "MIDJOURNEY_VARIATION_FAST_MODE",
    "REROLL": "MIDJOURNEY_REROLL_FAST_MODE",
}


class Gateway:
    """Answers as the specification words it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.routes: tuple[Route, ...] = (
            Route("POST", re.compile(r"/mj/submit/(?P<endpoint>imagine|change|simple-change)"), self._submit),
            Route("GET", re.compile(r"/mj/task/(?P<task_id>[^/]+)/fetch"), self._fetch, "fetch"),
        )

    def elsewhere(self, _request: Request, allowed: str | None) -> Reply:
        """Answer a request that no route takes."""
        return error(405, "method not allowed", ("Allow", allowed)) if allowed else error(404, "not found")

    def _locked(self, request: Request) -> Reply | None:
        if same(request.headers.get("authorization", ""), f"Bearer {self._desk.settings.key}"):
            return None
        return error(401, "invalid API key", _CHALLENGE)

    async def _submit(self, request: Request, endpoint: str) -> Reply:
        if locked := self._locked(request):
            return locked
        order = read_order(endpoint, request.headers.get("content-type", ""), request.body)
        if isinstance(order, Refusal):
            return _refused(order)
        if known := self._desk.proxy.existing(order):
            return answer(200, {"code": 21, "description": "任务已存在", "result": known.task_id})
        parent = self._parent(order)
        if isinstance(parent, Refusal):
            return _refused(parent)
        job = self._desk.proxy.create(order, parent)
        self._desk.charge(job, endpoint, order.body)
        return answer(200, {"code": 1, "description": "提交成功", "result": job.task_id})

    def _parent(self, order: Order) -> Job | Refusal | None:
        if order.parent_id is None:
            return None
        parent = self._desk.proxy.jobs.get(order.parent_id)
        if parent is None:
            return Refusal(UNKNOWN_PARENT, "the parent task does not exist")
        if parent.at(self._desk.now()).status != SUCCEED:
            return Refusal(INVALID, "the parent task has not succeeded")
        if order.action == "UPSCALE" and parent.action == "UPSCALE":
            return Refusal(INVALID, "an upscaled picture cannot be upscaled")
        if order.index is not None and order.index > parent.images:
            return Refusal(INVALID, f"the parent task has {parent.images} pictures")
        return parent

    async def _fetch(self, request: Request, task_id: str) -> Reply:
        if locked := self._locked(request):
            return locked
        job = self._desk.proxy.jobs.get(task_id)
        if job is None:
            return _UNKNOWN[self._desk.unknown_answer]
        base = self._desk.base(request)
        return answer(200, self._task(job, lambda index: self._desk.link(base, job, index)))

    def _task(self, job: Job, link: Callable[[int], str]) -> dict[str, Any]:
        """Return the answer to a fetch, in exactly the shape of the specification."""
        standing = self._desk.proxy.shown(job)
        seconds = self._desk.settings.link_seconds
        count = job.images if standing.status == SUCCEED else 0
        return {
            "extra": {"has_nsfw_contents": []},
            "task": {
                "task_id": job.task_id,
                "task_type": _TYPES[job.action],
                "status": standing.status,
                "reason": standing.reason,
                "eta": standing.eta,
                "progress_percent": standing.progress,
            },
            "images": [
                {
                    "image_url": link(index),
                    "image_url_ttl": "0" if seconds is None else str(int(seconds)),
                    "image_type": "png",
                    "nsfw_detection_result": None,
                }
                for index in range(1, count + 1)
            ],
            "videos": [],
            "audios": [],
        }


def _refused(refusal: Refusal) -> Reply:
    said: dict[str, Any] = {"code": refusal.code, "description": refusal.description}
    return answer(200, said | ({"properties": refusal.properties} if refusal.properties else {}))
