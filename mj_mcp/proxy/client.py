"""The upstream client: submit and poll.

Owns the conversation with the Midjourney Proxy. Knows nothing of the journal, of waiting or of MCP.
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
"""How long the answer to a submit may take in all."""

FETCH_SECONDS = 15.0

CHECK_SECONDS = 5.0

_CHANGING = re.compile(rb"[0-9a-fA-F]{4,}|[0-9]+")
"""What differs between two answers that say the same: ids, times, numbers."""


class Proxy:
    """What one can do with a Midjourney Proxy: submit, look, and ask whether it is well."""

    def __init__(self, http: Http, redact: Redact, *, submit_seconds: float = SUBMIT_SECONDS) -> None:
        """`redact` takes the key out of whatever the proxy sends back."""
        self._http = http
        self._redact = redact
        self._submit_seconds = submit_seconds

    async def submit(self, request: Submit) -> Outcome:
        """Post once. Never raises for what the proxy or the network does: doubt is an answer too."""
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
        """Fetch the task as it stands now, within `seconds`.

        Raises:
            InvalidRequest: `task_id` could change the URL.
        """
        return read_fetch(await self._get(fetch_path(task_id), FETCH, seconds), self._redact)

    async def check(self, seconds: float = CHECK_SECONDS) -> FetchResult:
        """Fetch a task that cannot exist: `Unknown` where the proxy is there and takes the key. It costs nothing.

        A 404 may also say that the path of the base URL is wrong. So it is compared with the answer to a path that
        cannot exist; where they are the same, that is `Trouble`.
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
        """Whether the key, or the account behind it, is refused now; asked by `check`."""
        fetched = await self.check()
        return isinstance(fetched, Trouble) and fetched.code == Unauthorized.code

    async def _get(self, path: str, route: str, seconds: float) -> Answer | NoAnswer:
        return await self._http.request(HttpRequest(method="GET", path=path, route=route, seconds=seconds))


def _without(path: str, answer: Answer) -> tuple[int, bytes]:
    """An answer without what belongs to its own request."""
    return answer.status, _CHANGING.sub(b"", answer.body.replace(path.encode(), b""))
