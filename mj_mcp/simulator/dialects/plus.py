"""plus: Midjourney-Proxy-Plus (trueai-org/midjourney-proxy, 10 and later).

Owns its key check, addresses, refusals, buttons and windows, and its tasks with everything that is in them. What a
relay in front of it needs (`ordered`, `task`) does not check the key.
"""

import re
from typing import Any, Final

from mj_mcp.simulator.api import FAILED, Job, Standing
from mj_mcp.simulator.dialects.buttons import MessageButton, buttons_of, version_of
from mj_mcp.simulator.dialects.desk import Desk, Route, answer, same, text
from mj_mcp.simulator.dialects.flat import (
    ACCEPTED,
    EXISTED,
    INSTANCE,
    INVALID,
    NO_PARENT,
    NOT_FOUND,
    PARENT_OPEN,
    SUCCESS,
    Flat,
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
from mj_mcp.simulator.orders import BANNED_WORD, SINGLE, Order

SPEED: Final = r"(?:/mj-(?:fast|relax|turbo))?"

BANNED_REASON: Final = "Banned prompt detected"
CANCELLED: Final = "取消任务"
STALE: Final = "按钮不存在或已失效"
WINDOW: Final = "Waiting for window confirm"

_NEWEST: Final = 100
_LONGEST_STATE: Final = 255
_REMIXED: Final = frozenset({"VARIATION", "PAN", "REROLL", "VIDEO"})
_NO_KEY: Final = "Authorization header missing."


class Plus:
    """Answers as trueai-org/midjourney-proxy does."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._readers = {
            "imagine": self._imagine,
            "action": self._action,
            "describe": self._describe,
            "blend": self._blend,
            "shorten": self._shorten,
        }
        endpoints = "|".join([*self._readers, "modal"])
        self.routes: tuple[Route, ...] = (
            Route("POST", re.compile(rf"{SPEED}/mj/submit/(?P<endpoint>{endpoints})"), self._submit),
            Route("GET", re.compile(rf"{SPEED}/mj/task/(?P<task_id>[^/]+)/fetch"), self._fetch, "fetch"),
            Route("GET", re.compile(rf"{SPEED}/mj/task/list"), self._list, "list"),
            Route("POST", re.compile(rf"{SPEED}/mj/task/list-by-(?:condition|ids)"), self._by_ids, "list"),
            Route("POST", re.compile(rf"{SPEED}/mj/task/(?P<task_id>[^/]+)/cancel"), self._cancel, "cancel"),
        )

    def elsewhere(self, request: Request, allowed: str | None) -> Reply:
        """Answer a request that no route takes."""
        status = Reply(405, b"", (("Allow", allowed),)) if allowed else Reply(404)
        return self._locked(request) or status

    def _locked(self, request: Request) -> Reply | None:
        """Refuse who is not known. An Authorization header is taken for the key as it stands, beside a secret too."""
        secret = request.headers.get("mj-api-secret", "")
        if same(request.headers.get("authorization", secret), self._desk.settings.key):
            return None
        if not self._desk.habits.get("guests", False):
            return text(401, _NO_KEY)
        self._desk.guests += 1
        return None

    # --- submits

    async def _submit(self, request: Request, endpoint: str) -> Reply:
        if locked := self._locked(request):
            return locked
        body = read_object(request)
        if body is None:
            return answer(200, {"code": 0, "message": "参数异常", "success": False})
        status, outcome = self.ordered(endpoint, body)
        return answer(status, outcome)

    def ordered(self, endpoint: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the HTTP status and the answer of a submit; its job exists and is charged when it was accepted."""
        if endpoint == "modal":
            return self._modal(body)
        order = self._readers[endpoint](body)
        if isinstance(order, tuple):
            return order
        if order.state is not None and len(order.state) > _LONGEST_STATE:
            return 200, said(INVALID, "State参数过长\uff0c最大255字符")
        if known := self._desk.proxy.existing(order):
            return 200, already(self._desk, known)
        job = self._desk.proxy.create(order, self._desk.proxy.jobs.get(order.parent_id or ""))
        if job.waits:
            return 200, said(EXISTED, WINDOW, job.task_id, finalPrompt=job.prompt, remix=True)
        self._desk.charge(job, endpoint, body)
        return 200, _accepted(job)

    def _imagine(self, body: dict[str, Any]) -> Order | tuple[int, dict[str, Any]]:
        prompt = text_of(body, "prompt")
        if not prompt:
            return _refused("prompt不能为空")
        if wrong_uploads(body):
            return _refused("base64格式错误")
        fails = BANNED_REASON if BANNED_WORD in prompt.lower() else ""
        return Order("IMAGINE", body, prompt, state=state_of(body), description=f"/imagine {prompt}", fails=fails)

    def _describe(self, body: dict[str, Any]) -> Order | tuple[int, dict[str, Any]]:
        if not text_of(body, "base64") and not text_of(body, "link"):
            return _refused("base64或link不能为空")
        if body.get("link") and not text_of(body, "link").startswith(("http://", "https://")):
            return _refused("链接格式错误")
        if wrong_uploads(body):
            return _refused("base64格式错误")
        return Order("DESCRIBE", body, state=state_of(body), description="/describe")

    def _blend(self, body: dict[str, Any]) -> Order | tuple[int, dict[str, Any]]:
        if wrong_blend(body):
            return _refused("图片参数错误\uff0c2~5张图片")
        if not body.get("dimensions"):
            return _refused("dimensions参数错误")
        if wrong_uploads(body):
            return _refused("base64格式错误")
        return Order("BLEND", body, state=state_of(body), description=f"/blend {len(body['base64Array'])}")

    def _shorten(self, body: dict[str, Any]) -> Order | tuple[int, dict[str, Any]]:
        prompt = text_of(body, "prompt")
        return Order("SHORTEN", body, prompt, state=state_of(body), description=f"/shorten {prompt}")

    def _action(self, body: dict[str, Any]) -> Order | tuple[int, dict[str, Any]]:
        task_id, custom_id = text_of(body, "taskId"), text_of(body, "customId")
        if not task_id or not custom_id:
            return _refused("参数错误")
        parent = self._desk.proxy.jobs.get(task_id)
        if parent is None:
            return 404, said(NOT_FOUND, NO_PARENT)
        if flat(self._desk, parent).status != "SUCCESS":
            return _refused(PARENT_OPEN)
        message = message_hash(self._desk, parent)
        pressed = [button for button in self._buttons(parent) if button.custom_id(message) == custom_id]
        if not pressed:
            return _refused(STALE if custom_id.startswith("MJ::") else "未知的 Action 类型")
        return self._pressed(pressed[0], parent, body)

    def _pressed(self, button: MessageButton, parent: Job, body: dict[str, Any]) -> Order:
        starts = button.starts
        asks = self._desk.habits.get("remix", False) and starts in _REMIXED
        if starts == "REROLL":
            starts = "IMAGINE" if parent.action == "UPSCALE" else parent.action
        return Order(
            starts,
            body,
            parent_id=parent.task_id,
            index=button.index or (parent.index if starts in SINGLE else None),
            state=state_of(body),
            button=button.name,
            description=WINDOW if button.name == "MJ::CustomZoom" else f"/action {parent.task_id} {button.name}",
            waits=button.window or asks,
        )

    def _modal(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        task_id = text_of(body, "taskId")
        if not task_id:
            return _refused("参数错误")
        job = self._desk.proxy.jobs.get(task_id)
        if job is None:
            return 404, said(NOT_FOUND, NO_PARENT)
        prompt = text_of(body, "prompt") or job.prompt
        if not prompt:
            return _refused("prompt不能为空")
        started = self._desk.proxy.confirm(job, prompt)
        self._desk.charge(started, "modal", body)
        return 200, _accepted(started)

    # --- tasks

    async def _fetch(self, request: Request, task_id: str) -> Reply:
        if locked := self._locked(request):
            return locked
        job = self._desk.proxy.jobs.get(task_id)
        if job is None:
            return Reply(204)
        if self._desk.habits.get("changing_buttons", False):
            self._desk.proxy.messages[task_id] += 1
        return answer(200, self.task(job, self._desk.base(request)))

    async def _list(self, request: Request) -> Reply:
        if locked := self._locked(request):
            return locked
        base = self._desk.base(request)
        newest = sorted(self._desk.proxy.jobs.values(), key=lambda job: job.created_at, reverse=True)
        return answer(200, [self.task(job, base) for job in newest[:_NEWEST]])

    async def _by_ids(self, request: Request) -> Reply:
        if locked := self._locked(request):
            return locked
        base, ids = self._desk.base(request), (read_object(request) or {}).get("ids") or []
        found = [job for job in self._desk.proxy.jobs.values() if job.task_id in ids]
        return answer(200, [self.task(job, base) for job in found])

    async def _cancel(self, request: Request, task_id: str) -> Reply:
        """Mark a task as failed; nothing stops, and nothing is paid back."""
        if locked := self._locked(request):
            return locked
        job = self._desk.proxy.jobs.get(task_id)
        if job is not None and flat(self._desk, job).finished is None:
            self._desk.proxy.pin(task_id, Standing(FAILED, reason=CANCELLED))
        return Reply()

    def _buttons(self, job: Job) -> tuple[MessageButton, ...]:
        return buttons_of(job, self._desk.habits.get("model", "7"))

    def task(self, job: Job, base: str) -> dict[str, Any]:
        """Return a task as it is fetched."""
        state, message = flat(self._desk, job), message_hash(self._desk, job)
        progress = {"IN_PROGRESS": f"{state.progress}%", "SUBMITTED": "0%", "SUCCESS": "100%", "FAILURE": ""}
        done = state.status == "SUCCESS"
        image = image_link(self._desk, base, job, state)
        return {
            "id": job.task_id,
            "parentId": job.parent_id,
            "botType": "MID_JOURNEY",
            "realBotType": None,
            "userId": "admin",
            "instanceId": INSTANCE,
            "messageId": job.task_id * 2 if done else None,
            "action": job.action,
            "status": state.status,
            "isCompleted": state.finished is not None,
            "prompt": job.prompt or None,
            "promptEn": job.prompt or None,
            "promptFull": final_prompt(job) if done else None,
            "description": job.description,
            "state": job.state,
            "submitTime": state.submitted,
            "startTime": state.started,
            "finishTime": state.finished,
            "imageUrl": image,
            "thumbnailUrl": image,
            "progress": progress.get(state.status),
            "failReason": state.reason or None,
            "buttons": [button.shown(message) for button in self._buttons(job)] if done else [],
            "seed": None,
            "jobId": message if done else None,
            "mode": "FAST",
            "version": f"v {version_of(job.prompt, self._desk.habits.get('model', '7'))}" if done else None,
            "properties": {"discordInstanceId": INSTANCE, "finalPrompt": final_prompt(job), "messageHash": message},
            **self._several(job, base, state),
        }

    def _several(self, job: Job, base: str, state: Flat) -> dict[str, Any]:
        """Return the lists of links: four pictures if this installation has them, always four videos."""
        video = job.action == "VIDEO"
        listed = video or (self._desk.habits.get("four_links", False) and job.images > 1)
        if state.status != "SUCCESS" or not listed:
            return {"imageUrls": None, "videoUrl": None, "videoUrls": None}
        file = "{}.mp4" if video else "{}.png"
        links = [self._desk.link(base, job, index, file) for index in range(1, job.images + 1)]
        both = [{"url": link, "thumbnail": link} for link in links]
        return {"imageUrls": both, "videoUrl": links[0] if video else None, "videoUrls": both if video else None}


def _accepted(job: Job) -> dict[str, Any]:
    return said(SUCCESS, ACCEPTED, job.task_id, discordInstanceId=INSTANCE, discordChannelId=INSTANCE)


def _refused(description: str) -> tuple[int, dict[str, Any]]:
    return 200, said(INVALID, description)
