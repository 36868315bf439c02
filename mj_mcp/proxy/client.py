"""The client of the Midjourney Proxy: submit and fetch.

Owns every request to the proxy. Knows nothing of the journal, of waiting or of MCP.
"""

from __future__ import annotations

import re
import uuid

from mj_mcp.errors import Unauthorized, UpstreamError
from mj_mcp.proxy.dialects.gateway import FETCH, Submit, fetch_path, read_fetch
from mj_mcp.proxy.http import Answer, Http, HttpRequest, NoAnswer
from mj_mcp.proxy.outcomes import FetchResult, Outcome, Trouble, Unknown, read_code, read_submit
from mj_mcp.proxy.text import Redact

SUBMIT_SECONDS = 90.0
"""The total time for the answer to a submit."""

FETCH_SECONDS = 15.0

CHECK_SECONDS = 5.0

_CHANGING = re.compile(rb"[0-9a-fA-F]{4,}|[0-9]+")
"""What differs between two answers with the same meaning: ids, times, numbers."""


class Proxy:
    """What you can do with a Midjourney Proxy: submit, fetch, and check that it works."""

    def __init__(self, http: Http, redact: Redact, *, submit_seconds: float = SUBMIT_SECONDS) -> None:
        """`redact` removes the key from everything that the proxy sends back."""
        self._http = http
        self._redact = redact
        self._submit_seconds = submit_seconds

    async def submit(self, request: Submit) -> Outcome:
        """Post once. Never raises for an error of the proxy or the network: an unknown outcome is a value too."""
        answer = await self._http.request(
            HttpRequest(
                method="POST",
                path=request.path,
                json=dict(request.body),
                seconds=self._submit_seconds,
                code_of=read_code,
            )
        )
        return read_submit(answer, self._redact)

    async def fetch(self, task_id: str, seconds: float = FETCH_SECONDS) -> FetchResult:
        """Fetch the current state of the task, within `seconds`.

        Raises:
            InvalidRequest: `task_id` would change the URL.
        """
        return read_fetch(await self._get(fetch_path(task_id), FETCH, seconds), self._redact)

    async def check(self, seconds: float = CHECK_SECONDS) -> FetchResult:
        """Fetch a task that cannot exist. It is free, and returns `Unknown` if the proxy works and accepts the key.

        A 404 may also mean that the path of the base URL is wrong. So the answer is compared with the one to a path
        that cannot exist. If both are the same, this returns `Trouble`.
        """
        path = fetch_path(f"check-{uuid.uuid4().hex}")
        answer = await self._get(path, FETCH, seconds)
        fetched = read_fetch(answer, self._redact)
        if isinstance(fetched, Unknown) and isinstance(answer, Answer) and answer.status == 404:
            nowhere = f"/mj/check-{uuid.uuid4().hex}"
            other = await self._get(nowhere, "/mj/check", seconds)
            if isinstance(other, Answer) and _without(path, answer) == _without(nowhere, other):
                said = "HTTP 404 as for a path that does not exist: the path of MJ_BASE_URL is wrong or missing"
                return Trouble(UpstreamError.code, said)
        return fetched

    async def refuses_key(self) -> bool:
        """Whether the proxy refuses the key or the account now. Calls `check`."""
        fetched = await self.check()
        return isinstance(fetched, Trouble) and fetched.code == Unauthorized.code

    async def _get(self, path: str, route: str, seconds: float) -> Answer | NoAnswer:
        return await self._http.request(HttpRequest(method="GET", path=path, route=route, seconds=seconds))


def _without(path: str, answer: Answer) -> tuple[int, bytes]:
    """An answer without the parts that repeat its own request."""
    return answer.status, _CHANGING.sub(b"", answer.body.replace(path.encode(), b""))
