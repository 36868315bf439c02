"""The proxy's site: which address answers what, which key is accepted, and which links work for how long.

Owns routes, the key, signed links, and the HTTP form of each answer. Knows nothing of faults, sockets, or what tests
ask.
"""

import functools
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import parse_qs, quote, unquote

from mj_mcp.simulator.api import Job, Proxy
from mj_mcp.simulator.drawing import Drawing
from mj_mcp.simulator.hostile import FOREIGN_LINKS, KINDS, Gallery
from mj_mcp.simulator.listener import JSON, Reply, Request
from mj_mcp.simulator.orders import Order, Refusal, read_order

Unknown = Literal["empty", "null", "{}", "204", "404"]
"""How a fetch of an unknown task is answered."""

_UNKNOWN: Final[dict[Unknown, Reply]] = {
    "empty": Reply(200, b"", JSON),
    "null": Reply(200, b"null", JSON),
    "{}": Reply(200, b"{}", JSON),
    "204": Reply(204),
    "404": Reply(404, b'{"error": {"message": "task not found", "type": "invalid_request_error"}}', JSON),
}
_HTML_404: Final = Reply(
    404, b"<!DOCTYPE html><html><body>404 page not found</body></html>", (("Content-Type", "text/html"),)
)
_CHALLENGE: Final = ("WWW-Authenticate", "Bearer")


def _json(status: int, answer: object, *headers: tuple[str, str]) -> Reply:
    return Reply(status, json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace"), (*JSON, *headers))


def _error(status: int, message: str, *headers: tuple[str, str]) -> Reply:
    return _json(status, {"error": {"message": message, "type": "invalid_request_error"}}, *headers)


_Handler = Callable[..., Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the site. `link_seconds` is None for links that do not expire."""

    key: str
    prefix: str
    image_edge: int
    link_seconds: float | None


@dataclass(frozen=True, slots=True)
class Visit:
    """A matched request: the kinds under which a fault may be queued, the most specific first, and the ids."""

    targets: tuple[str, ...]
    names: dict[str, str]
    serve: Callable[[], Awaitable[Reply]]


class Site:
    """Answers requests correctly."""

    def __init__(
        self, settings: Settings, proxy: Proxy, charge: Callable[[Job, str, Order], None], now: Callable[[], float]
    ) -> None:
        self.unknown_answer: Unknown = "empty"
        self.pictures: dict[tuple[str, int], str] = {}
        self.gallery = Gallery()
        self._settings = settings
        self._proxy = proxy
        self._charge = charge
        self._now = now
        self._secret = secrets.token_bytes()
        self._routes: tuple[tuple[str, re.Pattern[str], _Handler], ...] = (
            ("POST", re.compile(r"/mj/submit/(?P<endpoint>imagine|change|simple-change)"), self._submit),
            ("GET", re.compile(r"/mj/task/(?P<task_id>[^/]+)/fetch"), self._fetch),
            ("GET", re.compile(r"/pictures/(?P<task_id>[^/]+)/(?P<index>[1-9])\.png"), self._picture),
            ("GET", re.compile(r"/hostile/(?P<kind>[a-z-]+)"), self._hostile),
        )

    def find(self, request: Request) -> Visit | Reply:
        """Return the handler of this request, or the reply if there is none."""
        if not request.path.startswith(f"{self._settings.prefix}/"):
            return _HTML_404
        path = request.path.removeprefix(self._settings.prefix)
        for method, pattern, handler in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if request.method != method:
                return _error(405, "method not allowed", ("Allow", method))
            names = {name: unquote(value) for name, value in match.groupdict().items()}
            return Visit(_targets(names), names, functools.partial(handler, request, **names))
        return _error(404, "not found")

    def _locked(self, request: Request) -> Reply | None:
        given = request.headers.get("authorization", "")
        if hmac.compare_digest(given.encode(), f"Bearer {self._settings.key}".encode()):
            return None
        return _error(401, "invalid API key", _CHALLENGE)

    async def _submit(self, request: Request, endpoint: str) -> Reply:
        if locked := self._locked(request):
            return locked
        order = read_order(endpoint, request.headers.get("content-type", ""), request.body)
        if isinstance(order, Refusal):
            return _refused(order)
        if known := self._proxy.existing(order):
            return _json(200, {"code": 21, "description": "任务已存在", "result": known.task_id})
        job = self._proxy.create(order)
        if isinstance(job, Refusal):
            return _refused(job)
        self._charge(job, endpoint, order)
        return _json(200, {"code": 1, "description": "提交成功", "result": job.task_id})

    async def _fetch(self, request: Request, task_id: str) -> Reply:
        if locked := self._locked(request):
            return locked
        job = self._proxy.jobs.get(task_id)
        if job is None:
            return _UNKNOWN[self.unknown_answer]
        base = self._base(request)
        ttl = "0" if self._settings.link_seconds is None else str(int(self._settings.link_seconds))
        return _json(200, self._proxy.answer(job, lambda job, index: self._link(base, job, index), ttl))

    async def _picture(self, request: Request, task_id: str, index: str) -> Reply:
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        sig, exp = query.get("sig", ""), query.get("exp", "")
        if not hmac.compare_digest(sig.encode(), self._sign(task_id, int(index), exp).encode()):
            return _error(403, "the signature does not match")
        if float(exp) and self._now() >= float(exp):
            return _error(410, "the link has expired")
        job = self._proxy.jobs.get(task_id)
        if job is None:
            return _error(404, "no such picture")
        kind = self._kind(job, int(index)) or "png"
        return await self.gallery.serve(kind, self._proxy.drawing(job, int(index)), self._base(request))

    async def _hostile(self, request: Request, kind: str) -> Reply:
        if kind not in KINDS:
            return _error(404, "no such kind")
        size = (self._settings.image_edge, self._settings.image_edge)
        return await self.gallery.serve(kind, Drawing(kind, "hostile", kind, kind, size), self._base(request))

    def _base(self, request: Request) -> str:
        """Return the address that the client uses for us: links must work for it, too."""
        host = request.headers.get("host", "127.0.0.1")
        return f"http://{host}{self._settings.prefix}"

    def _kind(self, job: Job, index: int) -> str | None:
        return self.pictures.get((job.task_id, index), job.picture)

    def _link(self, base: str, job: Job, index: int) -> str:
        kind = self._kind(job, index)
        if kind in FOREIGN_LINKS:
            return FOREIGN_LINKS[kind]
        exp = "0" if self._settings.link_seconds is None else f"{self._now() + self._settings.link_seconds:.3f}"
        sig = self._sign(job.task_id, index, exp)
        return f"{base}/pictures/{quote(job.task_id)}/{index}.png?sig={sig}&exp={exp}"

    def _sign(self, task_id: str, index: int, exp: str) -> str:
        return hmac.new(self._secret, f"{task_id}/{index}/{exp}".encode(), hashlib.sha256).hexdigest()[:32]


def _targets(names: dict[str, str]) -> tuple[str, ...]:
    if "endpoint" in names:
        return names["endpoint"], "submit"
    return ("picture",) if names.keys() & {"index", "kind"} else ("fetch",)


def _refused(refusal: Refusal) -> Reply:
    answer: dict[str, Any] = {"code": refusal.code, "description": refusal.description}
    return _json(200, answer | ({"properties": refusal.properties} if refusal.properties else {}))
