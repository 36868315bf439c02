"""newapi: the relay of most resellers (QuantumNous/new-api), in front of a plus.

Owns its key check, its own refusals, what it rewrites of its upstream's answers, and its table of tasks, which it
refreshes from upstream now and then. It lists nothing: an address that it does not know shows its web page.
"""

import json
import re
from typing import Any, Final

from mj_mcp.simulator.api import Job
from mj_mcp.simulator.dialects.desk import Desk, Route, answer, same
from mj_mcp.simulator.dialects.flat import EXISTED, INVALID, SUCCESS, read_object, text_of
from mj_mcp.simulator.dialects.plus import SPEED, Plus
from mj_mcp.simulator.listener import Reply, Request

_PAGE: Final = Reply(
    200,
    b'<!doctype html><html lang="en"><head><title>New API</title></head><body><div id="root"></div></body></html>',
    (("Content-Type", "text/html; charset=utf-8"),),
)
_REQUEST_ID: Final = "20261127120000000000000abcdefgh"
_ENDPOINTS: Final = "imagine|action|modal|change|simple-change|describe|blend|shorten"
_OF_A_PARENT: Final = frozenset({"action", "modal", "change"})
_CHANGES: Final = frozenset({"UPSCALE", "VARIATION", "REROLL"})
_KINDS: Final = (
    ("upsample", "UPSCALE"),
    ("low_variation", "LOW_VARIATION"),
    ("high_variation", "HIGH_VARIATION"),
    ("variation", "VARIATION"),
    ("pan", "PAN"),
    ("reroll", "REROLL"),
    ("Outpaint", "ZOOM"),
    ("CustomZoom", "CUSTOM_ZOOM"),
    ("Inpaint", "INPAINT"),
)
_WINDOWS: Final = frozenset({"CUSTOM_ZOOM", "INPAINT"})
_COPIED: Final = ("promptEn", "state", "failReason", "status", "imageUrl", "videoUrl", "progress")
_TIMES: Final = ("submitTime", "startTime", "finishTime")


class NewApi:
    """Answers as QuantumNous/new-api does in front of a plus."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._upstream = Plus(desk)
        self._rows: dict[str, tuple[Job, dict[str, Any]]] = {}
        self._refreshed = 0.0
        self.routes: tuple[Route, ...] = (
            Route("POST", re.compile(rf"{SPEED}/mj/submit/(?P<endpoint>{_ENDPOINTS})"), self._submit),
            Route("GET", re.compile(rf"{SPEED}/mj/task/(?P<task_id>[^/]+)/fetch"), self._fetch, "fetch"),
            Route("POST", re.compile(rf"{SPEED}/mj/task/list-by-condition"), self._by_ids, "list"),
        )

    def elsewhere(self, _request: Request, _allowed: str | None) -> Reply:
        """Answer a request that no route takes by the web page, without a look at the key."""
        return _PAGE

    def _locked(self, request: Request) -> Reply | None:
        given = _bare(request.headers.get("authorization", ""))
        if given in {"", "midjourney-proxy"}:
            given = _bare(request.headers.get("mj-api-secret", ""))
        return None if same(given, _bare(self._desk.settings.key)) else _own(401, "Invalid token")

    # --- submits

    async def _submit(self, request: Request, endpoint: str) -> Reply:
        if locked := self._locked(request):
            return locked
        body = read_object(request)
        if body is None:
            return _own(400, "Invalid request: Invalid Midjourney request: invalid JSON")
        kind = _kind(endpoint, body)
        if refusal := _misrouted(endpoint, body, kind) or self._refusal(request, endpoint, body):
            return refusal
        if endpoint == "change":
            return Reply(404)  # the upstream has no such address, and its empty answer is handed on
        status, outcome = self._upstream.ordered(endpoint, body)
        if outcome["code"] in {SUCCESS, EXISTED}:
            self._insert(outcome, kind)
        if outcome["code"] == EXISTED and kind not in _WINDOWS:
            outcome = outcome | {"code": SUCCESS}
        # The relay writes these without a type, and so its HTTP library guesses one.
        return Reply(status, _packed(outcome), (("Content-Type", "text/plain; charset=utf-8"),))

    def _refusal(self, request: Request, endpoint: str, body: dict[str, Any]) -> Reply | None:
        """Return the relay's own refusal of a submit, before its upstream sees it."""
        if endpoint == "imagine" and not text_of(body, "prompt"):
            return _refused("prompt_is_required")
        if endpoint not in _OF_A_PARENT or not text_of(body, "taskId"):
            return None
        if endpoint == "change" and not body.get("index"):
            return _refused("index_is_required")
        parent = self._row(request, text_of(body, "taskId"))
        if parent is None:
            return _refused("task_not_found")
        if endpoint != "modal" and parent["status"] != "SUCCESS":
            return _refused("task_status_not_success")
        return None

    def _insert(self, outcome: dict[str, Any], kind: str) -> None:
        job = self._desk.proxy.jobs[outcome["result"]]
        if job.task_id not in self._rows:
            self._rows[job.task_id] = (job, _first(job, kind, outcome["description"]))

    # --- tasks

    async def _fetch(self, request: Request, task_id: str) -> Reply:
        if locked := self._locked(request):
            return locked
        row = self._row(request, task_id)
        return _refused("task_no_found") if row is None else _json(row)

    async def _by_ids(self, request: Request) -> Reply:
        if locked := self._locked(request):
            return locked
        ids = (read_object(request) or {}).get("ids") or []
        return _json([row for task_id in ids if (row := self._row(request, task_id)) is not None])

    def _row(self, request: Request, task_id: str) -> dict[str, Any] | None:
        """Return a task as the table has it, refreshed before if it is time to."""
        now = self._desk.now()
        if now - self._refreshed >= self._desk.habits.get("refresh_seconds", 0.0):
            self._refreshed = now
            for job in self._desk.proxy.jobs.values():
                self._refresh(job, self._desk.base(request))
        if task_id not in self._desk.proxy.jobs or task_id not in self._rows:
            return None
        row = self._rows[task_id][1]
        return row | {"imageUrl": self._link(request, row) if row["imageUrl"] else ""}

    def _refresh(self, job: Job, base: str) -> None:
        """Take a task over from upstream, unless the table holds its end already."""
        kept, row = self._rows[job.task_id]
        if row["progress"] == "100%" and kept is job:
            return
        task = self._upstream.task(job, base)
        if task["status"] != "NOT_START":  # too short a time to be seen
            row = row | {name: task[name] or "" for name in _COPIED} | {name: task[name] or 0 for name in _TIMES}
            row |= {"buttons": task["buttons"], "properties": _properties(task)}
            row |= {"videoUrls": task["videoUrls"] and [{"url": item["url"]} for item in task["videoUrls"]]}
            if row["status"] == "FAILURE":
                row["progress"] = "100%"
        self._rows[job.task_id] = (job, row)

    def _link(self, request: Request, row: dict[str, Any]) -> str:
        local = self._desk.habits.get("localhost_links", False)
        link = f"{'http://localhost:3000' if local else self._desk.base(request)}/mj/image/{row['id']}"
        return link if row["status"] == "SUCCESS" else f"{link}?rand={int(self._desk.now() * 1e9)}"


