"""One HTTP request to the proxy and its answer, as values, and the object that sends it.

Owns that the connection library is imported at the first request: a server that is started to be listed never needs it,
and it takes a tenth of the start.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mj_mcp.proxy.transport import Transport

CONNECT_SECONDS = 10.0

Fields = dict[str, Any]
"""The JSON object of an answer, as it came."""


@dataclass(frozen=True)
class Answer:
    """A complete answer: status, body, the seconds of `Retry-After`, and the target of a redirect."""

    status: int
    body: bytes
    retry_after: float | None = None
    location: str | None = None

    @cached_property
    def json(self) -> object:
        """The JSON of the body, parsed once; None where it is not JSON. A byte-order mark does not matter."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def fields(self) -> Fields | None:
        """The JSON object of the body; None for anything else."""
        return self.json if isinstance(self.json, dict) else None


Auth = Literal["bearer", "secret", "x-api-key"]

AUTHS: dict[Auth, str] = {
    "bearer": "Authorization: Bearer {}",
    "secret": "mj-api-secret: {}",
    "x-api-key": "x-api-key: {}",
}
"""The header that the key is sent in, never two of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request: method, path, how the key is sent, and its total time in seconds.

    `route` names the span, where the path itself holds an id. `code_of` finds the code in the body of an answer, for
    the log line.
    """

    method: Literal["GET", "POST"]
    path: str
    seconds: float
    auth: Auth = "bearer"
    route: str | None = None
    json: dict[str, Any] | None = None
    code_of: Callable[[Answer], int | None] = lambda _answer: None


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No complete answer. `sent` is False only if the request provably never left."""

    sent: bool
    reason: str


class Http:
    """The connection to the configured host. Besides the settings, only this object holds the API key."""

    def __init__(
        self, base_url: str, key: str, *, tunnel: str | None = None, connect_seconds: float = CONNECT_SECONDS
    ) -> None:
        """`base_url` may have a path. `key` is sent to this host only.

        `tunnel` is the URL of an HTTP proxy. It only gets a `CONNECT`, so it sees the host and port of a request and
        nothing else. Plain http never goes through it, because it would see the key.
        """
        self.base_url = base_url.rstrip("/")
        self._key = key
        self._tunnel = tunnel if self.base_url.lower().startswith("https://") else None
        self._connect_seconds = connect_seconds
        self._transport: Transport | None = None

    async def request(self, call: HttpRequest) -> Answer | NoAnswer:
        """Send one request within `call.seconds` in total. Returns the answer, or why there is none.

        A request that never left is tried up to 3 times; any other is sent once.
        """
        if self._transport is None:
            kind = await asyncio.to_thread(_transport)
            self._transport = self._transport or kind(self.base_url, self._key, self._tunnel, self._connect_seconds)
        return await self._transport.request(call)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._transport is not None:
            await self._transport.aclose()


def _transport() -> type[Transport]:
    from mj_mcp.proxy.transport import Transport  # noqa: PLC0415 - see above

    return Transport
