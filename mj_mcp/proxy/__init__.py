"""The upstream client: submit and look.

Owns the conversation with the Midjourney Proxy. Knows nothing of the journal, of waiting or of MCP.
"""

from __future__ import annotations

import asyncio

from mj_mcp.errors import Unauthorized
from mj_mcp.proxy.http import Call, Http
from mj_mcp.proxy.requests import FETCH, Submit, change, check_task_id, fetch_path, imagine, simple_change
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

REFUSAL_COUNTS_SECONDS = 60.0
"""How long a refused key is held against it: the account may have been topped up since."""


class Proxy:
    """The two things one can do with a Midjourney Proxy."""

    def __init__(self, http: Http, redact: Redact) -> None:
        """`redact` takes the key out of whatever the proxy sends back."""
        self._http = http
        self._redact = redact
        self._key_refused_at = float("-inf")

    def refuses_key(self) -> bool:
        """Whether the key, or the account behind it, was refused within the last minute and not taken since."""
        return asyncio.get_running_loop().time() - self._key_refused_at < REFUSAL_COUNTS_SECONDS

    async def submit(self, request: Submit) -> Accepted | Refused | Doubtful:
        """Post once. Never raises for what the proxy or the network does: doubt is an answer too."""
        answer = await self._http.request(
            Call(method="POST", path=request.path, json=dict(request.body), seconds=SUBMIT_SECONDS, code_of=read_code)
        )
        outcome = read_submit(answer, self._redact)
        self._note_key(outcome.failure.code if isinstance(outcome, Refused) else None, outcome)
        return outcome

    async def look(self, task_id: str, seconds: float = LOOK_SECONDS) -> Look:
        """Fetch the task as it stands now, within `seconds`.

        Raises:
            InvalidRequest: `task_id` could change the URL.
        """
        answer = await self._http.request(Call(method="GET", path=fetch_path(task_id), route=FETCH, seconds=seconds))
        look = read_look(answer, self._redact)
        self._note_key(look.code if isinstance(look, Trouble) else None, look)
        return look

    def _note_key(self, code: str | None, answer: Accepted | Refused | Doubtful | Look) -> None:
        if code == Unauthorized.code:
            self._key_refused_at = asyncio.get_running_loop().time()
        elif not isinstance(answer, Trouble | Doubtful):
            self._key_refused_at = float("-inf")