def _bare(key: str) -> str:
    return key.removeprefix("Bearer ").removeprefix("bearer ").strip().removeprefix("sk-")


def _kind(endpoint: str, body: dict[str, Any]) -> str:
    """Return the relay's name for what a submit asks for; "" when it has none."""
    match endpoint:
        case "action":
            return _kind_of(text_of(body, "customId"))
        case "change":
            return text_of(body, "action")
        case "simple-change":  # taken for a change, whose action is missing
            return ""
    return endpoint.upper()


def _kind_of(custom_id: str) -> str:
    parts = custom_id.split("::")
    named = parts[2] if parts[1:2] == ["JOB"] else "".join(parts[1:2])
    return next((kind for word, kind in _KINDS if word in named), "")


def _misrouted(endpoint: str, body: dict[str, Any], kind: str) -> Reply | None:
    """Refuse what the relay has no model and so no channel for."""
    if endpoint == "action" and not kind:
        custom_id = text_of(body, "customId")
        why = f"unknown_action:{custom_id}" if custom_id else "custom_id_is_required"
        return _own(400, f"Invalid request: {why}")
    if endpoint == "simple-change" or (endpoint == "change" and kind not in _CHANGES):
        why = f"No available channel for model mj_{kind.lower()} under group default (distributor)"
        return _own(503, why, "model_not_found")
    return None


def _first(job: Job, kind: str, description: str) -> dict[str, Any]:
    """Return a row as it is inserted, before anything is known of the job."""
    return {
        "id": job.task_id,
        "action": kind,
        "customId": "",
        "botType": "",
        "prompt": job.prompt,
        "promptEn": "",
        "description": description,
        "state": "",
        "submitTime": int(job.created_at * 1000),
        "startTime": 0,
        "finishTime": 0,
        "imageUrl": "",
        "videoUrl": "",
        "videoUrls": None,
        "status": "",
        "progress": "0%",
        "failReason": "",
        "buttons": None,
        "maskBase64": "",
        "properties": None,
    }


def _properties(task: dict[str, Any]) -> dict[str, str]:
    return {"finalPrompt": task["properties"]["finalPrompt"], "finalZhPrompt": ""}


def _refused(description: str) -> Reply:
    """Return a refusal of the relay's own; the space stands before an empty result."""
    return answer(400, {"description": f"{description} ", "type": "upstream_error", "code": INVALID})


def _own(status: int, message: str, code: str = "") -> Reply:
    error = {"code": code, "message": f"{message} (request id: {_REQUEST_ID})", "type": "new_api_error"}
    return answer(status, {"error": error})


def _json(said: object) -> Reply:
    return Reply(200, _packed(said), (("Content-Type", "application/json"),))


def _packed(said: object) -> bytes:
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
