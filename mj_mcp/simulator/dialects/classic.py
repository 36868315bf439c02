"""classic: the first open proxy (novicezk/midjourney-proxy), and its ports.

Owns its key check, addresses, refusals and tasks. It has no buttons, forgets everything at a restart, and answers what
it does not know by nothing at all.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any, Final

from mj_mcp.simulator.api import Job
from mj_mcp.simulator.dialects.desk import Desk, Route, same
from mj_mcp.simulator.dialects.flat import (
    ACCEPTED,
    BANNED,
    INSTANCE,
    INVALID,
    LETTERS,
    NO_PARENT,
    NOT_FOUND,
    PARENT_OPEN,
    SUCCESS,
    already,
    final_prompt,
    flat,
    image_link,
    message_hash,
    read_object,
    said,
    state_of,
    text_of,
    wrong_blend,
    wrong_uploads,
)
from mj_mcp.simulator.listener import Reply, Request
from mj_mcp.simulator.orders import BANNED_WORD, Action, Order

_JSON: Final = (("Content-Type", "application/json"),)
_ACTIONS: Final[dict[str, Action]] = {"UPSCALE": "UPSCALE", "VARIATION": "VARIATION", "REROLL": "REROLL"}
_OTHER_ACTIONS: Final = frozenset({"IMAGINE", "DESCRIBE", "BLEND"})
_CHANGEABLE: Final = frozenset({"IMAGINE", "VARIATION", "REROLL", "BLEND"})
_SHORT: Final = re.compile(r"(?P<task_id>[^ ]+) (?:(?P<letter>[uv])(?P<index>[1-4]).*|r)", re.IGNORECASE)
_NAMES: Final = {400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}


class Classic:
    """Answers as novicezk/midjourney-proxy does."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._readers = {
            "imagine": self._imagine,
            "change": self._change,
            "simple-change": self._simple_change,
            "describe": self._describe,
            "blend": self._blend,
        }
        self.routes: tuple[Route, ...] = (
            Route("POST", re.compile(rf"/mj/submit/(?P<endpoint>{'|'.join(self._readers)})"), self._submit),
            Route("GET", re.compile(r"/mj/task/(?P<task_id>[^/]+)/fetch"), self._fetch, "fetch"),
            Route("GET", re.compile(r"/mj/task/list"), self._list, "list"),
            Route("POST", re.compile(r"/mj/task/list-by-condition"), self._by_ids, "list"),
        )

    def elsewhere(self, request: Request, allowed: str | None) -> Reply:
        """Answer a request that no route takes."""
        return self._locked(request) or self._broken(request, 405 if allowed else 404)

    def _locked(self, request: Request) -> Reply | None:
        given = request.headers.get("mj-api-secret", "")
        return None if same(given, self._desk.settings.key) else Reply(401)

    def _broken(self, request: Request, status: int) -> Reply:
        """Return the error page of the framework, as JSON."""
        at = datetime.fromtimestamp(self._desk.now(), UTC).isoformat(timespec="milliseconds")
        return _json({"timestamp": at, "status": status, "error": _NAMES[status], "path": request.path}, status)

    async def _submit(self, request: Request, endpoint: str) -> Reply:
        if locked := self._locked(request):
            return locked
        body = read_object(request)
        if body is None:
            return self._broken(request, 400)
        outcome = self._readers[endpoint](body)
        if isinstance(outcome, int):
            return self._broken(request, outcome)
        if isinstance(outcome, dict):
            return _json(outcome)
        if known := self._desk.proxy.existing(outcome):
            return _json(already(self._desk, known))
        job = self._desk.proxy.create(outcome, self._desk.proxy.jobs.get(outcome.parent_id or ""))
        self._desk.charge(job, endpoint, body)
        return _json(said(SUCCESS, ACCEPTED, job.task_id, discordInstanceId=INSTANCE))

    def _imagine(self, body: dict[str, Any]) -> Order | dict[str, Any] | int:
        prompt = text_of(body, "prompt")
        if not prompt:
            return said(INVALID, "prompt不能为空")
        if BANNED_WORD in prompt.lower():
            return said(BANNED, "可能包含敏感词", promptEn=prompt, bannedWord=BANNED_WORD)
        if wrong_uploads(body):
            return said(INVALID, "base64格式错误")
        return Order("IMAGINE", body, prompt, state=state_of(body), description=f"/imagine {prompt}")

    def _simple_change(self, body: dict[str, Any]) -> Order | dict[str, Any] | int:
        found = _SHORT.fullmatch(str(body.get("content")))
        if found is None:
            return said(INVALID, "content参数错误")
        change: dict[str, Any] = {"taskId": found["task_id"], "action": "REROLL"}
        if found["letter"]:
            change |= {"action": LETTERS[found["letter"].lower()], "index": int(found["index"])}
        return self._change(change | {"state": body.get("state")})

    def _change(self, body: dict[str, Any]) -> Order | dict[str, Any] | int:
        task_id, named, index = text_of(body, "taskId"), body.get("action"), body.get("index")
        action = _ACTIONS.get(str(named))
        if action is None and named is not None and named not in _OTHER_ACTIONS:
            return 400
        if not task_id:
            return said(INVALID, "taskId不能为空")
        if action is None:
            return said(INVALID, "action参数错误")
        if refusal := self._wrong_parent(task_id):
            return refusal
        if action == "REROLL":
            index = None
        elif not isinstance(index, int):
            return 500
        letter = "R" if index is None else f"{action[0]}{index}"
        description = f"/up {task_id} {letter}"
        return Order(action, body, "", task_id, index, state_of(body), description=description)

    def _wrong_parent(self, task_id: str) -> dict[str, Any] | None:
        parent = self._desk.proxy.jobs.get(task_id)
        if parent is None:
            return said(NOT_FOUND, NO_PARENT)
        if flat(self._desk, parent).status != "SUCCESS":
            return said(INVALID, PARENT_OPEN)
        return None if parent.action in _CHANGEABLE else said(INVALID, "关联任务不允许执行变化")

    def _describe(self, body: dict[str, Any]) -> Order | dict[str, Any] | int:
        if not text_of(body, "base64"):
            return said(INVALID, "base64不能为空")
        if wrong_uploads(body):
            return said(INVALID, "base64格式错误")
        return Order("DESCRIBE", body, state=state_of(body), description="/describe picture.png")

    def _blend(self, body: dict[str, Any]) -> Order | dict[str, Any] | int:
        if wrong_blend(body):
            return said(INVALID, "base64List参数错误")
        if not body.get("dimensions"):
            return said(INVALID, "dimensions参数错误")
        if wrong_uploads(body):
            return said(INVALID, "base64格式错误")
        return Order("BLEND", body, state=state_of(body), description=f"/blend {len(body['base64Array'])}")

    async def _fetch(self, request: Request, task_id: str) -> Reply:
        if locked := self._locked(request):
            return locked
        job = self._desk.proxy.jobs.get(task_id)
        return Reply() if job is None else _json(self._task(job, self._desk.base(request)))

    async def _list(self, request: Request) -> Reply:
        if locked := self._locked(request):
            return locked
        base = self._desk.base(request)
        newest = sorted(self._desk.proxy.jobs.values(), key=lambda job: job.created_at, reverse=True)
        return _json([self._task(job, base) for job in newest])

    async def _by_ids(self, request: Request) -> Reply:
        if locked := self._locked(request):
            return locked
        base, ids = self._desk.base(request), (read_object(request) or {}).get("ids") or []
        return _json([self._task(job, base) for task_id in ids if (job := self._desk.proxy.jobs.get(task_id))])

    def _task(self, job: Job, base: str) -> dict[str, Any]:
        state = flat(self._desk, job)
        progress = {
            "IN_PROGRESS": f"{state.progress}%" if state.progress else "Waiting to start",
            "SUBMITTED": "0%",
            "SUCCESS": "100%",
            "FAILURE": "",
        }
        properties = {"discordInstanceId": INSTANCE, "finalPrompt": final_prompt(job)}
        if state.status == "SUCCESS":
            properties |= {"messageId": job.task_id * 2, "messageHash": message_hash(self._desk, job)}
        return {
            "id": job.task_id,
            "properties": properties,
            "action": job.action,
            "status": state.status,
            "prompt": job.prompt or None,
            "promptEn": job.prompt or None,
            "description": job.description,
            "state": job.state,
            "submitTime": state.submitted,
            "startTime": state.started,
            "finishTime": state.finished,
            "imageUrl": image_link(self._desk, base, job, state),
            "progress": progress.get(state.status),
            "failReason": state.reason or None,
        }


def _json(answer: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace"), _JSON)
