"""The upstream client: submit and look.

Owns the conversation with the Midjourney Proxy. Knows nothing of the journal, of waiting or of MCP.
"""

from __future__ import annotations

from mj_mcp.proxy.http import Call, Http
from mj_mcp.proxy.requests import Submit, change, check_task_id, fetch_path, imagine, simple_change
from mj_mcp.proxy.text import Redact
from mj_mcp.proxy.wire import (
    Accepted,
    Doubtful,
    Look,
    Refused,
    Trouble,
    Unknown,
    read_code,
    read_look,
    read_submit,
)

__all__ = [
    "Accepted",
    "Doubtful",
    "Look",
    "Proxy",
    "Refused",
    "Submit",
    "Trouble",
    "Unknown",
    "change",
    "check_task_id",
    "imagine",
    "simple_change",
]

SUBMIT_SECONDS = 90.0
"""How long the answer to a submit may take in all."""

LOOK_SECONDS = 15.0


class Proxy:
    """The two things one can do with a Midjourney Proxy."""

    def __init__(self, http: Http, redact: Redact) -> None:
        """`redact` takes the key out of whatever the proxy sends back."""
        self._http = http
        self._redact = redact

    async def submit(self, request: Submit) -> Accepted | Refused | Doubtful:
        """Post once. Never raises for what the proxy or the network does: doubt is an answer too."""
        answer = await self._http.request(
            Call(method="POST", path=request.path, json=dict(request.body), seconds=SUBMIT_SECONDS, code_of=read_code)
        )
        return read_submit(answer, self._redact)

    async def look(self, task_id: str, seconds: float = LOOK_SECONDS) -> Look:
        """Fetch the task as it stands now, within `seconds`.

        Raises:
            InvalidRequest: `task_id` could change the URL.
        """
        answer = await self._http.request(Call(method="GET", path=fetch_path(task_id), seconds=seconds))
        return read_look(answer, self._redact)
