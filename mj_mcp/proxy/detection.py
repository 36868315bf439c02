"""Which dialect the proxy speaks, found out by fetching a task that cannot exist. It is free.

Owns the order of the attempts, and what is remembered. Knows no request bodies.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from mj_mcp.errors import StorageUnavailable
from mj_mcp.proxy.body import is_nothing, is_page
from mj_mcp.proxy.dialects import Dialect
from mj_mcp.proxy.dialects.gateway import GATEWAY
from mj_mcp.proxy.dialects.table import DIALECTS, dialect_of
from mj_mcp.proxy.http import Answer, Auth, Http, HttpRequest, NoAnswer

log = structlog.get_logger("mj_mcp.proxy")

REFUSED = frozenset({401, 403})
SHOWS_NOTHING = REFUSED | frozenset({301, 302, 303, 307, 308, 402, 408, 429})


class Memory(Protocol):
    """Where the dialect of the proxy is remembered from one process to the next."""

    async def recall_dialect(self) -> str | None:
        """The name that was remembered."""
        ...

    async def remember_dialect(self, name: str) -> None:
        """Remember it for the account."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """What the proxy showed: its dialect, or None where it showed nothing; and the answer to the fetch of `path`."""

    dialect: Dialect | None
    auth: Auth
    path: str
    answer: Answer | NoAnswer


class Detection:
    """The dialect of one proxy: set by a person, remembered, or found out at the first need."""

    def __init__(
        self, http: Http, *, dialect: str | None = None, auth: Auth | None = None, memory: Memory | None = None
    ) -> None:
        """`dialect` and `auth` are a person's choice; None: find out. Without `memory`, nothing is remembered."""
        self._http = http
        self._auth = auth
        self._memory = memory
        self._set = DIALECTS[dialect] if dialect else None
        self._known = self._set
        self._memory_is_right = memory is not None
        self._one_at_a_time = asyncio.Lock()

    async def known(self, seconds: float) -> Dialect | Found:
        """The dialect, remembered once it was found; else what the proxy answered.

        The first call may take two free requests of `seconds`.
        """
        if self._known is None:
            async with self._one_at_a_time:
                self._known = self._known or await self._remembered()
                if self._known is None:
                    found = await self.find(seconds)
                    return found.dialect or found
        return self._known

    def doubt(self) -> None:
        """The proxy refused the key: perhaps another one is behind the URL now. Find out at the next need."""
        self._known = self._set
        self._memory_is_right = False

    def auth_for(self, dialect: Dialect) -> Auth:
        """How the key is sent to it."""
        return self._auth or dialect.auth

    async def find(self, seconds: float) -> Found:
        """Ask the proxy, whatever is remembered, and remember what it shows.

        A bearer token first, and the secret alone if that is refused. An empty answer may be one to a guest, or of a
        gateway that knows no secret: then both are asked.
        """
        asked_as = self._set or GATEWAY
        path = asked_as.fetch_path(f"check-{uuid.uuid4().hex}")
        forms: list[Auth] = ["bearer", "secret"]
        if given := self._auth or (self._set.auth if self._set else None):
            forms = [given]
        asked: list[Found] = []
        for auth in forms:
            answer = await self._http.request(
                HttpRequest(method="GET", path=path, route=asked_as.fetch, seconds=seconds, auth=auth)
            )
            asked.append(Found(self._set or _speaks(answer), auth, path, answer))
            if not isinstance(answer, Answer) or not (answer.status in REFUSED or is_nothing(answer)):
                break
        found = _best(asked)
        if found.dialect is not None and self._set is None:
            await self._remember(found.dialect)
        return found

    async def _remembered(self) -> Dialect | None:
        if self._memory is None or not self._memory_is_right:
            return None
        try:
            return DIALECTS.get(await self._memory.recall_dialect() or "")
        except StorageUnavailable:
            return None

    async def _remember(self, dialect: Dialect) -> None:
        self._known = dialect
        log.info("dialect_found", dialect=dialect.name)
        try:
            if self._memory:
                await self._memory.remember_dialect(dialect.name)
        except StorageUnavailable as failure:
            log.warning("dialect_not_remembered", reason=failure.message)


def _best(asked: list[Found]) -> Found:
    """Of the answers to a bearer token and to the secret, in this order: the last that was not refused, or the first.

    A proxy that refuses the secret and answers a bearer with nothing is a gateway: the others take the secret. Where
    the secret was not answered, nothing is known.
    """
    first, last = asked[0], asked[-1]
    if not _is_refused(last):
        return last
    if _is_refused(first) or first.dialect is None:
        return first
    return replace(first, dialect=GATEWAY)


def _is_refused(found: Found) -> bool:
    return isinstance(found.answer, Answer) and found.answer.status in REFUSED


def _speaks(answer: Answer | NoAnswer) -> Dialect | None:
    """The dialect of an answer to the fetch of an unknown task. None for a refusal, a server error and a web page."""
    if isinstance(answer, NoAnswer) or answer.status in SHOWS_NOTHING or answer.status >= 500 or is_page(answer):
        return None
    return dialect_of(answer)
