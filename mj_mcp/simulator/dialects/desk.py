"""What every dialect works with: the settings, the tasks, the signed links, and the form of a JSON answer.

Owns links and their signatures. Knows no dialect: which address answers what is each dialect's own.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypedDict
from urllib.parse import parse_qs, quote

from mj_mcp.simulator.api import Job, SimulatedProxy
from mj_mcp.simulator.hostile import FOREIGN_LINKS
from mj_mcp.simulator.listener import JSON, Reply, Request

Unknown = Literal["empty", "null", "{}", "204", "404"]
"""How the gateway answers a fetch of an unknown task."""

MP4: Final = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom"


class Habits(TypedDict, total=False):
    """What differs from one installation of a dialect to the next; each is off when left out.

    Attributes:
        model: The version that pictures get without `--v` in their prompt; "7" when left out.
        guests: plus lets in who has no key or a wrong one.
        remix: plus asks for a window also for variations, pans, rerolls and animations.
        four_links: plus lists the four pictures of a grid as `imageUrls` too.
        browsers_only: the host of these four refuses every program that does not call itself a browser.
        changing_buttons: plus gives the buttons new ids at each fetch, and only the latest work.
        localhost_links: newapi was never told its own address.
        refresh_seconds: how seldom newapi looks at its upstream.
    """

    model: str
    guests: bool
    remix: bool
    four_links: bool
    browsers_only: bool
    changing_buttons: bool
    localhost_links: bool
    refresh_seconds: float


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """The settings of the site. `link_seconds` is None for links that do not expire."""

    key: str
    prefix: str
    image_edge: int
    link_seconds: float | None
    habits: Habits


@dataclass(frozen=True, slots=True)
class Route:
    """One address: `kind` is what a fault may be queued under; a submit has its `endpoint` in the pattern instead."""

    method: str
    pattern: re.Pattern[str]
    handler: Callable[..., Awaitable[Reply]]
    kind: str = "submit"


class Wording(Protocol):
    """One way to word the API."""

    routes: tuple[Route, ...]

    def elsewhere(self, request: Request, allowed: str | None, /) -> Reply:
        """Answer a request that no route takes; `allowed` is the method that this path would take."""
        ...


@dataclass(slots=True)
class Desk:
    """The tools of a dialect. `guests` counts the requests that came in without the right key."""

    settings: SiteSettings
    proxy: SimulatedProxy
    charge: Callable[[Job, str, dict[str, Any]], None]
    fire: Callable[[str], None]
    now: Callable[[], float]
    unknown_answer: Unknown = "empty"
    guests: int = 0
    pictures: dict[tuple[str, int], str] = field(default_factory=dict)
    _secret: bytes = field(default_factory=secrets.token_bytes)

    @property
    def habits(self) -> Habits:
        """What differs from one installation to the next."""
        return self.settings.habits

    def base(self, request: Request) -> str:
        """Return the address that the client uses for us: links must work for it, too."""
        host = request.headers.get("host", "127.0.0.1")
        return f"http://{host}{self.settings.prefix}"

    def kind(self, job: Job, index: int) -> str | None:
        """Return the kind of the hostile table that replaces this picture, if any."""
        return self.pictures.get((job.task_id, index), job.picture)

    def link(self, base: str, job: Job, index: int, file: str = "{}.png") -> str:
        """Return the signed link of a picture; `file` is its name with the index in it."""
        kind = self.kind(job, index)
        if kind in FOREIGN_LINKS:
            return FOREIGN_LINKS[kind]
        seconds = self.settings.link_seconds
        exp = "0" if seconds is None else f"{self.now() + seconds:.3f}"
        name = file.format(index)
        return f"{base}/pictures/{quote(job.task_id)}/{name}?sig={self._sign(job.task_id, name, exp)}&exp={exp}"

    def spoiled(self, request: Request, task_id: str, name: str) -> Reply | None:
        """Return the refusal of a link whose signature is wrong or whose time is over."""
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        sig, exp = query.get("sig", ""), query.get("exp", "")
        if not hmac.compare_digest(sig.encode(), self._sign(task_id, name, exp).encode()):
            return error(403, "the signature does not match")
        if float(exp) and self.now() >= float(exp):
            return error(410, "the link has expired")
        return None

    def _sign(self, task_id: str, name: str, exp: str) -> str:
        return hmac.new(self._secret, f"{task_id}/{name}/{exp}".encode(), hashlib.sha256).hexdigest()[:32]


def answer(status: int, said: object, *headers: tuple[str, str]) -> Reply:
    """Return an answer in JSON."""
    return Reply(status, json.dumps(said, ensure_ascii=False).encode("utf-8", "replace"), (*JSON, *headers))


def error(status: int, message: str, *headers: tuple[str, str]) -> Reply:
    """Return an error as the gateway words it."""
    return answer(status, {"error": {"message": message, "type": "invalid_request_error"}}, *headers)


def text(status: int, said: str, *headers: tuple[str, str]) -> Reply:
    """Return an answer in plain text."""
    return Reply(status, said.encode(), (("Content-Type", "text/plain; charset=utf-8"), *headers))


def same(given: str, key: str) -> bool:
    """Compare a given key with the right one."""
    return hmac.compare_digest(given.encode(), key.encode())
